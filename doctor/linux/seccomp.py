"""A filter of system calls (man 2 seccomp) that answers one of them with nothing, for the caller and all its children."""

from __future__ import annotations

import os
from struct import pack

from doctor.linux import privileges

_SYSLOG = {"x86_64": (103, 0xC000003E), "aarch64": (116, 0xC00000B7), "riscv64": (116, 0xC00000F3)}
"""The number of syslog(2), and AUDIT_ARCH_* (linux/audit.h), by machine."""

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_AT_NUMBER, _AT_ARCH = 0, 4


def empty_kernel_log() -> None:
    """Let the kernel's log be empty for this process and its children: it is the machine's, whatever namespace one is in.

    syslog(2) answers 0 bytes. Needs CAP_SYS_ADMIN in one's user namespace. Nothing happens on other machines than those
    whose numbers are known. Raises OSError.
    """
    import ctypes

    number, arch = _SYSLOG.get(os.uname().machine, (0, 0))
    if not arch:
        return
    # struct sock_filter: code, jump if true, jump if false, operand.
    program = b"".join(
        pack("=HBBI", *one)
        for one in (
            (_LOAD, 0, 0, _AT_ARCH),
            (_EQUAL, 0, 3, arch),
            (_LOAD, 0, 0, _AT_NUMBER),
            (_EQUAL, 0, 1, number),
            (_RETURN, 0, 0, _ERRNO),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    whole = ctypes.create_string_buffer(pack("@HP", len(program) // 8, ctypes.addressof(held)))
    privileges.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(whole))
