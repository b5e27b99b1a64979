"""Programs of BPF that are attached to links by tcx, which no dump of netlink tells (Linux 6.6 and later).

bpf(2) with BPF_PROG_QUERY tells how many there are at a link of the caller's network namespace, to who has CAP_NET_ADMIN
(kernel/bpf/tcx.c, tcx_prog_query(); struct bpf_attr.query in linux/bpf.h). It changes nothing.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import TYPE_CHECKING, Final

from doctor.linux.syscalls import call

if TYPE_CHECKING:
    from collections.abc import Iterable

_BPF, _GENERIC_BPF = {"x86_64": 321}, 280
_PROG_QUERY = 16
_QUERY = Struct("=IIIIQI")  # link, where, flags of the query, flags, pointer to numbers of programs, their count
_SIZE = 64

WHERE: Final = {"ingress": 46, "egress": 47}
"""BPF_TCX_INGRESS and BPF_TCX_EGRESS."""


def attached(links: Iterable[int]) -> dict[int, list[str]]:
    """Give the directions in which links of this network namespace have programs, by index; those that have none are left out.

    Empty as well where that cannot be asked: an older kernel (EINVAL), no privilege (EPERM), no BPF (ENOSYS).
    """
    import ctypes

    number = _BPF.get(os.uname().machine, _GENERIC_BPF)
    found: dict[int, list[str]] = {}
    for index in links:
        for name, where in WHERE.items():
            held = ctypes.create_string_buffer(_QUERY.pack(index, where, 0, 0, 0, 0), _SIZE)
            try:
                call(number, _PROG_QUERY, held, _SIZE)
            except OSError as error:
                if error.errno == errno.ENODEV:  # the link is gone
                    break
                return found
            if _QUERY.unpack_from(held)[-1]:
                found.setdefault(index, []).append(name)
    return found
