"""The archive: headers of ustar, and the bytes behind gzip, never more of them than a bundle may have.

Sources: POSIX pax(1), "ustar Interchange Format"; tar(5); RFC 1952.
"""

from __future__ import annotations

import os
import zlib

from doctor.bundle.manifest import BundleError, leads_out, printable

TOTAL = 256 << 20
"""Bytes of an unpacked bundle, at most; a file that is larger before it is unpacked is none either."""

BLOCK = 512
ZERO = bytes(BLOCK)
_READ = 1 << 14
"""Bytes of the file in one turn. Where gzip is damaged, a turn is repeated byte by byte to get what comes before."""
_UNPACK = 1 << 18
"""Bytes that one turn may unpack: what a bomb gets beyond the limits."""


class Cut(Exception):  # noqa: N818 - the end of what can be read, not an error yet
    """The file ends early, or cannot be unpacked any further: what happened, and where."""


def reason(error: OSError | ValueError) -> str:
    """Say why a file cannot be had; a path can also be none at all (a NUL in it)."""
    return os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "no file can have this name"


def header_of(name: str, size: int, when: int) -> bytes:
    """Print the ustar header of a plain file: mode 0600, owner 0, no names of owners."""
    head = bytearray(BLOCK)
    head[0 : len(name)] = name.encode()
    head[100:108] = b"0000600\0"
    head[108:116] = head[116:124] = b"0000000\0"
    head[124:136] = b"%011o\0" % size
    head[136:148] = b"%011o\0" % min(max(when, 0), (1 << 33) - 1)
    head[148:156] = b" " * 8
    head[156:157] = b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def _octal(field: bytes) -> int:
    """Read a number of a header, -1 for what is none (GNU's binary numbers are none, nor is what Python takes)."""
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else -1


def checked(header: bytes) -> bool:
    """Whether a header has its checksum, which is counted with spaces in its place."""
    return _octal(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def parse(header: bytes) -> tuple[str, bytes, int]:
    """Give name, type and size of a header. Raises BundleError for a name that leads out."""
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    text = name.decode("utf-8", "backslashreplace")
    if leads_out(text):
        raise BundleError(f"refused: member {printable(text)} leads out of the bundle. Nothing was written")
    return text, header[156:157], _octal(header[124:136])


_TYPES = {
    b"1": "a hard link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a FIFO",
    b"S": "a sparse file",
}


def plain(shown: str, kind: bytes, size: int, most: int) -> None:
    """Raise BundleError for a member that is no plain file of a size that can be."""
    if kind not in {b"0", b"\0"}:
        what = _TYPES.get(kind, f"of type {printable(kind.decode('latin-1'))}")
        raise BundleError(f"refused: member {shown} is {what}, not a plain file. Nothing was written")
    if size < 0:
        raise BundleError(f"refused: the size of member {shown} is no number")
    if size > most:
        raise BundleError(f"refused: member {shown} is larger than {most >> 20} MiB")


class Stream:
    """The unpacked bytes of a file, never more of them than asked for plus one turn."""

    def __init__(self, handle: int) -> None:
        """Read the first bytes, which say whether it is packed. Raises BundleError, as every method does."""
        self.handle = handle
        self.size = 0
        """Bytes read from the file."""
        self.start = b""
        while len(self.start) < 8 and (more := self._file()):  # noqa: PLR2004 - a pipe may give a byte at a time
            self.start += more
        self.unpacker = zlib.decompressobj(31) if self.start.startswith(b"\x1f\x8b") else None
        self.packed = self.start
        self.damage = ""
        self.chunk = b""
        self.place = 0
        self.given = 0
        """Bytes unpacked."""

    def _file(self) -> bytes:
        """Read some of the file, nothing at its end."""
        while True:
            try:
                data = os.read(self.handle, _READ)
            except BlockingIOError:  # a standard input that somebody made so
                import select

                select.select([self.handle], [], [])
                continue
            except OSError as error:
                raise BundleError(f"cannot read: {reason(error)}") from None
            self.size += len(data)
            if self.size > TOTAL:
                raise BundleError(f"refused: it is larger than {TOTAL >> 20} MiB")
            return data

    def _more(self) -> bytes:
        """Unpack some more, nothing at the end. Raises Cut where gzip ends early or is damaged."""
        if self.unpacker is None:
            data, self.packed = self.packed or self._file(), b""
        else:
            data = self._inflate(self.unpacker)
        self.given += len(data)
        if self.given > TOTAL:
            raise BundleError(f"refused: it unpacks to more than {TOTAL >> 20} MiB")
        return data

    def _inflate(self, unpacker: zlib._Decompress) -> bytes:
        if self.damage:
            raise Cut(self.damage)
        while not unpacker.eof:
            self.packed = self.packed or self._file()
            if not self.packed:
                raise Cut(f"truncated after {self.size:,} bytes (gzip ends early)")
            before = unpacker.copy()
            try:
                data = unpacker.decompress(self.packed, _UNPACK)
            except zlib.error:
                return self._salvage(before)
            self.packed = unpacker.unconsumed_tail
            if data:
                return data
        rest = unpacker.unused_data or self._file()
        while rest:
            if rest.count(0) != len(rest):
                raise BundleError("refused: data follows the end of gzip")
            rest = self._file()
        return b""

    def _salvage(self, unpacker: zlib._Decompress) -> bytes:
        """Unpack what comes before the damage, byte by byte; the next turn says where it is."""
        out = []
        begin = self.size - len(self.packed)
        for place in range(len(self.packed)):
            try:
                out.append(unpacker.decompress(self.packed[place : place + 1]))
            except zlib.error:
                begin += place
                break
        self.damage = f"damaged at byte {begin:,} (gzip cannot be unpacked)"
        data = b"".join(out)
        if not data:
            raise Cut(self.damage)
        return data

    def take(self, count: int) -> bytes:
        """Give exactly so many bytes. Raises Cut, and BundleError for more than a bundle may hold."""
        end = self.place + count
        if end <= len(self.chunk):
            data = self.chunk[self.place : end]
            self.place = end
            return data
        parts = [self.chunk[self.place :]]
        missing = count - len(parts[0])
        self.chunk, self.place = b"", 0
        while missing:
            self.chunk = self._more()
            if not self.chunk:
                raise Cut(f"truncated after {self.size:,} bytes (the archive ends early)")
            parts.append(self.chunk[:missing])
            self.place = len(parts[-1])
            missing -= self.place
        return b"".join(parts)

    def end(self) -> None:
        """Read to the end, where gzip's own checksum is: behind the archive there are zeros and nothing else."""
        rest = self.chunk[self.place :]
        while True:
            if rest.count(0) != len(rest):
                raise BundleError("refused: data follows the end of the archive")
            rest = self._more()
            if not rest:
                return
