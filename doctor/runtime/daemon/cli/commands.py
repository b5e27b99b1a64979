"""What each word of the command line does, and its exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.cli import asked, pages, session, tables
from doctor.runtime.daemon.cli.client import Client, Refused, Unreachable
from doctor.runtime.daemon.cli.flags import Flags, UsageError
from doctor.runtime.daemon.cli.template import render

if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE = 125
_NOT_FOUND, _NOT_RUN = 127, 126
_KNOWN_GROUPS = frozenset({"container", "image", "network", "volume", "system"})


def main(argv: list[str]) -> int:
    """Run a command line (without the program's name); gives the exit code."""
    words = list(argv)
    while words and words[0] in {"-D", "--debug"}:
        words.pop(0)
    if not words or words[0] in {"help", "--help", "-h"}:
        sys.stdout.write(pages.TOP)
        return 0
    if words[0] in {"--version", "-v"}:
        words = ["version"]
    name = words.pop(0)
    if name in _KNOWN_GROUPS:
        if not words or words[0] == "--help":
            sys.stdout.write(pages.group(name))
            return 0
        name = f"{name} {words.pop(0)}"
    command = _COMMANDS.get(_ALIASES.get(name, name))
    if command is None:
        sys.stderr.write(f"docker: '{name}' is not a docker command of a lab.\nSee 'docker --help'\n")
        return 1
    return _run(_ALIASES.get(name, name), command, words)


def _run(name: str, command: Callable[[Client, list[str]], int], words: list[str]) -> int:
    prefix = "docker: " if name in {"run", "create"} else ""
    try:
        if words[:1] == ["--help"]:
            sys.stdout.write(pages.usage(name))
            return 0
        return command(Client(), words)
    except UsageError as error:
        more = f"\n\nUsage:  docker {pages.line(name)}\n\nRun 'docker {name} --help' for more information\n"
        sys.stderr.write(f"{prefix if name == 'run' else ''}{error}{more}")
        return _USAGE
    except Unreachable as error:
        sys.stderr.write(f"{prefix}{error}\n")
        return _USAGE if prefix else 1
    except Refused as error:
        sys.stderr.write(f"{prefix}Error response from daemon: {error.message}\n")
        if prefix:
            sys.stderr.write(f"\nRun 'docker {name} --help' for more information\n")
        return _refusal(error.message) if prefix else 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


def _refusal(message: str) -> int:
    """Give the exit code of `docker run` for what kept the container from starting."""
    if "executable file not found" in message or "no such file or directory" in message:
        return _NOT_FOUND
    return _NOT_RUN if "permission denied" in message or "is a directory" in message else _USAGE


def _needs(words: list[str], least: int, name: str, most: int | None = None) -> None:
    if len(words) < least or (most is not None and len(words) > most):
        exactly = "exactly" if most == least else "at least"
        raise UsageError(
            f"docker {name}: 'docker {name}' requires {exactly} {least} argument{'s' if least > 1 else ''}"
        )


def _each(client: Client, names: list[str], act: Callable[[Client, str], object]) -> int:
    """Do the same to several, say the name of each that went well, and go on past those that did not."""
    code = 0
    for name in names:
        try:
            act(client, name)
            sys.stdout.write(f"{name}\n")
        except Refused as error:
            sys.stderr.write(f"Error response from daemon: {error.message}\n")
            code = 1
    return code


# Containers


def _create(client: Client, words: list[str]) -> int:
    flags, rest = asked.RUN.parse(words)
    _needs(rest, 1, "create")
    sys.stdout.write(_make(client, flags, rest, attached=False) + "\n")
    return 0


def _make(client: Client, flags: dict[str, Any], rest: list[str], *, attached: bool) -> str:
    body = asked.body(flags, rest[0], rest[1:], attached=attached)
    try:
        made = client.ask("POST", "/containers/create", body, name=flags["name"] or "")
    except Refused as error:
        if error.status == 404 and "o such image" in error.message:  # noqa: PLR2004 - HTTP
            named = rest[0] if ":" in rest[0] else f"{rest[0]}:latest"
            sys.stderr.write(f"Unable to find image '{named}' locally\n")
            client.ask("POST", "/images/create", fromImage=rest[0])
        raise
    for text in made.get("Warnings") or ():
        sys.stderr.write(f"WARNING: {text}\n")
    return str(made["Id"])


def _run_command(client: Client, words: list[str]) -> int:
    flags, rest = asked.RUN.parse(words)
    _needs(rest, 1, "run")
    if flags["detach"] and flags["rm"] is None and flags["attach"]:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    attached = not flags["detach"]
    if attached and flags["tty"] and flags["interactive"] and not sys.stdin.isatty():
        sys.stderr.write("the input device is not a TTY\n")
        return 1
    identity = _make(client, flags, rest, attached=attached)
    if not attached:
        client.ask("POST", f"/containers/{identity}/start")
        sys.stdout.write(f"{identity}\n")
        return 0
    query = {"stream": "1", "stdout": "1", "stderr": "1", **({"stdin": "1"} if flags["interactive"] else {})}
    stream = client.open("POST", f"/containers/{identity}/attach", None, query, upgrade=True)
    condition = "removed" if flags["rm"] else "next-exit"
    waiting = client.open("POST", f"/containers/{identity}/wait", None, {"condition": condition})
    client.ask("POST", f"/containers/{identity}/start")
    if not flags["tty"] and flags["sig-proxy"] is not False:
        _pass_signals(client, identity)
    size = _resizer(client, f"/containers/{identity}/resize")
    if flags["tty"]:
        with session.raw_terminal(size):
            session.carry(stream, terminal=True, stdin=bool(flags["interactive"]))
    else:
        session.carry(stream, terminal=False, stdin=bool(flags["interactive"]))
    answer = waiting.json() or {}
    return int(answer.get("StatusCode", _USAGE))


def _resizer(client: Client, path: str) -> Callable[[int, int], object]:
    return lambda height, width: client.ask("POST", path, h=str(height), w=str(width))


def _pass_signals(client: Client, identity: str) -> None:
    def send(number: int, _: object) -> None:
        with suppress(Refused, Unreachable):
            client.ask("POST", f"/containers/{identity}/kill", signal=str(number))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, send)


