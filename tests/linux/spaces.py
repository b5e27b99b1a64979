"""Network namespaces for tests: each lives as long as a descriptor of ours is open on it, and leaves nothing on disk."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.linux.namespaces import inside
from doctor.linux.syscalls import CLONE_NEWNET, unshare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Space:
    """One network namespace."""

    def __init__(self, handle: int) -> None:
        """Keep the descriptor."""
        self.handle = handle
        self.path = f"/proc/{os.getpid()}/fd/{handle}"

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on a thread in the namespace."""
        return inside(self.path, function)

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a command in the namespace."""
        done = self.call(lambda: subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False))
        assert done.returncode == 0, f"{argv}: {done.stderr}\n{stdin}"
        text: str = done.stdout
        return text

    def ip(self, *lines: str) -> None:
        """Have iproute2 carry out some lines."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines))

    def ask(self, *words: str) -> list[dict[str, Any]]:
        """Ask iproute2 for JSON with details."""
        found: list[dict[str, Any]] = json.loads(self.run("ip", "-j", "-d", *words) or "[]")
        return found

    def sysctl(self, path: str, value: str) -> None:
        """Set a sysctl of the namespace."""
        self.call(lambda: Path("/proc/sys/net", path).write_text(value, encoding="ascii"))


@contextmanager
def space() -> Iterator[Space]:
    """Make a namespace, with `lo` up and duplicate address detection off."""
    handles: list[int] = []

    def make() -> None:
        unshare(CLONE_NEWNET)
        handles.append(os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    try:
        made = Space(handles[0])
        for scope in ("all", "default"):
            made.sysctl(f"ipv6/conf/{scope}/accept_dad", "0")
        made.ip("link set lo up")
        yield made
    finally:
        for handle in handles:
            os.close(handle)
