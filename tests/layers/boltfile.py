"""Writes bbolt databases as the format says, for tests: nested dicts of bytes, in pages of any allowed size."""

from __future__ import annotations

import struct
from typing import TypeAlias

Held: TypeAlias = "dict[bytes, bytes | Held]"

BRANCH, LEAF, META, FREELIST = 1, 2, 4, 16


def fnv(data: bytes) -> int:
    """FNV-1a, 64 bit."""
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) % (1 << 64)
    return value


class Writer:
    """Pages of one database, appended as buckets are written."""

    def __init__(self, page_size: int = 4096, inline: int = 1024, order: str = "<", *, fill: int = 4) -> None:
        """Buckets whose leaf is smaller than `inline` stand in their value; a leaf has `fill` elements at most."""
        self.size, self.inline, self.order, self.fill = page_size, inline, order, fill
        self.pages: list[bytes] = [b"", b""]
        self._append(FREELIST, 0, b"")

    def head(self, number: int, flags: int, count: int, overflow: int = 0) -> bytes:
        """The head of a page."""
        return struct.pack(self.order + "QHHI", number, flags, count, overflow)

    def _append(self, flags: int, count: int, body: bytes) -> int:
        number = len(self.pages)
        needed = -(-(16 + len(body)) // self.size)
        whole = self.head(number, flags, count, needed - 1) + body
        whole += bytes(needed * self.size - len(whole))
        self.pages += [whole[at : at + self.size] for at in range(0, len(whole), self.size)]
        return number

    def leaf(self, items: list[tuple[bytes, int, bytes]]) -> bytes:
        """The body of a leaf page."""
        start, data, heads = 16 * len(items), b"", b""
        for at, (key, flags, value) in enumerate(items):
            heads += struct.pack(self.order + "IIII", flags, start + len(data) - 16 * at, len(key), len(value))
            data += key + value
        return heads + data

    def branch(self, items: list[tuple[bytes, int]]) -> bytes:
        """The body of a branch page."""
        start, data, heads = 16 * len(items), b"", b""
        for at, (key, page) in enumerate(items):
            heads += struct.pack(self.order + "IIQ", start + len(data) - 16 * at, len(key), page)
            data += key
        return heads + data

    def bucket(self, held: Held, *, root: bool = False) -> bytes:
        """Write a bucket, and give the value that stands for it."""
        items = []
        for key in sorted(held):
            value = held[key]
            items.append((key, 1, self.bucket(value)) if isinstance(value, dict) else (key, 0, value))
        body = self.leaf(items)
        if not root and len(body) < self.inline and not any(flags for _, flags, _ in items):
            return struct.pack(self.order + "QQ", 0, 7) + self.head(0, LEAF, len(items)) + body
        level: list[tuple[bytes, int]] = []
        for at in range(0, max(len(items), 1), self.fill):
            part = items[at : at + self.fill]
            level.append((part[0][0] if part else b"", self._append(LEAF, len(part), self.leaf(part))))
        while len(level) > 1:
            level = [
                (part[0][0], self._append(BRANCH, len(part), self.branch(part)))
                for part in (level[at : at + self.fill] for at in range(0, len(level), self.fill))
            ]
        return struct.pack(self.order + "QQ", level[0][1], 7)

    def meta(self, number: int, root: int, transaction: int) -> bytes:
        """One meta page."""
        body = struct.pack(
            self.order + "IIIIQQQQQ", 0xED0CDAED, 2, self.size, 0, root, 0, 2, len(self.pages), transaction
        )
        page = self.head(number, META, 0) + body + struct.pack(self.order + "Q", fnv(body))
        return page + bytes(self.size - len(page))

    def file(self, held: Held, transaction: int = 9) -> bytes:
        """The whole file."""
        root = struct.unpack(self.order + "QQ", self.bucket(held, root=True))[0]
        for at in (transaction - 1, transaction):
            self.pages[at % 2] = self.meta(at % 2, root, at)
        return b"".join(self.pages)
