"""The pid file of dockerd, and whether the process that it names is alive."""

from __future__ import annotations

from msgspec import Struct

from doctor.facts.processes import Processes
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot


class PidFile(Struct, frozen=True):
    """The file: the pid in it (0 when it holds none), and whether that process is alive and no dockerd.

    `directory` is true when a directory stands in its place; `unread` is why it could not be read.
    """

    path: str
    pid: int
    alive: bool
    directory: bool
    cited: tuple[Citation, ...]
    unread: str = ""


@fact
def pid_file(snapshot: Snapshot, processes: Processes) -> PidFile:
    """Read the file as dockerd does: blanks around a number are nothing, and what is no number names nobody."""
    record = snapshot.get("engine/pidfile")
    path = record.target
    if record.status == "absent":
        return PidFile(path, 0, alive=False, directory=False, cited=())
    if "a directory" in record.why:
        cited = (Citation(record.name, 0, "a directory", path),)
        return PidFile(path, 0, alive=False, directory=True, cited=cited)
    if not record.readable:
        unread = f"{path}: {record.why or record.status}"
        return PidFile(path, 0, alive=False, directory=False, cited=(), unread=unread)
    text = record.text.strip()
    pid = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else 0  # noqa: PLR2004 - digits of a pid
    process = processes.by_pid.get(pid)
    alive = process is not None and process.name != "dockerd"
    held = [Citation(record.name, 1, text or "empty", path)]
    if process is not None:
        name = process.name if process.name != "-" else "a process that is no part of Docker"
        held.append(process.cite(f"{pid}: {name}"))
    return PidFile(path, pid, alive=alive, directory=False, cited=tuple(held))
