"""What `docker` does with containers: each word, and its exit code."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.cli import asked, session, tables
from doctor.runtime.daemon.cli.client import Client, Refused, Unreachable, each
from doctor.runtime.daemon.cli.flags import REFUSED, Flags, UsageError, filters, moment, needs

if TYPE_CHECKING:
    from collections.abc import Callable


def _create(client: Client, words: list[str]) -> int:
    flags, rest = asked.RUN.parse(words)
    needs(rest, 1, "create")
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
    needs(rest, 1, "run")
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
    return int(answer.get("StatusCode", REFUSED))


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
    needs(rest, 2, "exec")
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
    needs(rest, 1, "attach", 1)
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
    listed = client.ask("GET", "/containers/json", **query, **filters(flags["filter"]))
    rows = [tables.container_row(one, whole=bool(flags["no-trunc"])) for one in listed]
    sys.stdout.write(tables.table(rows, tables.CONTAINERS, flags["format"] or "", quiet="ID" if flags["quiet"] else ""))
    return 0


def _logs(client: Client, words: list[str]) -> int:
    flags, rest = Flags("details", "follow,f", "since=", "tail,n=", "timestamps,t", "until=").parse(words)
    needs(rest, 1, "logs", 1)
    one = client.ask("GET", f"/containers/{rest[0]}/json")
    query = {"stdout": "1", "stderr": "1", "tail": flags["tail"] or "all"}
    query |= {name: "1" for name in ("follow", "timestamps") if flags[name]}
    query |= {name: moment(flags[name]) for name in ("since", "until") if flags[name]}
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


def _port(client: Client, words: list[str]) -> int:
    _, rest = Flags().parse(words)
    needs(rest, 1, "port")
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
    needs(rest, 1, "start")
    if flags["attach"]:
        one = client.ask("GET", f"/containers/{rest[0]}/json")
        query = {"stream": "1", "stdout": "1", "stderr": "1"}
        stream = client.open("POST", f"/containers/{one['Id']}/attach", None, query, upgrade=True)
        waiting = client.open("POST", f"/containers/{one['Id']}/wait", None, {"condition": "next-exit"})
        client.ask("POST", f"/containers/{one['Id']}/start")
        session.carry(stream, terminal=one["Config"]["Tty"], stdin=False)
        return int((waiting.json() or {}).get("StatusCode", 0))
    code = each(client, rest, lambda to, name: to.ask("POST", f"/containers/{name}/start"))
    if code:
        sys.stderr.write(f"Error: failed to start containers: {', '.join(rest)}\n")
    return code


def _stopping(action: str) -> Callable[[Client, list[str]], int]:
    def act(client: Client, words: list[str]) -> int:
        flags, rest = Flags("signal,s=", "time,t=", "timeout=").parse(words)
        needs(rest, 1, action)
        wait = flags["timeout"] or flags["time"]
        query = {"t": wait} if wait else {}
        return each(client, rest, lambda to, name: to.ask("POST", f"/containers/{name}/{action}", **query))

    return act


def _kill(client: Client, words: list[str]) -> int:
    flags, rest = Flags("signal,s=").parse(words)
    needs(rest, 1, "kill")
    query = {"signal": flags["signal"]} if flags["signal"] else {}
    return each(client, rest, lambda to, name: to.ask("POST", f"/containers/{name}/kill", **query))


def _rm(client: Client, words: list[str]) -> int:
    flags, rest = Flags("force,f", "volumes,v", "link,l").parse(words)
    needs(rest, 1, "rm")
    query = {"force": "1"} if flags["force"] else {}
    query |= {"v": "1"} if flags["volumes"] else {}
    return each(client, rest, lambda to, name: to.ask("DELETE", f"/containers/{name}", **query))


def _wait(client: Client, words: list[str]) -> int:
    _, rest = Flags().parse(words)
    needs(rest, 1, "wait")
    for name in rest:
        sys.stdout.write(f"{client.ask('POST', f'/containers/{name}/wait')['StatusCode']}\n")
    return 0


def _rename(client: Client, words: list[str]) -> int:
    _, rest = Flags().parse(words)
    needs(rest, 2, "rename", 2)
    client.ask("POST", f"/containers/{rest[0]}/rename", name=rest[1])
    return 0


def _top(client: Client, words: list[str]) -> int:
    needs(words, 1, "top")
    answer = client.ask("GET", f"/containers/{words[0]}/top", **({"ps_args": " ".join(words[1:])} if words[1:] else {}))
    rows = [dict(zip(answer["Titles"], row, strict=False)) for row in answer["Processes"]]
    sys.stdout.write(tables.table(rows, tuple((title, title) for title in answer["Titles"]), least=20))
    return 0


COMMANDS: dict[str, Callable[[Client, list[str]], int]] = {
    "attach": _attach,
    "create": _create,
    "exec": _exec,
    "kill": _kill,
    "logs": _logs,
    "port": _port,
    "ps": _ps,
    "rename": _rename,
    "restart": _stopping("restart"),
    "rm": _rm,
    "run": _run_command,
    "start": _start,
    "stop": _stopping("stop"),
    "top": _top,
    "wait": _wait,
}
