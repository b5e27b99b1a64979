"""The root of a container: what it is made of is opened while the host can be seen, and put in where only it can be.

runc(8) resolves each target below the root file system with care, since an image may hold links that lead out. Here
pivot_root(2) comes first: every mount is prepared as a descriptor (`doctor.linux.mounting`), the root is changed, the old
one is gone, and then targets are looked up. A link can lead nowhere but into the container.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from doctor.linux import mounting
from doctor.linux.mounting import (
    MNT_DETACH,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
)
from doctor.linux.syscalls import pivot_root
from doctor.runtime import cgroups, mounts, userns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doctor.runtime.oci import Config, Mount

_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
    "strictatime": MS_STRICTATIME,
}
_CLEARED = {"rw": MS_RDONLY, "suid": MS_NOSUID, "dev": MS_NODEV, "exec": MS_NOEXEC}
_PROPAGATIONS = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
}
_WORDS = frozenset({*_FLAGS, *_CLEARED, *_PROPAGATIONS, "bind", "rbind", "defaults", "async", "atime", "diratime"})

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}
_KERNELS = ("/proc", "/sys")


class _Piece(NamedTuple):
    """A mount that was prepared: where it goes, its descriptor, whether it is a file, how it is passed on.

    `flags` are set when it is there, on it and all below.
    """

    place: str
    handle: int
    is_file: bool = False
    propagation: int = 0
    flags: int = 0


def enter(config: Config, rootfs: str, overlay: mounts.Overlay | None) -> None:
    """Build the root of a container and go into it. The caller is alone in the namespaces of the container.

    `overlay` is mounted on `rootfs`. Device nodes are those of the host, bound, and no other node works (`nodev`), since no
    device group guards them. Raises OSError.
    """
    mounting.propagation("/", MS_REC | MS_PRIVATE)
    pieces = [piece for mount in config.mounts for piece in _prepare(config, mount)]
    has_dev = any(mount.destination == "/dev" and mount.type == "tmpfs" for mount in config.mounts)
    nodes = [(name, mounting.tree(f"/dev/{name}")) for name in DEVICES] if has_dev else []
    masks = [piece for path in config.linux.masked_paths for piece in _mask(path)]
    if overlay is not None:
        mounts.mount_overlay(overlay, rootfs, flags=MS_NODEV)
    else:
        mounting.attach(mounting.tree(rootfs, recursive=True, flags=MS_NODEV), rootfs)
    os.chdir(rootfs)
    pivot_root(".", ".")
    mounting.umount(".", MNT_DETACH)
    os.chdir("/")
    for piece in pieces:
        _attach(piece)
        if piece.place == "/dev" and has_dev:
            _fill_dev(nodes)
    for name, value in config.linux.sysctl.items():
        _write_sysctl(name, value)
    for path in config.linux.readonly_paths:
        if os.path.lexists(path):
            mounting.attach(mounting.tree(path, recursive=True, flags=MS_RDONLY), path)
    for piece in masks:
        _put_over(piece)
    if config.process.cwd != "/":
        os.makedirs(config.process.cwd, exist_ok=True)  # noqa: PTH103 - as runc, for a WORKDIR that no layer has
    if config.root.readonly:
        mounting.attributes("/", MS_RDONLY)


def _prepare(config: Config, mount: Mount) -> list[_Piece]:
    """Open what a mount is of, in the namespaces of the container, with the host's files still there."""
    flags = 0
    for word in mount.options:
        flags |= _FLAGS.get(word, 0)
        flags &= ~_CLEARED.get(word, 0)
    passed = next((_PROPAGATIONS[word] for word in mount.options if word in _PROPAGATIONS), 0)
    if mount.type == "bind" or {"bind", "rbind"} & set(mount.options):
        # In a user namespace what is mounted below may not be uncovered.
        whole = "rbind" in mount.options or userns.inside()
        handle = mounting.tree(mount.source, recursive=whole, flags=flags | MS_NODEV)
        is_file = not stat.S_ISDIR(os.stat(mount.source).st_mode)  # noqa: PTH116 - a path may be any text
        return [_Piece(mount.destination, handle, is_file, passed)]
    if mount.type in {"cgroup", "cgroup2"}:
        own = any(one.type == "cgroup" and not one.path for one in config.linux.namespaces)
        pieces = cgroups.prepared(readonly=bool(flags & MS_RDONLY), own_namespace=own)
        found = [_Piece(place, handle) for place, handle in pieces]
        if found and not own:  # one call for all hierarchies
            found.append(_Piece(cgroups.ROOT, -1, flags=flags | MS_NOSUID | MS_NOEXEC | MS_NODEV))
        return found
    if mount.type in {"tmpfs", "mqueue", "proc", "sysfs"}:
        flags |= MS_NODEV
    data = _data(mount.options)
    return [_Piece(mount.destination, mounting.prepared(mount.type, data, flags, mount.source), propagation=passed)]