_EXEC = Flags("detach,d", "env,e=*", "interactive,i", "privileged", "tty,t", "user,u=", "workdir,w=", mixed=False)


def _exec(client: Client, words: list[str]) -> int:
    flags, rest = _EXEC.parse(words)
    _needs(rest, 2, "exec")
    attached = not flags["detach"]
    if attached and flags["tty"] and flags["interactive"] and not sys.stdin.isatty():
        sys.stderr.write("the input device is not a TTY\n")
        return 1
    body = {
        "AttachStdin": bool(flags["interactive"]) and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Tty": bool(flags["tty"]),
        "Cmd": rest[1:],
        "Env": flags["env"] or None,
        "User": flags["user"] or "",
        "WorkingDir": flags["workdir"] or "",
        "Privileged": bool(flags["privileged"]),
    }
    made = client.ask("POST", f"/containers/{rest[0]}/exec", body)["Id"]
    if not attached:
        client.ask("POST", f"/exec/{made}/start", {"Detach": True})
        return 0
    stream = client.open("POST", f"/exec/{made}/start", {"Detach": False, "Tty": bool(flags["tty"])}, upgrade=True)
    if stream.status >= 400:  # noqa: PLR2004 - HTTP
        stream.json()
    if flags["tty"]:
        with session.raw_terminal(_resizer(client, f"/exec/{made}/resize")):
            session.carry(stream, terminal=True, stdin=bool(flags["interactive"]))
    else:
        session.carry(stream, terminal=False, stdin=bool(flags["interactive"]))
    code = client.ask("GET", f"/exec/{made}/json")["ExitCode"]
    return int(code or 0)


def _attach(client: Client, words: list[str]) -> int:
    flags, rest = Flags("no-stdin", "sig-proxy", "detach-keys=").parse(words)
    _needs(rest, 1, "attach", 1)
    one = client.ask("GET", f"/containers/{rest[0]}/json")
    if not one["State"]["Running"]:
        raise Refused(409, "cannot attach to a stopped container, start it first")
    stdin = one["Config"]["OpenStdin"] and not flags["no-stdin"]
    query = {"stream": "1", "stdout": "1", "stderr": "1", **({"stdin": "1"} if stdin else {})}
    stream = client.open("POST", f"/containers/{one['Id']}/attach", None, query, upgrade=True)
    waiting = client.open("POST", f"/containers/{one['Id']}/wait")
    terminal = one["Config"]["Tty"]
    if terminal:
        with session.raw_terminal(_resizer(client, f"/containers/{one['Id']}/resize")):
            session.carry(stream, terminal=True, stdin=stdin)
    else:
        session.carry(stream, terminal=False, stdin=stdin)
    return int((waiting.json() or {}).get("StatusCode", 0))


