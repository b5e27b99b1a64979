"""The only I/O on a diagnosed host: read, list, stat, run. Every call is bounded in size, and commands in time.

Nothing here writes, and nothing follows a special file: a path is opened without blocking and read only when it is a
regular file, so a FIFO or a device in place of a configuration file costs nothing (open(2), O_NONBLOCK).
"""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from doctor.linux import cgroups, deleted, spawn, syscalls, trees
from doctor.linux.frames import MODULES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doctor.linux.ask import Question

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK = 1 << 20
_SURVEY = 128 << 20
_ASKED = 1 << 18
ASK_STARTS = 2.5
"""Seconds that the process which asks nameservers may take to begin, on a busy machine: it waits for answers after that."""


class NotRegularError(OSError):
    """The path is a FIFO, a socket, a device or a directory: it is not read."""


class Host(Protocol):
    """What a collector may ask of a host. The local machine answers it, a lab does, and so do fakes in tests."""

    def read(self, path: str, limit: int) -> tuple[bytes, os.stat_result]:
        """Give at most `limit` bytes of a regular file and its stat. Raises OSError (errno set), NotRegularError."""

    def tail(self, path: str, limit: int) -> tuple[bytes, os.stat_result]:
        """Give at most the last `limit` bytes of a regular file and its stat. Raises as `read` does."""

    def listdir(self, path: str) -> list[str]:
        """Give the names in a directory, sorted. Raises OSError."""

    def lstat(self, path: str) -> os.stat_result:
        """Stat a path without following a link at its end. Raises OSError."""

    def stat(self, path: str) -> os.stat_result:
        """Stat what a path leads to. Raises OSError."""

    def readlink(self, path: str) -> str:
        """Give the text of a symbolic link. Raises OSError."""

    def space(self, path: str) -> dict[str, int]:
        """Give the room of the file system that a path is on. Raises OSError.

        `size` and `free` are bytes, `free_root` those that root may still use, `inodes` and `inodes_free` are numbers.
        """

    def deleted_files(self, root: str, mounts: str, until: float) -> tuple[str, bool]:
        """Give the lines of a tree record for deleted files on a file system, see `linux.deleted`. Raises OSError."""

    def tree(self, root: str, names: list[str], members: tuple[str, ...], limit: int) -> tuple[str, bool]:
        """Give the lines of a tree record for `names` below a directory, and whether it was cut at `limit` characters.

        Members are as in `doctor.sources.Source`; none stands for the entries themselves. Raises OSError for `root`.
        """

    def big_trees(self, wanted: Sequence[trees.Wanted], seconds: float) -> spawn.Completed:
        """Do as `tree` does for every name in each directory, in a process of its own; prints `linux.frames`, in order."""

    def sandboxes(self, folder: str) -> str:
        """Give the lines of a tree record for files of network sandboxes: which lead to a namespace. Raises OSError."""

    def survey(self, sandboxes: str, seconds: float, held: Callable[[], None]) -> spawn.Completed:
        """Read all processes and network namespaces, in a process of its own; `linux.frames` reads what it prints.

        The process starts at once, and reads when `held` returns.
        """

    def containerd(self, root: str) -> bytes:
        """Read containerd's image store, as `layers.containerd_model` prints it. OSError."""

    def groups(self, processes: str) -> str:
        """Give the lines of a tree record for the control groups of containers; `processes` is that of /proc. OSError."""

    def ask(self, questions: list[Question], seconds: float) -> spawn.Completed:
        """Ask nameservers, in a process of its own: like `knock`, it sends something. `linux.ask` says what it prints."""

    def knock(self, place: tuple[str, str], address: str, port: int, protocol: str, seconds: float) -> spawn.Completed:
        """Try one connection from a namespace (path and inode), in a process of its own; see `linux.knock`."""

    def run(self, argv: tuple[str, ...], seconds: float, limit: int) -> spawn.Completed:
        """Run a reading command within its bounds; never raises for what the command does."""

    def kernel_log(self) -> bytes:
        """Give the kernel's log as it stands; reading it changes nothing. Raises OSError."""

    def end(self) -> None:
        """Kill what `run` started and what nobody waits for any more."""

    def has_module(self, name: str) -> bool:
        """Whether a kernel module is there already, so that using it loads nothing."""


_WITNESS = {"ip_tables": "/proc/net/ip_tables_names", "ip6_tables": "/proc/net/ip6_tables_names"}
_CONFIG = {
    "nf_tables": b"CONFIG_NF_TABLES",
    "ip_tables": b"CONFIG_IP_NF_IPTABLES",
    "ip6_tables": b"CONFIG_IP6_NF_IPTABLES",
    "inet_diag": b"CONFIG_INET_DIAG",
    "tcp_diag": b"CONFIG_INET_TCP_DIAG",
    "udp_diag": b"CONFIG_INET_UDP_DIAG",
}


