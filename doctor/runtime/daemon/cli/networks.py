"""What `docker` does with networks, volumes and names of images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.cli import tables
from doctor.runtime.daemon.cli.client import Client, Refused, each
from doctor.runtime.daemon.cli.flags import Flags, filters, needs

if TYPE_CHECKING:
    from collections.abc import Callable


def _networks(client: Client, words: list[str]) -> int:
    flags, _ = Flags("filter,f=*", "format=", "no-trunc", "quiet,q").parse(words)
    listed = client.ask("GET", "/networks", **filters(flags["filter"]))
    rows = [
        tables.network_row(one, whole=bool(flags["no-trunc"])) for one in sorted(listed, key=lambda one: one["Name"])
    ]
    sys.stdout.write(tables.table(rows, tables.NETWORKS, flags["format"] or "", quiet="ID" if flags["quiet"] else ""))
    return 0


_NETWORK = Flags(
    *("attachable", "aux-address=*", "driver,d=", "gateway=*", "internal", "ip-range=*", "ipv4", "ipv6", "label=*"),
    *("opt,o=*", "scope=", "subnet=*", "ipam-driver=", "ipam-opt=*"),
)


def _create_network(client: Client, words: list[str]) -> int:
    flags, rest = _NETWORK.parse(words)
    needs(rest, 1, "network create", 1)
    pools = [{"Subnet": subnet} for subnet in flags["subnet"]]
    for key, values in (("Gateway", flags["gateway"]), ("IPRange", flags["ip-range"])):
        for number, value in enumerate(values):
            if number >= len(pools):
                pools.append({})
            pools[number][key] = value
    body: dict[str, Any] = {
        "Name": rest[0],
        "Driver": flags["driver"] or "bridge",
        "Internal": bool(flags["internal"]),
        "EnableIPv6": bool(flags["ipv6"]),
        "IPAM": {"Driver": "default", "Config": pools},
        "Options": dict(text.partition("=")[::2] for text in flags["opt"]),
        "Labels": dict(text.partition("=")[::2] for text in flags["label"]),
    }
    if flags["aux-address"] and pools:
        body["IPAM"]["Config"][0]["AuxiliaryAddresses"] = dict(
            text.partition("=")[::2] for text in flags["aux-address"]
        )
    if flags["ipv4"] is not None:
        body["EnableIPv4"] = flags["ipv4"]
    sys.stdout.write(client.ask("POST", "/networks/create", body)["Id"] + "\n")
    return 0


def _remove_networks(client: Client, words: list[str]) -> int:
    _, rest = Flags("force,f").parse(words)
    needs(rest, 1, "network rm")
    code = each(client, rest, lambda to, name: to.ask("DELETE", f"/networks/{name}"))
    if code:
        sys.stderr.write("exit status 1\n")
    return code


def _connect(client: Client, words: list[str]) -> int:
    flags, rest = Flags("alias=*", "ip=", "ip6=", "link=*", "driver-opt=*", "gw-priority=").parse(words)
    needs(rest, 2, "network connect", 2)
    fixed = {"IPv4Address": flags["ip"], "IPv6Address": flags["ip6"]}
    fixed = {key: value for key, value in fixed.items() if value}
    endpoint = {"IPAMConfig": fixed, "Aliases": flags["alias"] or None}
    client.ask("POST", f"/networks/{rest[0]}/connect", {"Container": rest[1], "EndpointConfig": endpoint})
    return 0


def _disconnect(client: Client, words: list[str]) -> int:
    flags, rest = Flags("force,f").parse(words)
    needs(rest, 2, "network disconnect", 2)
    client.ask("POST", f"/networks/{rest[0]}/disconnect", {"Container": rest[1], "Force": bool(flags["force"])})
    return 0


def _volumes(client: Client, words: list[str]) -> int:
    flags, _ = Flags("filter,f=*", "format=", "quiet,q").parse(words)
    listed = client.ask("GET", "/volumes")["Volumes"]
    rows = [{"Driver": one["Driver"], "Name": one["Name"], "Mountpoint": one["Mountpoint"]} for one in listed]
    sys.stdout.write(tables.table(rows, tables.VOLUMES, flags["format"] or "", quiet="Name" if flags["quiet"] else ""))
    return 0


def _create_volume(client: Client, words: list[str]) -> int:
    flags, rest = Flags("driver,d=", "label=*", "name=", "opt,o=*").parse(words)
    made = client.ask("POST", "/volumes/create", {"Name": rest[0] if rest else flags["name"] or ""})
    sys.stdout.write(f"{made['Name']}\n")
    return 0


def _remove_volumes(client: Client, words: list[str]) -> int:
    _, rest = Flags("force,f").parse(words)
    needs(rest, 1, "volume rm")
    return each(client, rest, lambda to, name: to.ask("DELETE", f"/volumes/{name}"))


def _pull(client: Client, words: list[str]) -> int:
    _, rest = Flags("all-tags,a", "platform=", "quiet,q").parse(words)
    needs(rest, 1, "pull", 1)
    client.ask("POST", "/images/create", fromImage=rest[0])
    return 0


def _tag(client: Client, words: list[str]) -> int:
    _, rest = Flags().parse(words)
    needs(rest, 2, "tag", 2)
    name, colon, tag = rest[1].rpartition(":")
    repository, tag = (name, tag) if colon and "/" not in tag else (rest[1], "latest")
    client.ask("POST", f"/images/{rest[0]}/tag", repo=repository, tag=tag)
    return 0


def _rmi(client: Client, words: list[str]) -> int:
    _, rest = Flags("force,f", "no-prune").parse(words)
    needs(rest, 1, "rmi")
    code = 0
    for name in rest:
        try:
            for one in client.ask("DELETE", f"/images/{name}"):
                sys.stdout.write("".join(f"{word}: {what}\n" for word, what in one.items()))
        except Refused as error:
            sys.stderr.write(f"Error response from daemon: {error.message}\n")
            code = 1
    return code


COMMANDS: dict[str, Callable[[Client, list[str]], int]] = {
    "network connect": _connect,
    "network create": _create_network,
    "network disconnect": _disconnect,
    "network ls": _networks,
    "network rm": _remove_networks,
    "pull": _pull,
    "rmi": _rmi,
    "tag": _tag,
    "volume create": _create_volume,
    "volume ls": _volumes,
    "volume rm": _remove_volumes,
}