def _ps(client: Client, words: list[str]) -> int:
    flags, _ = Flags("all,a", "filter,f=*", "format=", "last,n=", "latest,l", "no-trunc", "quiet,q", "size,s").parse(
        words
    )
    query = {"all": "1"} if flags["all"] or flags["last"] or flags["latest"] else {}
    if flags["last"] or flags["latest"]:
        query["limit"] = flags["last"] or "1"
    listed = client.ask("GET", "/containers/json", **query, **_filters(flags["filter"]))
    rows = [tables.container_row(one, whole=bool(flags["no-trunc"])) for one in listed]
    sys.stdout.write(tables.table(rows, tables.CONTAINERS, flags["format"] or "", quiet="ID" if flags["quiet"] else ""))
    return 0


def _filters(texts: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f'invalid argument "{text}" for "-f, --filter" flag: invalid filter (expected name=value)')
        found.setdefault(name, []).append(value)
    return {"filters": json.dumps(found)} if found else {}


def _logs(client: Client, words: list[str]) -> int:
    flags, rest = Flags("details", "follow,f", "since=", "tail,n=", "timestamps,t", "until=").parse(words)
    _needs(rest, 1, "logs", 1)
    one = client.ask("GET", f"/containers/{rest[0]}/json")
    query = {"stdout": "1", "stderr": "1", "tail": flags["tail"] or "all"}
    query |= {name: "1" for name in ("follow", "timestamps") if flags[name]}
    query |= {name: _moment(flags[name]) for name in ("since", "until") if flags[name]}
    answer = client.open("GET", f"/containers/{one['Id']}/logs", None, query)
    if answer.status >= 400:  # noqa: PLR2004 - HTTP
        answer.json()
    held = bytearray()
    while part := answer.chunk():
        if one["Config"]["Tty"]:
            os.write(1, part)
        else:
            held += part
            session.unframe(held)
    return 0


def _moment(text: str) -> str:
    """Read a time, or a duration before now (`10m`)."""
    if text[-1:] in "smh" and text[:-1].replace(".", "", 1).isdecimal():
        return str(time.time() - float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]])
    return text


