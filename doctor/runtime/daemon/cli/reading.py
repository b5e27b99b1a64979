"""What `docker` shows: inspect, images, version, info, events."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.cli import tables
from doctor.runtime.daemon.cli.client import Client, Refused
from doctor.runtime.daemon.cli.flags import Flags, filters, moment, needs
from doctor.runtime.daemon.cli.template import render

if TYPE_CHECKING:
    from collections.abc import Callable


def _inspect(client: Client, words: list[str]) -> int:
    flags, rest = Flags("format,f=", "size,s", "type=").parse(words)
    needs(rest, 1, "inspect")
    kinds = {
        "container": "/containers/{}/json",
        "image": "/images/{}/json",
        "network": "/networks/{}",
        "volume": "/volumes/{}",
    }
    wanted = [flags["type"]] if flags["type"] else list(kinds)
    return _show(client, rest, [kinds[one] for one in wanted if one in kinds], flags["format"], "No such object: {}")


def _show(client: Client, names: list[str], paths: list[str], style: str | None, missing: str) -> int:
    found, code = [], 0
    for name in names:
        for path in paths:
            try:
                found.append(client.ask("GET", path.format(name)))
                break
            except Refused as error:
                if error.status != 404:  # noqa: PLR2004 - HTTP
                    raise
                last = error.message
        else:
            said = f"Error: {missing.format(name)}" if len(paths) > 1 else f"Error response from daemon: {last}"
            sys.stderr.write(f"{said}\n")
            code = 1
    if style:
        sys.stdout.write("".join(render(style, one) + "\n" for one in found))
    else:
        sys.stdout.write(json.dumps(found, indent=4, ensure_ascii=False) + "\n")
    return code


def _inspecting(path: str) -> Callable[[Client, list[str]], int]:
    def act(client: Client, words: list[str]) -> int:
        flags, rest = Flags("format,f=", "size,s", "verbose,v").parse(words)
        needs(rest, 1, "inspect")
        return _show(client, rest, [path], flags["format"], "")

    return act


def _images(client: Client, words: list[str]) -> int:
    flags, rest = Flags("all,a", "digests", "filter,f=*", "format=", "no-trunc", "quiet,q").parse(words)
    listed = client.ask("GET", "/images/json")
    rows = [row for one in listed for row in tables.image_rows(one, whole=bool(flags["no-trunc"]))]
    rows = [row for row in rows if not rest or rest[0] in {row["Repository"], f"{row['Repository']}:{row['Tag']}"}]
    sys.stdout.write(tables.table(rows, tables.IMAGES, flags["format"] or "", quiet="ID" if flags["quiet"] else ""))
    return 0


def _version(client: Client, words: list[str]) -> int:
    flags, _ = Flags("format,f=").parse(words)
    held = client.ask("GET", "/version")
    if flags["format"]:
        sys.stdout.write(render(flags["format"], {"Server": held, "Client": held}) + "\n")
        return 0
    sys.stdout.write(
        f"Client: doctor's runtime, words as docker's\n\nServer:\n Engine:\n  Version:          {held['Version']}\n"
    )
    sys.stdout.write(f"  API version:      {held['ApiVersion']} (minimum version {held['MinAPIVersion']})\n")
    sys.stdout.write(f"  OS/Arch:          {held['Os']}/{held['Arch']}\n")
    return 0


def _info(client: Client, words: list[str]) -> int:
    flags, _ = Flags("format,f=").parse(words)
    held = client.ask("GET", "/info")
    if flags["format"]:
        sys.stdout.write(render(flags["format"], held) + "\n")
        return 0
    shown = (
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Default Runtime", "DefaultRuntime"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("Name", "Name"),
        ("Docker Root Dir", "DockerRootDir"),
        ("Debug Mode", "Debug"),
        ("Live Restore Enabled", "LiveRestoreEnabled"),
    )
    lines = []
    for title, key in shown:
        value = held[key]
        lines.append(f" {title}: {str(value).lower() if isinstance(value, bool) else value}\n")
    sys.stdout.write("Server:\n" + "".join(lines))
    return 0


def _events(client: Client, words: list[str]) -> int:
    flags, _ = Flags("filter,f=*", "format=", "since=", "until=").parse(words)
    query = {name: moment(flags[name]) for name in ("since", "until") if flags[name]}
    answer = client.open("GET", "/events", None, {**query, **filters(flags["filter"])})
    while part := answer.chunk():
        for line in part.splitlines():
            event = json.loads(line)
            if flags["format"]:
                sys.stdout.write(render(flags["format"], event) + "\n")
            else:
                sys.stdout.write(_event(event))
            sys.stdout.flush()
    return 0


def _event(event: dict[str, Any]) -> str:
    seconds, rest = divmod(event["timeNano"], 1_000_000_000)
    when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
    return f"{when} {event['Type']} {event['Action']} {event['Actor']['ID']} ({attributes})\n"


COMMANDS: dict[str, Callable[[Client, list[str]], int]] = {
    "events": _events,
    "image inspect": _inspecting("/images/{}/json"),
    "container inspect": _inspecting("/containers/{}/json"),
    "images": _images,
    "info": _info,
    "inspect": _inspect,
    "network inspect": _inspecting("/networks/{}"),
    "version": _version,
    "volume inspect": _inspecting("/volumes/{}"),
}
