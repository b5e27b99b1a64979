"""The certificates by which dockerd is known on TCP, and whose clients it takes: until when they hold.

Parses the records `engine/certificates/tlscert` and `.../tlscacert`, which hold the certificates of those files and nothing
else of them (RFC 7468), as DER (RFC 5280, 4.1)::

    -----BEGIN CERTIFICATE-----
    MIIBfDCCASOgAwIBAgIUZ...
    -----END CERTIFICATE-----
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = ("tlscert", "tlscacert")
"""The options that name a file of certificates."""

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_TIME = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?Z")
_COMMON_NAME = b"\x06\x03\x55\x04\x03"
_VERSION, _UTC, _GENERALIZED = 0xA0, 0x17, 0x18
_LONG = 0x80
_PIVOT = 50
"""A UTCTime from here on is of the 20th century (RFC 5280, 4.1.2.5.1)."""


class Certificate(Struct, frozen=True):
    """One certificate: from when until when it holds (seconds since the epoch), and as a person reads them, UTC."""

    name: str
    begins: float
    ends: float
    until: str
    cited: Citation


class Certificates(Struct, frozen=True):
    """Those of each file by the option that names it, in their order; `unread` says why a file could not be read."""

    by_option: dict[str, tuple[Certificate, ...]]
    unread: dict[str, str]


@fact
def certificates(snapshot: Snapshot) -> Certificates:
    """Read both files; what is no certificate is left out."""
    found: dict[str, tuple[Certificate, ...]] = {}
    unread: dict[str, str] = {}
    for key in KEYS:
        name = f"engine/certificates/{key}"
        if name not in snapshot.records:
            continue
        record = snapshot.get(name)
        if record.readable:
            found[key] = tuple(_certificates(record))
        else:
            unread[key] = f"{record.target}: {record.why or record.status}"
    return Certificates(found, unread)


def _certificates(record: Record) -> Iterator[Certificate]:
    text = record.text
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        try:
            yield _certificate(b64decode("".join(match[1].split()), validate=True), record, line)
        except (Error, ValueError, IndexError):
            continue


def _certificate(der: bytes, record: Record, line: int) -> Certificate:
    body = _inside(_inside(der, 0)[0], 0)[0]
    at = 0
    fields: list[bytes] = []
    while at < len(body) and len(fields) < 6:  # noqa: PLR2004 - as far as the subject
        held, after = _inside(body, at)
        if body[at] != _VERSION:
            fields.append(held)
        at = after
    _, _, _, validity, subject = fields[:5]
    _, second = _inside(validity, 0)
    begins, _ = _moment(validity, 0)
    ends, until = _moment(validity, second)
    name = _common_name(subject)
    excerpt = f"{name or 'a certificate'}, not after {until}"
    return Certificate(name, begins, ends, until, Citation(record.name, line, excerpt, record.target))


def _inside(data: bytes, at: int) -> tuple[bytes, int]:
    """Give the content of the value that begins here, and where the next one does. Raises IndexError, ValueError."""
    size = data[at + 1]
    start = at + 2
    if size >= _LONG:
        many = size - _LONG
        size, start = int.from_bytes(data[start : start + many], "big"), start + many
    if start + size > len(data):
        raise ValueError("it ends too early")
    return data[start : start + size], start + size


def _moment(data: bytes, at: int) -> tuple[float, str]:
    kind, text = data[at], _inside(data, at)[0].decode("ascii")
    century = ""
    if kind == _GENERALIZED:
        century, text = text[:2], text[2:]
    elif kind != _UTC:
        raise ValueError("no time")
    match = _TIME.fullmatch(text)
    if match is None or (century and not century.isdecimal()):
        raise ValueError("no time")
    year, month, day, hour, minute, second = (int(one or 0) for one in match.groups())
    year += int(century) * 100 if century else 1900 if year >= _PIVOT else 2000
    if not (year and 1 <= month <= 12 and 1 <= day <= 31):  # noqa: PLR2004 - a date
        raise ValueError("no date")
    seconds = datetime(year, month, day, tzinfo=UTC).timestamp() + (hour * 60 + minute) * 60 + second
    return seconds, f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC"


def _common_name(subject: bytes) -> str:
    at = subject.rfind(_COMMON_NAME)
    if at < 0:
        return ""
    text = _inside(subject, at + len(_COMMON_NAME))[0].decode("utf-8", "replace")
    return text if text.isprintable() else ""
