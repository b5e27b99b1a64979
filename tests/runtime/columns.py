"""The three ways to be somebody: root, a user with a range of ids, a user with one id. Needs root to become the others."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doctor.linux import mounting, privileges, syscalls
from doctor.runtime.userns import widest
from tests.meta.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = ("root", "user with subuid", "plain user")
_NOBODY = 65534
_NAME = "doctor-labs-test"


def uid_of(column: str) -> int:
    """Give the uid of a column; makes the user with a range of ids where there is none. Skips where that cannot be."""
    if column != "user with subuid":
        return 0 if column == "root" else _NOBODY
    if shutil.which("newuidmap") is None or shutil.which("useradd") is None:
        pytest.skip("no newuidmap or useradd here (package uidmap)")
    try:
        pwd.getpwnam(_NAME)
    except KeyError:
        subprocess.run(["useradd", "--no-create-home", _NAME], check=True)
        _made.append(_NAME)
    ranges = Path("/etc/subuid").read_text(encoding="utf-8") if Path("/etc/subuid").exists() else ""
    if not widest(ranges, {_NAME}).size:
        subprocess.run(
            ["usermod", "--add-subuids", "300000-365535", "--add-subgids", "300000-365535", _NAME], check=True
        )
    return pwd.getpwnam(_NAME).pw_uid


def forget() -> None:
    """Delete the user that was made here."""
    while _made:
        subprocess.run(["userdel", _made.pop()], check=True)


_made: list[str] = []


def become(column: str, function: Callable[[], object]) -> int:
    """Call a function in a child that is somebody else; gives its exit code (0 for what is no number)."""
    uid = uid_of(column)
    syscalls.libc()
    privileges.capget()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        if uid:
            _expose()
            os.chdir("/")
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            privileges.dumpable(on=True)
        left = function()
        code = left if isinstance(left, int) else 0
    except BaseException:  # noqa: BLE001 - a child leaves here
        import traceback

        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)


def _expose() -> None:
    """Let the Python that runs us, and the project, be seen by others where a directory above them is root's alone."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    mounting.propagation("/", mounting.MS_REC | mounting.MS_PRIVATE)
    needed = {Path(one) for one in (sys.prefix, sys.base_prefix, str(ROOT))}
    closed = {cover for one in needed if (cover := _closed(one)) is not None}
    for cover in closed:
        inside = [one for one in needed if one.is_relative_to(cover)]
        trees = [(one, mounting.tree(str(one), recursive=True)) for one in inside]
        mounting.mount("cover", str(cover), "tmpfs", 0, "mode=755")
        for one, handle in trees:
            one.mkdir(parents=True, exist_ok=True)
            mounting.attach(handle, str(one))


def _closed(place: Path) -> Path | None:
    for parent in reversed(place.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None
