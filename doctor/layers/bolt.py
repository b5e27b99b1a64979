"""bbolt databases, as containerd and moby write them: read without their lock, without their program, and never written.

A file is pages. Two of them, 0 and 1, are metas with a transaction id and an FNV-1a checksum: the valid one with the
higher id names the root bucket. A bucket is a B+tree of branch and leaf pages; a leaf's value is bytes or another
bucket, whose tree stands on pages of its own or, when it is small, inside the value. Source: bbolt `internal/common`
(page.go, meta.go, bucket.go) and `db.go`.

What the writer does while we read cannot mislead: a transaction writes pages that its predecessor does not use, then
its meta. Pages of transaction N are first written over by N+2, which begins after the meta of N+1 is there. So what was
read of N is whole when N is still the newest afterwards; else it is read again.
"""

from __future__ import annotations

import os
import stat
from struct import Struct as Layout
from struct import error as layout_error
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAGIC = 0xED0CDAED
_VERSION = 2
_HEAD = 16
"""Bytes of a page's head: id u64, flags u16, count u16, overflow u32."""
_BRANCH, _LEAF, _META = 1, 2, 4
_BUCKET = 1
_ELEMENT = 16
_SMALLEST, _LARGEST = 512, 1 << 16
"""Page sizes: the engine takes that of its machine, 4, 16 or 64 KiB."""
_KEY = 1 << 15
"""Bytes of a key at most (bbolt MaxKeySize)."""
_VALUE = 64 << 20
"""Bytes of one page with its overflow that are read at most: containerd's largest values are specs of some KiB."""
_DEPTH = 40
"""Levels of branch pages, and of buckets in buckets; containerd has seven."""
_ELEMENTS = 100_000
"""Elements that are looked at beside sixteen times what the file has room for: buckets may be made to share their pages."""
_NOWHERE = 1
"""A page that is no tree: a root of 0 would be one inside a value."""
_TRIES = 30

_Read = TypeVar("_Read")


class Damaged(Exception):  # noqa: N818 - what the file is, not an error of ours
    """The file is no bbolt database, or not a whole one; the text says where."""


class InUse(Exception):  # noqa: N818 - the same
    """The database was written again and again while it was read."""


class _Meta(Struct, frozen=True):
    page_size: int
    root: int
    pages: int
    transaction: int


class _Layouts:
    """The numbers of the format in one byte order: the engine writes its machine's."""

    def __init__(self, order: str) -> None:
        self.meta = Layout(order + "IIIIQQQQQQ")
        self.head = Layout(order + "QHHI")
        self.branch = Layout(order + "IIQ")
        self.leaf = Layout(order + "IIII")
        self.bucket = Layout(order + "QQ")


_ORDERS = (_Layouts("<"), _Layouts(">"))


def fnv1a(data: bytes) -> int:
    """Give the 64 bit FNV-1a checksum of bytes.

    >>> hex(fnv1a(b"a"))
    '0xaf63dc4c8601ec8c'
    """
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _meta_in(data: bytes) -> tuple[_Meta, _Layouts] | None:
    """Read the meta of a page; None when there is none, or its checksum says that it was half written."""
    for layouts in _ORDERS:
        try:
            magic, version, size, _, root, _, _, pages, transaction, checksum = layouts.meta.unpack_from(data, _HEAD)
        except layout_error:
            return None
        if magic != _MAGIC:
            continue
        whole = version == _VERSION and checksum == fnv1a(data[_HEAD : _HEAD + layouts.meta.size - 8])
        if not whole or not _SMALLEST <= size <= _LARGEST or size & (size - 1):
            return None
        return _Meta(size, root, pages, transaction), layouts
    return None


