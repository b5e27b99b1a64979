"""Tables as docker prints them: columns three spaces apart, and what stands in them."""

from __future__ import annotations

import time
from typing import Any

from doctor.runtime.daemon.cli.template import render
from doctor.runtime.daemon.clock import ago

_COMMAND = 20


def table(
    rows: list[dict[str, str]],
    columns: tuple[tuple[str, str], ...],
    style: str = "",
    *,
    quiet: str = "",
    least: int = 10,
) -> str:
    """Print rows: all columns (key, title), by a template, or one of them alone; a column has `least` characters."""
    if quiet:
        return "".join(f"{row[quiet]}\n" for row in rows)
    if style and not style.startswith("table"):
        return "".join(render(style.replace("\\t", "\t").replace("\\n", "\n"), row) + "\n" for row in rows)
    if style.startswith("table "):
        titles = dict(columns)
        text = style.removeprefix("table ").replace("\\t", "\t")
        cells = [
            render(text, {key: titles.get(key, key.upper()) for key in [*titles, *(rows[0] if rows else {})]}).split(
                "\t"
            )
        ]
        cells += [render(text, row).split("\t") for row in rows]
    else:
        cells = [[title for _, title in columns], *([row[key] for key, _ in columns] for row in rows)]
    widths = [max(least, 3 + max(len(row[at]) for row in cells)) for at in range(len(cells[0]))]
    lines = ("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in cells)
    return "".join(f"{line}\n" for line in lines)


CONTAINERS = (
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
)
NETWORKS = (("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE"))
IMAGES = (
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
)
VOLUMES = (("Driver", "DRIVER"), ("Name", "VOLUME NAME"))


def container_row(one: dict[str, Any], *, whole: bool) -> dict[str, str]:
    """Give the columns of one container."""
    command = one["Command"] if whole or len(one["Command"]) <= _COMMAND else one["Command"][: _COMMAND - 1] + "…"
    networks = one.get("NetworkSettings", {}).get("Networks", {})
    return {
        "ID": one["Id"] if whole else one["Id"][:12],
        "Image": one["Image"].removeprefix("sha256:")[:12] if one["Image"].startswith("sha256:") else one["Image"],
        "Command": f'"{command}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(one["Created"])),
        "RunningFor": f"{ago(time.time() - one['Created'])} ago",
        "Status": one["Status"],
        "State": one["State"],
        "Ports": ports(one["Ports"]),
        "Names": ",".join(name.lstrip("/") for name in one["Names"] if whole or name.count("/") == 1),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(one["Labels"].items())),
        "Networks": ",".join(networks),
        "Mounts": ",".join(held.get("Name") or held["Source"] for held in one["Mounts"]),
    }


def ports(listed: list[dict[str, Any]]) -> str:
    """Join the ports of a container (docker/cli cli/command/formatter DisplayablePorts, without its ranges)."""
    texts = []
    for one in sorted(listed, key=lambda one: (one["PrivatePort"], one.get("PublicPort", 0), one.get("IP", ""))):
        private = f"{one['PrivatePort']}/{one['Type']}"
        if "PublicPort" in one:
            ip = f"[{one['IP']}]" if ":" in one["IP"] else one["IP"]
            texts.append(f"{ip}:{one['PublicPort']}->{private}")
        else:
            texts.append(private)
    return ", ".join(texts)


def network_row(one: dict[str, Any], *, whole: bool) -> dict[str, str]:
    """Give the columns of one network."""
    identity = one["Id"] if whole else one["Id"][:12]
    return {"ID": identity, **{key: str(one[key]) for key in ("Name", "Driver", "Scope", "Internal", "EnableIPv6")}}


def image_rows(one: dict[str, Any], *, whole: bool) -> list[dict[str, str]]:
    """Give the columns of one image, a row for each of its names."""
    identity = one["Id"] if whole else one["Id"].removeprefix("sha256:")[:12]
    rest = {
        "ID": identity,
        "CreatedSince": f"{ago(time.time() - one['Created'])} ago",
        "Size": sized(one["Size"]),
    }
    names = [tag.rpartition(":") for tag in one["RepoTags"] or ["<none>:<none>"]]
    return [{"Repository": name, "Tag": tag, **rest} for name, _, tag in names]


def sized(count: float) -> str:
    """Say a size in bytes with three digits (docker/go-units HumanSizeWithPrecision).

    >>> sized(1_982_913), sized(512), sized(25_000_000_000)
    ('1.98MB', '512B', '25GB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":  # noqa: PLR2004 - powers of a thousand
            return f"{count:.3g}{unit}"
        count /= 1000
    raise AssertionError
