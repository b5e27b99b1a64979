"""Filters of tc: on which links there are some, and of which kinds. See tc(8), linux/rtnetlink.h, linux/pkt_sched.h.

What a filter does is not read: that it is there says that packets may end at the link, or change.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from doctor.linux.attributes import quoted, string
from doctor.linux.netlink import head, values

_HEAD = Struct("=BxxxiIII")  # family, index, handle, parent, info
_KIND = 1
_CLASSIFYING = frozenset({"clsact", "ingress"})

CLASSIFIED: Final = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
"""Parents of the filters of clsact, of which the qdisc ingress has the first (TC_H_MIN_INGRESS, TC_H_MIN_EGRESS)."""


def read_qdisc(payload: bytes) -> int:
    """Decode one RTM_NEWQDISC: the index of its link where it is one for filters alone, else 0. Raises MalformedError."""
    _, index, *_ = head(_HEAD, payload)
    kind = string(values(payload, _HEAD.size).get(_KIND, b""))
    return index if kind in _CLASSIFYING else 0


def read_filter(payload: bytes) -> str:
    """Decode one RTM_NEWTFILTER: its kind (bpf, flower, u32, ...). Raises MalformedError."""
    head(_HEAD, payload)
    return string(values(payload, _HEAD.size).get(_KIND, b""))


def show_filters(kinds: dict[str, list[str]]) -> str:
    """Show the kinds of filters of a link, by direction."""
    parts = (f'"{name}":[{",".join(quoted(kind) for kind in held)}]' for name, held in kinds.items() if held)
    return '"filters":{' + ",".join(parts) + "}"
