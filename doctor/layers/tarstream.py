"""Tar archives as a stream: each member with what its headers say, then its content in pieces, never all at once.

Reads what Docker, containerd, BuildKit, podman and GNU tar write: ustar, PAX records (names, numbers, `SCHILY.xattr.*`),
GNU long names, base-256 numbers and both kinds of sparse files. Python's tarfile takes a PAX body of any size into
memory, and an archive that somebody hands us may claim one of gigabytes: here every length has a bound. Source: tar(5)
of libarchive, POSIX pax(1), Go `archive/tar`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
_RECORDS = 1 << 20
"""Bytes of the PAX records of one member: Linux allows 64 KiB of extended attributes, a name 4 KiB."""
_NAME = 1 << 16
_HEADS = 8
"""Headers before a member's own, at most: PAX records, a long name and a long link name are three."""
_PIECE = 1 << 18
_SPARSE_MORE = 1024

_KINDS = {
    b"0": "f",
    b"\0": "f",
    b"7": "f",
    b"S": "f",
    b"1": "h",
    b"2": "l",
    b"3": "c",
    b"4": "b",
    b"5": "d",
    b"6": "p",
}
_HAS_CONTENT = frozenset(b"0\x007S")


class TarDamaged(Exception):  # noqa: N818 - what the archive is, not an error of ours
    """The stream is no whole tar archive; the text says why, `offset` where."""

    def __init__(self, offset: int, why: str) -> None:
        """Keep both."""
        super().__init__(f"{why} at byte {offset:,}")
        self.offset = offset
        self.why = why


class Entry(Struct, frozen=True, gc=False):
    """One member.

    `name` and `link` are as written (bytes that are no UTF-8 are surrogates). `kind` is `f` file, `d` directory, `l`
    symbolic link, `h` hard link, `c` and `b` device, `p` FIFO. `mode` is the lower twelve bits. `size` is how many bytes
    of content stand in the archive, `real` how long the file is (they differ for sparse files only).
    """

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    real: int
    link: str
    device: tuple[int, int]
    xattrs: dict[str, bytes]
    mtime: float
    sparse: bool


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def number(field: bytes) -> int:
    r"""Read a number of a header: octal text, or base-256 with the highest bit set. Raises ValueError.

    >>> number(b"0000755\0")
    493
    """
    if field and field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = _cut(field).strip(b" ")
    return int(text, 8) if text else 0


def checksum_fits(block: bytes) -> bool:
    """Say whether the header's own sum is right: of unsigned bytes, or of signed ones as old programs wrote it."""
    try:
        said = number(block[148:156])
    except ValueError:
        return False
    plain = sum(block) - sum(block[148:156]) + 8 * 32
    return said == plain or said == plain - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # noqa: PLR2004