class _File:
    """One database that is open: its newest meta, and pages of it by number."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.meta, self.layouts = self._newest()
        self.left = _ELEMENTS + 16 * os.fstat(descriptor).st_size // _ELEMENT

    def _newest(self) -> tuple[_Meta, _Layouts]:
        """Find the valid meta with the higher transaction id: page 0 may be torn, then the page size is not known."""
        found = [_meta_in(os.pread(self.descriptor, 4096, 0))]
        sizes = [found[0][0].page_size] if found[0] else [1024 << step for step in range(7)]
        found += [_meta_in(os.pread(self.descriptor, 4096, size)) for size in sizes]
        valid = [one for one in found if one is not None]
        if not valid:
            raise Damaged("neither meta page is valid")
        return max(valid, key=lambda one: one[0].transaction)

    def moved(self) -> bool:
        """Whether a transaction has come since this was opened."""
        return self._newest()[0].transaction != self.meta.transaction

    def page(self, number: int) -> bytes:
        """Give a page with those that it runs over into."""
        meta = self.meta
        if not 1 < number < meta.pages:
            raise Damaged(f"page {number} of {meta.pages}")
        start = number * meta.page_size
        data = os.pread(self.descriptor, meta.page_size, start)
        if len(data) < meta.page_size:
            raise Damaged(f"the file ends before page {number}")
        own, _, _, overflow = self.layouts.head.unpack_from(data)
        if own != number:
            raise Damaged(f"page {number} says that it is page {own}")
        if not overflow:
            return data
        size = (overflow + 1) * meta.page_size
        if number + overflow >= meta.pages or size > _VALUE:
            raise Damaged(f"page {number} runs over {overflow} pages")
        data = os.pread(self.descriptor, size, start)
        if len(data) < size:
            raise Damaged(f"the file ends within page {number}")
        return data


class Bucket:
    """One bucket: keys with bytes or buckets. What it gives is only certain once `read` has returned."""

    def __init__(self, file: _File, value: bytes, depth: int = 0) -> None:
        """Take the value that stands for the bucket: number of its root page, sequence, and a page when that is 0."""
        if len(value) < file.layouts.bucket.size or depth > _DEPTH:
            raise Damaged("a bucket is cut short" if depth <= _DEPTH else "buckets in buckets without an end")
        self._file = file
        self._root, self.sequence = file.layouts.bucket.unpack_from(value)
        self._inline = value[file.layouts.bucket.size :]
        self._depth = depth

    def items(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """Give everything in it, in the order of the keys. Raises Damaged."""
        seen: set[int] = set()
        last = None
        if not self._root:
            leaves: Iterator[bytes] = iter((self._inline,))
        else:
            leaves = self._leaves(self._root, seen, 0)
        for page in leaves:
            for key, value in self._elements(page):
                if last is not None and key <= last:
                    raise Damaged("keys are out of order")
                last = key
                yield key, value

    def _leaves(self, number: int, seen: set[int], depth: int) -> Iterator[bytes]:
        if number in seen or depth > _DEPTH:
            raise Damaged(f"page {number} stands below itself or twice")
        seen.add(number)
        page = self._file.page(number)
        flags, count = self._file.layouts.head.unpack_from(page)[1:3]
        if flags == _LEAF:
            yield page
            return
        if flags != _BRANCH:
            raise Damaged(f"page {number} is neither branch nor leaf")
        for at in range(count):
            try:
                child = self._file.layouts.branch.unpack_from(page, _HEAD + at * _ELEMENT)[2]
            except layout_error:
                raise Damaged(f"page {number} is too small for what it counts") from None
            yield from self._leaves(child, seen, depth + 1)

    def _elements(self, page: bytes) -> Iterator[tuple[bytes, bytes | Bucket]]:
        layouts = self._file.layouts
        try:
            flags, count = layouts.head.unpack_from(page)[1:3]
            if flags != _LEAF:
                raise Damaged("a bucket inside a value is no leaf")
            self._file.left -= count
            if self._file.left < 0:
                raise Damaged("pages are used again and again")
            for at in range(count):
                here = _HEAD + at * _ELEMENT
                kind, start, keyed, valued = layouts.leaf.unpack_from(page, here)
                start += here
                if keyed > _KEY or start + keyed + valued > len(page):
                    raise Damaged("an element reaches out of its page")
                value = page[start + keyed : start + keyed + valued]
                held = Bucket(self._file, value, self._depth + 1) if kind & _BUCKET else value
                yield page[start : start + keyed], held
        except layout_error:
            raise Damaged("a page is too small for what it counts") from None

    def at(self, *path: str) -> Bucket | None:
        """Give the bucket at a path of keys below this one; None when there is none."""
        found: Bucket | None = self
        for name in path:
            wanted = name.encode()
            held = next((value for key, value in found.items() if key == wanted), None) if found else None
            found = held if isinstance(held, Bucket) else None
        return found

    def values(self) -> dict[str, bytes]:
        """Give what is no bucket, by key."""
        return {_text(key): value for key, value in self.items() if isinstance(value, bytes)}

    def buckets(self) -> Iterator[tuple[str, Bucket]]:
        """Give the buckets in it, by key."""
        for key, value in self.items():
            if isinstance(value, Bucket):
                yield _text(key), value


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def varint(data: bytes) -> int:
    r"""Read an unsigned number as Go's encoding/binary writes it (`PutUvarint`). Raises Damaged.

    >>> varint(b"\xac\x02")
    300
    """
    number = 0
    for at, byte in enumerate(data[:10]):
        number |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
            return number
    raise Damaged("a number without an end")


def signed_varint(data: bytes) -> int:
    r"""Read a signed number as Go's encoding/binary writes it (`PutVarint`, zigzag). Raises Damaged.

    >>> signed_varint(b"\x03")
    -2
    """
    number = varint(data)
    return (number >> 1) ^ -(number & 1)


def read(path: str, look: Callable[[Bucket], _Read]) -> _Read:
    """Have `look` read the root bucket of a database, until nobody wrote meanwhile, and give what it gave.

    `look` may run several times. Raises Damaged, InUse, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Damaged("no regular file")
        for _ in range(_TRIES):
            file = _File(descriptor)
            try:
                found = look(Bucket(file, file.layouts.bucket.pack(file.meta.root or _NOWHERE, 0)))
            except Damaged:
                if file.moved():
                    continue
                raise
            if not file.moved():
                return found
        raise InUse(f"written {_TRIES} times while it was read")
    finally:
        os.close(descriptor)
