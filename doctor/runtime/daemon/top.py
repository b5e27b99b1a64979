"""The processes of a container, as `docker top` shows them: those of its pid namespace, in the columns of `ps -ef`."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from doctor.runtime.model import Container

_TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_PARENT, _TTY, _UTIME, _STIME, _START = 1, 4, 11, 12, 19
_TICKS = os.sysconf("SC_CLK_TCK")


def processes(one: Container, arguments: str) -> dict[str, Any]:
    """Answer /containers/ID/top; whatever arguments ps is to have, the columns are those of -ef."""
    del arguments
    rows = []
    for pid in _inside(one.pid):
        row = _row(pid)
        if row is not None:
            rows.append(row)
    return {"Processes": rows, "Titles": _TITLES}


def _inside(first: int) -> list[int]:
    """Give the pids of a container: its first process and all that descend from it, or share its pid namespace."""
    own = _namespace(first)
    if own == _namespace(os.getpid()):
        return _descendants(first)
    pids = sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [pid for pid in pids if own and _namespace(pid) == own]


def _descendants(first: int) -> list[int]:
    found = [first]
    for pid in found:
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        except OSError:
            continue
        found += map(int, text.split())
    return found


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - a text
    except OSError:
        return ""


def _row(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    name = text[text.find("(") + 1 : text.rfind(")")]
    fields = text[text.rfind(")") + 2 :].split()
    used = (int(fields[_UTIME]) + int(fields[_STIME])) // _TICKS
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[_START]) / _TICKS
    terminal = int(fields[_TTY])
    return [
        _user(owner),
        str(pid),
        fields[_PARENT],
        "0",
        time.strftime("%H:%M", time.localtime(started)),
        f"pts/{terminal & 0xFF}" if terminal else "?",
        f"{used // 3600:02}:{used // 60 % 60:02}:{used % 60:02}",
        " ".join(argv) or f"[{name}]",
    ]


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