class LocalHost:
    """The machine this process runs on."""

    def __init__(self) -> None:
        """Remember nothing but what never changes while we look: which modules are built in."""
        self._builtin: bytes | None = None
        self._config: bytes | None = None

    def read(self, path: str, limit: int) -> tuple[bytes, os.stat_result]:
        """See `Host.read`."""
        return self._read(path, limit, from_end=False)

    def tail(self, path: str, limit: int) -> tuple[bytes, os.stat_result]:
        """See `Host.tail`."""
        return self._read(path, limit, from_end=True)

    def _read(self, path: str, limit: int, *, from_end: bool) -> tuple[bytes, os.stat_result]:
        handle = os.open(path, _OPEN)
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise NotRegularError(0, f"not a regular file ({_kind(about.st_mode)})", path)
            if from_end and about.st_size > limit:
                os.lseek(handle, about.st_size - limit, os.SEEK_SET)
            data = os.read(handle, min(limit, _CHUNK))
            if len(data) < limit and len(data) != about.st_size:
                # Files of /proc and /sys have no size, and give a page or so at a time.
                parts = [data]
                left = limit - len(data)
                while left > 0 and parts[-1]:
                    parts.append(os.read(handle, min(left, _CHUNK)))
                    left -= len(parts[-1])
                data = b"".join(parts)
            return data, about
        finally:
            os.close(handle)

    def listdir(self, path: str) -> list[str]:
        """See `Host.listdir`."""
        return sorted(os.listdir(path))  # noqa: PTH208 - Path objects cost more than the call for 3,000 layers

    def lstat(self, path: str) -> os.stat_result:
        """See `Host.lstat`."""
        return os.lstat(path)

    def stat(self, path: str) -> os.stat_result:
        """See `Host.stat`."""
        return os.stat(path)  # noqa: PTH116 - as above

    def readlink(self, path: str) -> str:
        """See `Host.readlink`."""
        return os.readlink(path)  # noqa: PTH115 - as above

    def space(self, path: str) -> dict[str, int]:
        """See `Host.space`."""
        about = os.statvfs(path)
        return {
            "size": about.f_blocks * about.f_frsize,
            "free": about.f_bavail * about.f_frsize,
            "free_root": about.f_bfree * about.f_frsize,
            "inodes": about.f_files,
            "inodes_free": about.f_ffree,
        }

    def deleted_files(self, root: str, mounts: str, until: float) -> tuple[str, bool]:
        """See `Host.deleted_files`."""
        return deleted.deleted_files(root, mounts, until)

    def tree(self, root: str, names: list[str], members: tuple[str, ...], limit: int) -> tuple[str, bool]:
        """See `Host.tree`."""
        return trees.read_tree(root, names, members, limit)

    def big_trees(self, wanted: Sequence[trees.Wanted], seconds: float) -> spawn.Completed:
        """See `Host.big_trees`."""
        argv = spawn.own("doctor.linux.trees", *(one.argument() for one in wanted))
        limit = 2 * sum(one.limit for one in wanted)
        return spawn.run(argv, deadline_seconds=seconds, limit_bytes=limit)

    def sandboxes(self, folder: str) -> str:
        """See `Host.sandboxes`."""
        return trees.sandboxes(folder)

    def survey(self, sandboxes: str, seconds: float, held: Callable[[], None]) -> spawn.Completed:
        """See `Host.survey`."""
        modules = ",".join(module for module in MODULES if self.has_module(module))
        # What it may take itself is a little less: then it says what did not come back.
        argv = spawn.own("doctor.linux.survey", sandboxes, modules, f"{seconds - min(0.2, seconds / 5):.3f}")
        return spawn.run(argv, deadline_seconds=seconds, limit_bytes=_SURVEY, held=held)

    def containerd(self, root: str) -> bytes:
        """See `Host.containerd`."""
        from doctor.layers import containerd_model, containerd_store

        return containerd_model.dump(containerd_store.read_store(root))

    def groups(self, processes: str) -> str:
        """See `Host.groups`."""
        return cgroups.read(processes)[0]

    def ask(self, questions: list[Question], seconds: float) -> spawn.Completed:
        """See `Host.ask`."""
        argv = spawn.own("doctor.linux.ask", f"{seconds:.3f}", *("\t".join(one) for one in questions))
        return spawn.run(argv, deadline_seconds=seconds + ASK_STARTS, limit_bytes=_ASKED)

    def knock(self, place: tuple[str, str], address: str, port: int, protocol: str, seconds: float) -> spawn.Completed:
        """See `Host.knock`."""
        argv = spawn.own("doctor.linux.knock", *place, address, str(port), protocol, f"{seconds:.3f}")
        return spawn.run(argv, deadline_seconds=seconds + 1.0, limit_bytes=_ASKED)

    def run(self, argv: tuple[str, ...], seconds: float, limit: int) -> spawn.Completed:
        """See `Host.run`."""
        return spawn.run(argv, deadline_seconds=seconds, limit_bytes=limit)

    def kernel_log(self) -> bytes:
        """See `Host.kernel_log`."""
        return syscalls.klogctl_read()

    def end(self) -> None:
        """See `Host.end`."""
        spawn.kill_all()

    def has_module(self, name: str) -> bool:
        """See `Host.has_module`: /sys/module, the proc file it creates, modules.builtin, the kernel's configuration."""
        if Path("/sys/module", name).exists():
            return True
        witness = _WITNESS.get(name)
        if witness is not None and os.access(witness, os.F_OK):
            return True
        if self._builtin is None:
            self._builtin = _bytes_of(f"/lib/modules/{os.uname().release}/modules.builtin")
        if f"/{name}.ko".encode() in self._builtin:
            return True
        if self._config is None:
            packed = _bytes_of("/proc/config.gz")
            try:
                self._config = zlib.decompress(packed, 31) if packed else b""
            except zlib.error:
                self._config = b""
        return name in _CONFIG and b"\n" + _CONFIG[name] + b"=y" in self._config


def _bytes_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _kind(mode: int) -> str:
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "a directory",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return names.get(stat.S_IFMT(mode), "of an unknown kind")
