"""The database of the engine's networks, as it is when nothing is in it: a bbolt file without buckets.

What we know of networks stands beside it in a file of our own; an engine that is started on our data root finds a database
that it can open. Source: etcd-io/bbolt `db.go` (init), `page.go`, `meta.go`.
"""

from __future__ import annotations

import struct

_PAGE = 4096
_MAGIC, _VERSION = 0xED0CDAED, 2
_META, _FREELIST, _LEAF = 0x04, 0x10, 0x02


def database() -> bytes:
    """Give the four pages of an empty database: two metas, the list of free pages, the root's leaf."""
    pages = [_page(at, _META) + _meta(at) for at in (0, 1)]
    pages += [_page(2, _FREELIST), _page(3, _LEAF)]
    return b"".join(page.ljust(_PAGE, b"\0") for page in pages)


def _page(number: int, flags: int) -> bytes:
    return struct.pack("<QHHI", number, flags, 0, 0)


def _meta(transaction: int) -> bytes:
    root, freelist, high_water = 3, 2, 4
    held = struct.pack("<IIIIQQQQQ", _MAGIC, _VERSION, _PAGE, 0, root, 0, freelist, high_water, transaction)
    return held + struct.pack("<Q", _fnv(held))


def _fnv(data: bytes) -> int:
    """Give FNV-1a with 64 bits, which guards a meta page."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