def _port(client: Client, words: list[str]) -> int:
    _, rest = Flags().parse(words)
    _needs(rest, 1, "port")
    held = client.ask("GET", f"/containers/{rest[0]}/json")["NetworkSettings"]["Ports"] or {}
    wanted = rest[1] if len(rest) > 1 else ""
    named = wanted if "/" in wanted else f"{wanted}/tcp"
    lines = []
    for port, bindings in sorted(held.items()):
        for one in bindings or ():
            ip = f"[{one['HostIp']}]" if ":" in one["HostIp"] else one["HostIp"]
            where = f"{ip}:{one['HostPort']}"
            if wanted and port == named:
                lines.append(where)
            elif not wanted:
                lines.append(f"{port} -> {where}")
    if wanted and not lines:
        sys.stderr.write(f"Error: No public port '{wanted}' published for {rest[0]}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _start(client: Client, words: list[str]) -> int:
    flags, rest = Flags("attach,a", "interactive,i", "detach-keys=").parse(words)
    _needs(rest, 1, "start")
    if flags["attach"]:
        one = client.ask("GET", f"/containers/{rest[0]}/json")
        query = {"stream": "1", "stdout": "1", "stderr": "1"}
        stream = client.open("POST", f"/containers/{one['Id']}/attach", None, query, upgrade=True)
        waiting = client.open("POST", f"/containers/{one['Id']}/wait", None, {"condition": "next-exit"})
        client.ask("POST", f"/containers/{one['Id']}/start")
        session.carry(stream, terminal=one["Config"]["Tty"], stdin=False)
        return int((waiting.json() or {}).get("StatusCode", 0))
    code = _each(client, rest, lambda to, name: to.ask("POST", f"/containers/{name}/start"))
    if code:
        sys.stderr.write(f"Error: failed to start containers: {', '.join(rest)}\n")
    return code


def _stopping(action: str) -> Callable[[Client, list[str]], int]:
    def act(client: Client, words: list[str]) -> int:
        flags, rest = Flags("signal,s=", "time,t=", "timeout=").parse(words)
        _needs(rest, 1, action)
        wait = flags["timeout"] or flags["time"]
        query = {"t": wait} if wait else {}
        return _each(client, rest, lambda to, name: to.ask("POST", f"/containers/{name}/{action}", **query))

    return act


def _kill(client: Client, words: list[str]) -> int:
    flags, rest = Flags("signal,s=").parse(words)
    _needs(rest, 1, "kill")
    query = {"signal": flags["signal"]} if flags["signal"] else {}
    return _each(client, rest, lambda to, name: to.ask("POST", f"/containers/{name}/kill", **query))


def _rm(client: Client, words: list[str]) -> int:
    flags, rest = Flags("force,f", "volumes,v", "link,l").parse(words)
    _needs(rest, 1, "rm")
    query = {"force": "1"} if flags["force"] else {}
    query |= {"v": "1"} if flags["volumes"] else {}
    return _each(client, rest, lambda to, name: to.ask("DELETE", f"/containers/{name}", **query))


def _wait(client: Client, words: list[str]) -> int:
    _, rest = Flags().parse(words)
    _needs(rest, 1, "wait")
    for name in rest:
        sys.stdout.write(f"{client.ask('POST', f'/containers/{name}/wait')['StatusCode']}\n")
    return 0


def _rename(client: Client, words: list[str]) -> int:
    _, rest = Flags().parse(words)
    _needs(rest, 2, "rename", 2)
    client.ask("POST", f"/containers/{rest[0]}/rename", name=rest[1])
    return 0


def _top(client: Client, words: list[str]) -> int:
    _needs(words, 1, "top")
    answer = client.ask("GET", f"/containers/{words[0]}/top", **({"ps_args": " ".join(words[1:])} if words[1:] else {}))
    rows = [dict(zip(answer["Titles"], row, strict=False)) for row in answer["Processes"]]
    sys.stdout.write(tables.table(rows, tuple((title, title) for title in answer["Titles"]), least=20))
    return 0


# What is there


def _inspect(client: Client, words: list[str]) -> int:
    flags, rest = Flags("format,f=", "size,s", "type=").parse(words)
    _needs(rest, 1, "inspect")
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
        _needs(rest, 1, "inspect")
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
    query = {name: _moment(flags[name]) for name in ("since", "until") if flags[name]}
    answer = client.open("GET", "/events", None, {**query, **_filters(flags["filter"])})
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


# Networks and volumes


def _networks(client: Client, words: list[str]) -> int:
    flags, _ = Flags("filter,f=*", "format=", "no-trunc", "quiet,q").parse(words)
    listed = client.ask("GET", "/networks", **_filters(flags["filter"]))
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
    _needs(rest, 1, "network create", 1)
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
    _needs(rest, 1, "network rm")
    code = _each(client, rest, lambda to, name: to.ask("DELETE", f"/networks/{name}"))
    if code:
        sys.stderr.write("exit status 1\n")
    return code


def _connect(client: Client, words: list[str]) -> int:
    flags, rest = Flags("alias=*", "ip=", "ip6=", "link=*", "driver-opt=*", "gw-priority=").parse(words)
    _needs(rest, 2, "network connect", 2)
    fixed = {"IPv4Address": flags["ip"], "IPv6Address": flags["ip6"]}
    fixed = {key: value for key, value in fixed.items() if value}
    endpoint = {"IPAMConfig": fixed, "Aliases": flags["alias"] or None}
    client.ask("POST", f"/networks/{rest[0]}/connect", {"Container": rest[1], "EndpointConfig": endpoint})
    return 0


def _disconnect(client: Client, words: list[str]) -> int:
    flags, rest = Flags("force,f").parse(words)
    _needs(rest, 2, "network disconnect", 2)
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
    _needs(rest, 1, "volume rm")
    return _each(client, rest, lambda to, name: to.ask("DELETE", f"/volumes/{name}"))


def _pull(client: Client, words: list[str]) -> int:
    _, rest = Flags("all-tags,a", "platform=", "quiet,q").parse(words)
    _needs(rest, 1, "pull", 1)
    client.ask("POST", "/images/create", fromImage=rest[0])
    return 0


_COMMANDS: dict[str, Callable[[Client, list[str]], int]] = {
    "attach": _attach,
    "create": _create,
    "events": _events,
    "exec": _exec,
    "image inspect": _inspecting("/images/{}/json"),
    "container inspect": _inspecting("/containers/{}/json"),
    "images": _images,
    "info": _info,
    "inspect": _inspect,
    "kill": _kill,
    "logs": _logs,
    "network connect": _connect,
    "network create": _create_network,
    "network disconnect": _disconnect,
    "network inspect": _inspecting("/networks/{}"),
    "network ls": _networks,
    "network rm": _remove_networks,
    "port": _port,
    "ps": _ps,
    "pull": _pull,
    "rename": _rename,
    "restart": _stopping("restart"),
    "rm": _rm,
    "run": _run_command,
    "start": _start,
    "stop": _stopping("stop"),
    "top": _top,
    "version": _version,
    "volume create": _create_volume,
    "volume inspect": _inspecting("/volumes/{}"),
    "volume ls": _volumes,
    "volume rm": _remove_volumes,
    "wait": _wait,
}
_ALIASES = {
    "image ls": "images",
    "image list": "images",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "system info": "info",
    "system events": "events",
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    **{
        f"container {name}": name
        for name in (
            *("attach", "create", "exec", "kill", "logs", "port", "rename", "restart", "rm", "run", "start", "stop"),
            *("top", "wait"),
        )
    },
}
