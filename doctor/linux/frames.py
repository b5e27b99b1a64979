"""What a process of its own hands over: records, each a line and its data.

    name TAB kind TAB target TAB status TAB errno TAB milliseconds TAB bytes TAB why NEWLINE data

Names, kinds and status are those of `doctor.snapshot.Record`; the data is not scrubbed yet.
"""

from __future__ import annotations

import os
from errno import EACCES, ENOENT, ENOTDIR, EPERM, ETIMEDOUT
from typing import TYPE_CHECKING, NamedTuple, get_args

from doctor.lines import Kind, Status, escape, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator

DIAG = ("inet_diag", "tcp_diag", "udp_diag")
MODULES = (*DIAG, "nf_tables")
"""Kernel modules that a survey would load by asking: whoever starts one says which of them are there."""

_FIELDS = 8
_KINDS: dict[str, Kind] = {word: word for word in get_args(Kind)}
_STATUSES: dict[str, Status] = {word: word for word in get_args(Status)}


class Frame(NamedTuple):
    """One record."""

    name: str
    kind: Kind
    target: str
    status: Status
    errno: int
    ms: float
    why: str
    data: bytes

    def bytes(self) -> bytes:
        """Print it."""
        about = (f"{self.errno}", f"{self.ms:.3f}", f"{len(self.data)}", escape(self.why))
        head = "\t".join((escape(self.name), self.kind, escape(self.target), self.status, *about))
        return head.encode("utf-8", "surrogateescape") + b"\n" + self.data


def frames(output: bytes) -> Iterator[Frame]:
    """Read what a survey printed; what was cut in the middle is left out."""
    at = 0
    while (end := output.find(b"\n", at)) >= 0:
        fields = output[at:end].decode("utf-8", "replace").split("\t")
        if len(fields) != _FIELDS or not fields[6].isdecimal():
            return
        name, spelled, target, became, errno, ms, size, why = fields
        kind, status = _KINDS.get(spelled), _STATUSES.get(became)
        at = end + 1 + int(size)
        if at > len(output) or kind is None or status is None:
            return
        yield Frame(
            unescape(name), kind, unescape(target), status, int(errno), float(ms), unescape(why), output[end + 1 : at]
        )


def status_of(error: OSError) -> Status:
    """Give the status of evidence that could not be had."""
    if error.errno in {ENOENT, ENOTDIR}:
        return "absent"
    if error.errno == ETIMEDOUT:
        return "timeout"
    return "denied" if error.errno in {EACCES, EPERM} else "failed"


def why_of(error: OSError) -> str:
    """Give the reason in words: the kernel's, or ours where there is no errno."""
    return os.strerror(error.errno).lower() if error.errno else str(error.strerror or error)
