"""What a process may do: capabilities(7), no_new_privs, and the other switches of prctl(2) that a runtime sets.

A set of capabilities is a number with the bit of each; `NAMES` has them in the kernel's order (linux/capability.h).
"""

from __future__ import annotations

from errno import EINVAL
from struct import pack, unpack_from
from typing import TYPE_CHECKING

from doctor.linux import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

_VERSION_3 = 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NAME = 1, 4, 8, 15
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR = 2, 4
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14


def prctl(option: int, second: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """Ask for one of the operations on the calling process (man 2 prctl). Raises OSError."""
    import ctypes

    # An address may stand in the third place; the others are small.
    result: int = syscalls.libc().prctl(option, ctypes.c_ulong(second), ctypes.c_ulong(third), fourth, fifth)
    if result < 0:
        raise syscalls.failed(f"prctl {option}")
    return result


def bits(names: Iterable[str]) -> int:
    """Give the set of capabilities by name, with or without `CAP_`; `ALL` is all of them. Raises ValueError.

    >>> hex(bits(["CAP_CHOWN", "net_raw"]))
    '0x2001'
    """
    found = 0
    for name in names:
        if name.upper() in {"ALL", "CAP_ALL"}:
            return (1 << len(NAMES)) - 1
        whole = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
        if whole not in NAMES:
            raise ValueError(f"unknown capability {name}")
        found |= 1 << NAMES.index(whole)
    return found


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capabilities of the calling thread (man 2 capset). Raises OSError."""
    low, high = (1 << 32) - 1, 32
    sets = (effective, permitted, inheritable)
    data = pack("=6I", *(one & low for one in sets), *(one >> high for one in sets))
    if syscalls.libc().capset(pack("=Ii", _VERSION_3, 0), data) != 0:
        raise syscalls.failed("capset")


def capget() -> tuple[int, int, int]:
    """Give effective, permitted and inheritable capabilities of the calling thread (man 2 capget). Raises OSError."""
    import ctypes

    data = ctypes.create_string_buffer(24)
    if syscalls.libc().capget(pack("=Ii", _VERSION_3, 0), data) != 0:
        raise syscalls.failed("capget")
    words = unpack_from("=6I", data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def drop_bounding(kept: int) -> None:
    """Take all others out of the bounding set: no program gets them again (capabilities(7)). Raises OSError."""
    for number in range(len(NAMES)):
        if kept >> number & 1:
            continue
        try:
            prctl(_PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != EINVAL:  # a capability that this kernel does not know
                raise


def ambient(wanted: int) -> None:
    """Set the capabilities that programs of a user keep over exec; they must be permitted and inheritable. Raises OSError."""
    prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR)
    for number in range(len(NAMES)):
        if wanted >> number & 1:
            prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, number)


def keep_capabilities(*, on: bool) -> None:
    """Keep permitted capabilities when the user changes from 0 to another (PR_SET_KEEPCAPS)."""
    prctl(_PR_SET_KEEPCAPS, int(on))


def no_new_privs() -> None:
    """Let no program that is executed from here on gain anything: no setuid, no file capabilities (PR_SET_NO_NEW_PRIVS)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def dumpable(*, on: bool) -> None:
    """Say whether processes of the same user may look into /proc/PID of this one: exe, fd, root, mem (PR_SET_DUMPABLE).

    Executing a program switches it on again.
    """
    prctl(_PR_SET_DUMPABLE, int(on))


def die_with_parent(signal: int) -> None:
    """Get a signal when the thread that made this process ends; 0 for none (PR_SET_PDEATHSIG)."""
    prctl(_PR_SET_PDEATHSIG, signal)


def set_comm(name: str) -> None:
    """Set the name in /proc/PID/comm, at most 15 bytes (PR_SET_NAME)."""
    import ctypes

    raw = ctypes.create_string_buffer(name.encode()[:15])
    prctl(_PR_SET_NAME, ctypes.addressof(raw))


def set_memory_map(words: bytes) -> None:
    """Tell the kernel where the program's parts are: struct prctl_mm_map (PR_SET_MM_MAP, linux/prctl.h). Raises OSError.

    Needs no privilege; EINVAL from a kernel without CONFIG_CHECKPOINT_RESTORE.
    """
    import ctypes

    raw = ctypes.create_string_buffer(words, len(words))
    prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.addressof(raw), len(words))
