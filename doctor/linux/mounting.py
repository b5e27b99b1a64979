"""Mounts: mount(2) and umount2(2), and the calls of Linux 5.2 and 5.12 that prepare a mount before it has a place.

A mount that is made by `prepared` or `tree` hangs nowhere: it is a descriptor, and `attach` puts it where it belongs. So
what a container gets is opened while the host's files can still be seen, and put in when only its own can: no symbolic
link in an image leads out. Every error names the place and, where the kernel says more than an errno, what.
"""

from __future__ import annotations

import os
from errno import ENOSYS
from functools import cache
from typing import TYPE_CHECKING

from doctor.linux import syscalls
from doctor.linux.syscalls import AT_EMPTY_PATH, AT_FDCWD, call

if TYPE_CHECKING:
    from collections.abc import Iterable

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

MNT_DETACH = 0x2

_ATTRIBUTES = {MS_RDONLY: 0x1, MS_NOSUID: 0x2, MS_NODEV: 0x4, MS_NOEXEC: 0x8, MS_NODIRATIME: 0x80}
_TIMES = {MS_RELATIME: 0x00, MS_NOATIME: 0x10, MS_STRICTATIME: 0x20}
_TIME_MASK = 0x70
"""MOUNT_ATTR_* of linux/mount.h, by the flag of mount(2) that means the same."""

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 0x1, os.O_CLOEXEC
_AT_RECURSIVE = 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 0x1, 0x1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_MESSAGE = 1024


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or change a mount (man 2 mount). Raises OSError with the target."""
    words = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    if syscalls.libc().mount(*words, _unsigned(flags), os.fsencode(data) or None) != 0:
        raise syscalls.failed(f"{target} ({kind})" if kind else target)


def umount(target: str, flags: int = 0) -> None:
    """Take the topmost mount off a place (man 2 umount2). Raises OSError."""
    if syscalls.libc().umount2(os.fsencode(target), flags) != 0:
        raise syscalls.failed(target)


def bind(source: str, target: str, *, readonly: bool = False, recursive: bool = True) -> None:
    """Let a file or directory be seen at a second place. Raises OSError.

    In a user namespace a tree with mounts of others below can only be bound with them (mount_namespaces(7), locked).
    """
    mount(source, target, "", MS_BIND | (MS_REC if recursive else 0))
    if readonly:
        attributes(target, MS_RDONLY, recursive=recursive)


def attributes(place: str | int, add: int, remove: int = 0, *, recursive: bool = False) -> None:
    """Set and clear MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC and times of a mount, by path or descriptor.

    man 2 mount_setattr, Linux 5.12. Raises OSError.
    """
    from struct import pack

    wanted, dropped = attribute_bits(add), attribute_bits(remove)
    if add & (MS_RELATIME | MS_NOATIME | MS_STRICTATIME):
        dropped |= _TIME_MASK
    text = pack("=QQQQ", wanted, dropped, 0, 0)
    flags = (_AT_RECURSIVE if recursive else 0) | (AT_EMPTY_PATH if isinstance(place, int) else 0)
    where, path = (place, b"") if isinstance(place, int) else (AT_FDCWD, os.fsencode(place))
    call(_MOUNT_SETATTR, where, path, flags, text, len(text), path=str(place))


def propagation(target: str, kind: int) -> None:
    """Set whether mounts are passed on: MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, with MS_REC below too."""
    mount("", target, "", kind)


def prepared(kind: str, options: Iterable[str] = (), flags: int = 0, source: str = "") -> int:
    """Make a file system that hangs nowhere yet; gives a descriptor (man 2 fsopen, fsconfig, fsmount; Linux 5.2).

    Options are `key=value` or `key`. Raises OSError with what the file system says of it.
    """
    context = call(_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC, path=kind)
    try:
        if source:
            _configure(context, kind, _SET_STRING, "source", source)
        for option in options:
            key, equals, value = option.partition("=")
            _configure(context, kind, _SET_STRING if equals else _SET_FLAG, key, value)
        _configure(context, kind, _CREATE, "", "")
        return call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attribute_bits(flags), path=kind)
    finally:
        os.close(context)


def tree(source: str | int, *, recursive: bool = False, flags: int = 0) -> int:
    """Take a copy of what is at a path, or open, that hangs nowhere yet; gives a descriptor (man 2 open_tree).

    `flags` are set on it, on mounts below as well. Raises OSError.
    """
    where, path = (source, b"") if isinstance(source, int) else (AT_FDCWD, os.fsencode(source))
    how = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    how |= AT_EMPTY_PATH if isinstance(source, int) else 0
    handle = call(_OPEN_TREE, where, path, how, path=str(source))
    if flags:
        try:
            attributes(handle, flags, recursive=recursive)
        except BaseException:
            os.close(handle)
            raise
    return handle


def attach(handle: int, target: str) -> None:
    """Put a mount that was prepared where it belongs, and close its descriptor (man 2 move_mount). Raises OSError."""
    try:
        call(_MOVE_MOUNT, handle, b"", AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH, path=target)
    finally:
        os.close(handle)


@cache
def attribute_bits(flags: int) -> int:
    """Give the MOUNT_ATTR_* for flags of mount(2); those that have none are left out."""
    bits = 0
    for flag, bit in (*_ATTRIBUTES.items(), *_TIMES.items()):
        if flags & flag:
            bits |= bit
    return bits


def _configure(context: int, kind: str, command: int, key: str, value: str) -> None:
    try:
        words = (key.encode() or None, os.fsencode(value) if command == _SET_STRING else None)
        call(_FSCONFIG, context, command, *words, 0, path=kind)
    except OSError as error:
        raise OSError(error.errno, _said(context) or error.strerror, f"{kind} {key}".strip()) from None


def _said(context: int) -> str:
    """Read what the file system says of the last mistake: a line `e overlay: ...` (linux/fs_context.h)."""
    lines = []
    try:
        while line := os.read(context, _MESSAGE):
            lines.append(line.decode("utf-8", "replace").strip())
    except OSError as error:
        if error.errno == ENOSYS:
            raise
    return "; ".join(line[2:] for line in lines if line[:1] in {"e", "w"})


def _unsigned(flags: int) -> object:
    import ctypes

    return ctypes.c_ulong(flags)