def _data(options: Sequence[str]) -> list[str]:
    """Give the options of a file system's own; an id that does not exist in this user namespace is left out."""
    found = []
    for word in options:
        key, _, value = word.partition("=")
        if word in _WORDS or (key == "gid" and value.isdigit() and not userns.is_mapped(int(value), "gid")):
            continue
        found.append(word)
    return found


def _attach(piece: _Piece) -> None:
    if piece.flags:
        mounting.attributes(piece.place, piece.flags, recursive=True)
        return
    if piece.place in _KERNELS and os.path.islink(piece.place):  # noqa: PTH114 - as above
        # A link would take /proc away from where its dangerous files are masked (CVE-2019-19921).
        raise NotADirectoryError(20, "is a symbolic link in the image", piece.place)
    if not os.path.exists(piece.place):  # noqa: PTH110 - as above
        _make(piece)
    mounting.attach(piece.handle, piece.place)
    if piece.propagation:
        mounting.propagation(piece.place, piece.propagation)


def _make(piece: _Piece) -> None:
    """Make what a mount is put on; through links, which lead inside."""
    if not piece.is_file:
        try:
            os.mkdir(piece.place, 0o755)  # noqa: PTH102 - as above
        except (FileExistsError, FileNotFoundError):
            pass
        else:
            return
    target = os.path.realpath(piece.place)
    parent = os.path.dirname(target) if piece.is_file else target  # noqa: PTH120 - as above
    os.makedirs(parent, exist_ok=True)  # noqa: PTH103 - as above
    if piece.is_file and not os.path.lexists(target):
        os.mknod(target, stat.S_IFREG | 0o644)


def _fill_dev(nodes: list[tuple[str, int]]) -> None:
    for name, handle in nodes:
        os.mknod(f"/dev/{name}", stat.S_IFREG | 0o666)
        mounting.attach(handle, f"/dev/{name}")
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")  # noqa: PTH211 - strings


def _mask(path: str) -> list[_Piece]:
    """Prepare what hides a path: /dev/null over a file, an empty directory over one. The host's /dev/null, not the image's."""
    kinds: tuple[bool, ...] = (False, True)
    if path.startswith(_KERNELS):
        try:
            kinds = (stat.S_ISREG(os.stat(path).st_mode),)  # noqa: PTH116 - strings
        except OSError:
            return []  # this kernel has none
    return [_Piece(path, _cover(is_file=is_file), is_file) for is_file in kinds]


def _cover(*, is_file: bool) -> int:
    if is_file:
        return mounting.tree("/dev/null")
    return mounting.prepared("tmpfs", ("mode=755", "size=0k"), MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, "tmpfs")


def _put_over(piece: _Piece) -> None:
    """Hide a path; of a path whose kind was not known, the one of two covers that fits is used."""
    try:
        is_directory = stat.S_ISDIR(os.stat(piece.place).st_mode)  # noqa: PTH116 - as above
    except OSError:
        is_directory = piece.is_file  # nothing there: neither fits
    if is_directory == piece.is_file:
        os.close(piece.handle)
        return
    mounting.attach(piece.handle, piece.place)


def _write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys", *name.replace("/", ".").split("."))
    if not name.startswith(("net.", "kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.", "kernel.domainname")):
        raise PermissionError(1, "is not in a namespace of the container's own", f"sysctl {name}")
    path.write_text(value, encoding="utf-8")