def records(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Give the PAX records of a body: `LENGTH KEY=VALUE NEWLINE`. Raises ValueError."""
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 20)
        if space < 0:
            if not body[at:].strip(b"\0"):
                return
            raise ValueError("no length")
        length = int(body[at:space])
        end = at + length
        if length <= space - at + 1 or end > len(body) or body[end - 1 : end] != b"\n":
            raise ValueError("a length that does not fit")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise ValueError("no value")
        yield _text(key), value
        at = end


class TarStream:
    """A tar archive that is read from its beginning to its end, once.

    `read(n)` gives up to n bytes, none at the end of the stream.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Begin; nothing is read yet."""
        self._read = read
        self._left = 0
        self._padding = 0
        self._globals: dict[str, bytes] = {}
        self.offset = 0
        self.ended = False
        """Whether the mark of the end was seen: two blocks of zeros."""

    def _take(self, size: int, what: str) -> bytes:
        data = self._read(size)
        while len(data) < size:
            more = self._read(size - len(data))
            if not more:
                raise TarDamaged(self.offset + len(data), f"the archive ends within {what}")
            data += more
        self.offset += size
        return data

    def _body(self, size: int, limit: int, what: str) -> bytes:
        if not 0 <= size <= limit:
            raise TarDamaged(self.offset, f"{what} of {size:,} bytes")
        return self._take(size + -size % BLOCK, what)[:size]

    def chunk(self) -> bytes:
        """Give the next piece of the present member's content, empty when there is no more."""
        return self.content(_PIECE)

    def content(self, size: int) -> bytes:
        """Give up to `size` bytes of the present member's content, none when there are no more."""
        if not self._left:
            return b""
        data = self._read(min(self._left, size))
        if not data:
            raise TarDamaged(self.offset, "the archive ends within a file")
        self._left -= len(data)
        self.offset += len(data)
        return data

    def next(self) -> Entry | None:
        """Go to the next member, past what is left of the present one; None at the end. Raises TarDamaged."""
        while self._left:
            self.chunk()
        if self._padding:
            self._take(self._padding, "a file")
            self._padding = 0
        name, link, extra, heads = b"", b"", dict(self._globals), 0
        while True:
            start = self.offset
            block = self._block()
            if not any(block):
                if block:
                    self._end(start)
                return None
            if not checksum_fits(block):
                raise TarDamaged(start, "a header whose checksum is wrong")
            kind = block[156:157]
            heads += 1
            if heads > _HEADS:
                raise TarDamaged(start, "headers without a member")
            try:
                size = number(block[124:136])
                if kind in b"LK":
                    body = _cut(self._body(size, _NAME, "a long name"))
                    name, link = (body, link) if kind == b"L" else (name, body)
                elif kind in b"xgX":
                    told = dict(records(self._body(size, _RECORDS, "PAX records")))
                    (self._globals if kind == b"g" else extra).update(told)
                    if kind == b"g":
                        extra = {**self._globals, **extra}
                else:
                    return self._member(block, name, link, extra)
            except ValueError as error:
                raise TarDamaged(start, f"a header that makes no sense ({error})") from None

    def _block(self) -> bytes:
        """Give the next block; empty where the stream ends before it, as some programs leave the mark of the end out."""
        block = self._read(BLOCK)
        self.offset += len(block)
        if block and len(block) < BLOCK:
            block += self._take(BLOCK - len(block), "a header")
        return block

    def _end(self, start: int) -> None:
        block = self._read(BLOCK)
        self.offset += len(block)
        if any(block):
            raise TarDamaged(start, "zeros between members")
        self.ended = len(block) == BLOCK

    def _member(self, block: bytes, name: bytes, link: bytes, extra: dict[str, bytes]) -> Entry:
        kind = _KINDS.get(block[156:157])
        if kind is None:
            raise ValueError(f"type {block[156:157]!r}")
        size = _decimal(extra, "size")
        if size is None:
            size = number(block[124:136])
        if size < 0 or size >> 60:
            raise ValueError(f"a size of {size}")
        ustar = block[257:262] == b"ustar"
        if not name:
            prefix = _cut(block[345:500]) if block[257:263] == b"ustar\0" else b""
            name = _cut(block[:100])
            name = prefix + b"/" + name if prefix else name
        name = extra.get("path") or name
        link = extra.get("linkpath") or link or _cut(block[157:257])
        if kind == "f" and name.endswith(b"/"):
            kind = "d"
        stored = size if block[156] in _HAS_CONTENT and kind == "f" else 0
        real, sparse = self._sparse(block, extra, stored)
        name = extra.get("GNU.sparse.name") or name
        self._left, self._padding = stored, -stored % BLOCK
        return Entry(
            _text(name),
            kind,
            number(block[100:108]) & 0o7777,
            _owner(extra, "uid", block[108:116]),
            _owner(extra, "gid", block[116:124]),
            stored,
            real,
            _text(link),
            (number(block[329:337]), number(block[337:345])) if ustar and kind in "cb" else (0, 0),
            {key[13:]: value for key, value in extra.items() if key.startswith("SCHILY.xattr.")},
            _when(extra, block),
            sparse,
        )

    def _sparse(self, block: bytes, extra: dict[str, bytes], stored: int) -> tuple[int, bool]:
        """Give how long the file is, and whether it is stored with holes left out."""
        if block[156:157] == b"S":
            more = block[482:483] != b"\0"
            blocks = 0
            while more:
                blocks += 1
                if blocks > _SPARSE_MORE:
                    raise ValueError("a sparse file of very many pieces")
                more = self._take(BLOCK, "a sparse header")[504:505] != b"\0"
            return number(block[483:495]), True
        for key in ("GNU.sparse.realsize", "GNU.sparse.size"):
            size = _decimal(extra, key)
            if size is not None:
                return size, True
        return stored, False


def _decimal(extra: dict[str, bytes], key: str) -> int | None:
    value = extra.get(key)
    return int(value) if value else None


def _owner(extra: dict[str, bytes], key: str, field: bytes) -> int:
    told = _decimal(extra, key)
    return number(field) if told is None else told


def _when(extra: dict[str, bytes], block: bytes) -> float:
    told = extra.get("mtime")
    return float(told) if told else float(number(block[136:148]))
