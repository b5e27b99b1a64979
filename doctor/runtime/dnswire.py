"""Messages of DNS (RFC 1035): a question read, and an answer written. What comes from a container is hostile.

scapy has all of it and costs a quarter of a second of import; a daemon that answers A, AAAA and PTR needs this much.
"""

from __future__ import annotations

import socket
from struct import Struct as Layout
from struct import unpack_from
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

A, PTR, MX, AAAA, OPT = 1, 12, 15, 28, 41
INTERNET = 1
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
TTL = 600
"""Seconds that an answer of the embedded DNS may be kept (moby resolver.go, respTTL)."""

_HEAD = Layout("!HHHHHH")
_HEAD_BYTES = 12
_RECORD = Layout("!HHIH")
_RESPONSE, _TRUNCATED, _DESIRED, _AVAILABLE, _AUTHORITATIVE = 0x8000, 0x0200, 0x0100, 0x0080, 0x0400
_OPCODE = 0x7800
_LABEL = 63
_POINTER = 0xC0
_NAME = 255
_SMALLEST = 512


class MessageError(ValueError):
    """Bytes that are no message of DNS, or one that asks nothing."""


class Question(Struct, frozen=True):
    """One question: the name as it was spelled, with its final dot; `size` is the largest answer over UDP."""

    number: int
    flags: int
    name: str
    kind: int
    wire: bytes
    size: int


def read_question(data: bytes) -> Question:
    """Read a message that asks. Raises MessageError."""
    if len(data) < _HEAD_BYTES:
        raise MessageError("cut short in the head")
    number, flags, questions, answers, authorities, more = _HEAD.unpack_from(data)
    if flags & _RESPONSE or not questions:
        raise MessageError("no question")
    name, end = _read_name(data, _HEAD_BYTES)
    if len(data) < end + 4:
        raise MessageError("cut short in the question")
    kind = int.from_bytes(data[end : end + 2], "big")
    wire = data[_HEAD_BYTES : end + 4]
    size = _SMALLEST
    if questions == 1 and not answers and not authorities and more:
        size = max(size, _edns(data, end + 4))
    return Question(number, flags, name, kind, wire, size)


def _edns(data: bytes, at: int) -> int:
    """Give the size of an OPT record (RFC 6891), 0 where there is none."""
    if len(data) >= at + 11 and data[at] == 0 and int.from_bytes(data[at + 1 : at + 3], "big") == OPT:
        return int.from_bytes(data[at + 3 : at + 5], "big")
    return 0


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    total = 0
    while True:
        if at >= len(data):
            raise MessageError("cut short in a name")
        size = data[at]
        if size & _POINTER:
            raise MessageError("a question's name is not compressed")
        at += 1
        if not size:
            return "".join(f"{label}." for label in labels) or ".", at
        total += size + 1
        if at + size > len(data) or total > _NAME:
            raise MessageError("a name that is too long")
        labels.append(data[at : at + size].decode("latin-1"))
        at += size


def write_name(name: str) -> bytes:
    """Write a name, without compression. Raises MessageError for a label that is too long."""
    out = bytearray()
    for label in name.rstrip(".").split("."):
        raw = label.encode("latin-1", "replace")
        if not 0 < len(raw) <= _LABEL:
            if name.rstrip("."):
                raise MessageError(f"no name: {name}")
            continue
        out += bytes((len(raw),)) + raw
    return bytes(out) + b"\0"


def address_answer(question: Question, addresses: Iterable[str], size: int) -> bytes:
    """Answer with addresses, those that fit into `size`; the rest is cut off, and the message says so."""
    owner = question.wire[:-4]
    records = []
    for one in addresses:
        family = socket.AF_INET6 if ":" in one else socket.AF_INET
        packed = socket.inet_pton(family, one)
        kind = AAAA if family == socket.AF_INET6 else A
        records.append(owner + _RECORD.pack(kind, INTERNET, TTL, len(packed)) + packed)
    return _answer(question, records, size)


def name_answer(question: Question, name: str, size: int) -> bytes:
    """Answer with a name. Raises MessageError."""
    target = write_name(name)
    return _answer(question, [question.wire[:-4] + _RECORD.pack(PTR, INTERNET, TTL, len(target)) + target], size)


def failure(question: Question, code: int) -> bytes:
    """Answer with a code and nothing else; SERVFAIL offers no recursion, as the engine's does not."""
    return _HEAD.pack(question.number, _flags(question, available=False) | code, 1, 0, 0, 0) + question.wire


def _answer(question: Question, records: list[bytes], size: int) -> bytes:
    kept: list[bytes] = []
    room = size - _HEAD_BYTES - len(question.wire)
    for record in records:
        if len(record) > room:
            break
        kept.append(record)
        room -= len(record)
    flags = _flags(question, available=True) | (_TRUNCATED if len(kept) < len(records) else 0)
    return _HEAD.pack(question.number, flags, 1, len(kept), 0, 0) + question.wire + b"".join(kept)


def _flags(question: Question, *, available: bool) -> int:
    return _RESPONSE | (question.flags & (_OPCODE | _DESIRED)) | (_AVAILABLE if available else 0)


class Reply(Struct, frozen=True):
    """What an upstream said, as far as it decides what follows."""

    number: int
    code: int
    authoritative: bool


def read_reply(data: bytes) -> Reply:
    """Read the head of an answer. Raises MessageError."""
    if len(data) < _HEAD_BYTES:
        raise MessageError("cut short in the head")
    number, flags = unpack_from("!HH", data)
    if not flags & _RESPONSE:
        raise MessageError("no answer")
    return Reply(number, flags & 0xF, bool(flags & _AUTHORITATIVE))
