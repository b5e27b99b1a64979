"""A root file system for containers of the tests, and a place that is gone after them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from doctor.linux import mounting, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APPLETS = ("cat", "chmod", "cp", "echo", "env", "hostname", "id", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv")
APPLETS += (
    "nsenter",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "sed",
    "sh",
    "sleep",
    "stat",
    "stty",
    "touch",
    "true",
    "tty",
    "ulimit",
)


def make_root(place: Path) -> Path:
    """Make a root file system of busybox. Skips without one."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox here")
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        (place / name).mkdir(parents=True)
    shutil.copy(busybox, place / "bin/busybox")
    for name in APPLETS:
        (place / "bin" / name).symlink_to("busybox")
    (place / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n", encoding="ascii"
    )
    return place


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """Give a root file system that a test may spoil."""
    return make_root(tmp_path / "rootfs")


@pytest.fixture
def apart() -> Callable[[Callable[[], object]], int]:
    """Give a way to call a function in a child with mounts of its own; gives its exit code."""

    def call(function: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                syscalls.unshare(syscalls.CLONE_NEWNS)
                mounting.propagation("/", mounting.MS_REC | mounting.MS_PRIVATE)
                left = function()
                code = left if isinstance(left, int) else 0
            except BaseException:  # noqa: BLE001 - a child leaves here
                import traceback

                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return call
