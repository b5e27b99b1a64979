"""What is in an archive of images: every member once, hashed as it is and as it is unpacked, and looked into.

A tar is read from its beginning to its end, plain or compressed, a directory file by file. Nothing is written anywhere,
and nothing is kept but small documents, digests and what is wrong.
"""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.layers import manifests
from doctor.layers.compressed import CannotUnpack, NoDecompressor, Unpacked
from doctor.layers.folders import Folders
from doctor.layers.tarstream import BLOCK, TarDamaged, TarStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.layers.model import Teller

MEMBERS = 100_000
"""Members of an archive at most: an image has a hundred layers, an archive a few hundred images."""
_DOCUMENTS = 64 << 20
_STRANGE = 20


class Member(Struct):
    """One member: `digest` is of its bytes, `inner` of what they unpack to (the same where they are not compressed).

    `fault` says why it cannot be unpacked, `strange` which names in it lead out, `unread` why nothing can be said of what
    is in it. `document` are the bytes of one that may be a manifest.
    """

    name: str
    kind: str
    size: int = 0
    link: str = ""
    digest: str = ""
    inner: str = ""
    compression: str = ""
    is_tar: bool = False
    document: bytes = b""
    fault: str = ""
    strange: list[str] = []
    unread: str = ""
    twice: bool = False


class Contents(Struct):
    """All members by their path, and what is wrong with the archive as a whole."""

    members: dict[str, Member]
    fault: str = ""
    offset: int = -1
    strange: list[str] = []
    kept: int = 0
    compression: str = ""


def climbs(name: str) -> bool:
    """Say whether a path leads above where it starts.

    >>> climbs("a/../b"), climbs("a/../../b"), climbs("/etc")
    (False, True, False)
    """
    depth = 0
    for part in name.split("/"):
        if part == "..":
            depth -= 1
        elif part not in {"", "."}:
            depth += 1
        if depth < 0:
            return True
    return False


def leads_out(name: str, kind: str, link: str, links: dict[str, str]) -> str:
    """Say how a member leads out of the directory that it is unpacked in; empty when it does not.

    Links that lead anywhere are allowed in a layer, they count inside the container; what is written through one that
    an earlier member made is not.
    """
    if climbs(name):
        return f"{name} leads out"
    if kind == "h" and climbs(link):
        return f"{name} is a hard link to {link}, which leads out"
    if links:
        parts = name.strip("/").split("/")
        for at in range(1, len(parts)):
            target = links.get("/".join(parts[:at]))
            if target is not None and climbs("/".join((*parts[: at - 1], target))):
                return f"{name} would be written through the link {'/'.join(parts[:at])} to {target}"
    return ""


def _look_into(source: Unpacked, member: Member) -> None:
    """Go through a layer: whether it is a tar, and whether everything in it stays inside."""
    stream = TarStream(source.read)
    links: dict[str, str] = {}
    at = ""
    try:
        while (entry := stream.next()) is not None:
            member.is_tar = True
            at = entry.name
            how = leads_out(entry.name, entry.kind, entry.link, links)
            if how and len(member.strange) < _STRANGE:
                member.strange.append(how)
            if entry.kind == "l":
                links[entry.name.strip("/")] = entry.link
        member.is_tar = member.is_tar or stream.ended
    except TarDamaged as error:
        if stream.offset <= 2 * BLOCK and not member.is_tar:
            member.fault = "no tar archive"
        else:
            member.fault = f"{error}" + (f", in {at}" if at else "")
    source.finish()


class _Counted:
    """The bytes of one member as they come, told as they are read, with their first kept while they are a document."""

    def __init__(self, read: Callable[[int], bytes], teller: Teller) -> None:
        self._read, self._teller = read, teller
        self.size = 0

    def read(self, count: int) -> bytes:
        data = self._read(count)
        self.size += len(data)
        self._teller.read(len(data))
        return data


def _take(member: Member, read: Callable[[int], bytes], contents: Contents, teller: Teller) -> None:
    """Read one member to its end."""
    counted = _Counted(read, teller)
    start = counted.read(1 << 16)
    if start[:1] in b"{[" and start:
        _document(member, start, counted, contents)
        return
    rest = [start]

    def again(count: int) -> bytes:
        return rest.pop() if rest else counted.read(count)

    try:
        source = Unpacked(again)
    except NoDecompressor as error:
        member.unread = str(error)
        total = sha256(start)
        while data := counted.read(1 << 18):
            total.update(data)
        member.size, member.digest = counted.size, f"sha256:{total.hexdigest()}"
        return
    member.compression = source.kind
    try:
        _look_into(source, member)
    except CannotUnpack as error:
        member.fault = str(error)
        source.finish_input()
    member.size = counted.size
    member.digest, member.inner = f"sha256:{source.packed.hexdigest()}", f"sha256:{source.digest.hexdigest()}"


def _document(member: Member, start: bytes, counted: _Counted, contents: Contents) -> None:
    total, kept = sha256(start), [start]
    while data := counted.read(1 << 18):
        total.update(data)
        if counted.size <= manifests.LARGEST:
            kept.append(data)
    member.size = counted.size
    member.digest = member.inner = f"sha256:{total.hexdigest()}"
    if counted.size <= manifests.LARGEST and contents.kept + counted.size <= _DOCUMENTS:
        member.document = b"".join(kept)
        contents.kept += counted.size
    else:
        member.unread = f"a document of {counted.size:,} bytes"


def _add(contents: Contents, member: Member) -> None:
    before = contents.members.get(member.name)
    if before is not None and (before.digest, before.kind, before.link) != (member.digest, member.kind, member.link):
        member.twice = True
    contents.members[member.name] = member


class _Ends(Exception):  # noqa: N818 - what the archive is, not an error of ours
    """The archive itself ends or breaks within a member."""

    def __init__(self, why: TarDamaged | CannotUnpack) -> None:
        super().__init__(str(why))
        self.why = why


def _content(stream: TarStream) -> Callable[[int], bytes]:
    """Give what reads the present member; that the archive breaks is no fault of the layer in it."""

    def read(count: int) -> bytes:
        try:
            return stream.content(count)
        except (TarDamaged, CannotUnpack) as error:
            raise _Ends(error) from None

    return read


def of_tar(path: str, teller: Teller) -> Contents:
    """Read a tar, compressed or not. Raises OSError, and NoDecompressor for a whole that nothing here unpacks."""
    contents = Contents({})
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        source = Unpacked(lambda count: os.read(descriptor, count))
        contents.compression = source.kind
        _members(TarStream(source.read), contents, teller)
        source.finish()
    except TarDamaged as error:
        contents.fault, contents.offset = error.why, error.offset
    except _Ends as error:
        contents.fault = str(error)
        contents.offset = error.why.offset if isinstance(error.why, TarDamaged) else -1
    except CannotUnpack as error:
        contents.fault = str(error)
    finally:
        os.close(descriptor)
    return contents


def _members(stream: TarStream, contents: Contents, teller: Teller) -> None:
    links: dict[str, str] = {}
    while (entry := stream.next()) is not None:
        if len(contents.members) >= MEMBERS:
            contents.fault = f"it has more than {MEMBERS:,} members"
            return
        name = entry.name.removeprefix("./").rstrip("/")
        how = leads_out(entry.name, entry.kind, entry.link, links)
        if not how and entry.kind == "l" and (entry.link.startswith("/") or climbs(f"{name}/../{entry.link}")):
            how = f"{entry.name} is a link to {entry.link}, which leads out"
        if how:
            if len(contents.strange) < _STRANGE:
                contents.strange.append(how)
            continue
        member = Member(name, entry.kind, entry.size, entry.link)
        if entry.kind == "l":
            links[name] = entry.link
        if entry.kind == "f":
            _take(member, _content(stream), contents, teller)
        if entry.kind != "d":
            _add(contents, member)


def of_folder(path: str, teller: Teller) -> Contents:
    """Read an OCI layout that is a directory. Raises OSError."""
    contents = Contents({})
    with Folders(path) as tree:
        for name, entry in _of_interest(tree):
            if isinstance(entry, OSError):
                raise entry
            member = Member(name, "f")
            try:
                descriptor = tree.open(name)
            except OSError as error:
                member.unread = (error.strerror or str(error)).lower()
                _add(contents, member)
                continue
            try:
                _take(member, lambda count, opened=descriptor: os.read(opened, count), contents, teller)  # type: ignore[misc]
            except OSError as error:
                member.unread = (error.strerror or str(error)).lower()
            finally:
                os.close(descriptor)
            _add(contents, member)
    return contents


def _of_interest(tree: Folders) -> Iterator[tuple[str, object]]:
    for name in ("oci-layout", "index.json", "manifest.json"):
        try:
            tree.look(name)
        except FileNotFoundError:
            continue
        yield name, None
    for name, entry in tree.walk():
        if isinstance(entry, OSError) or (name.startswith("blobs/") and not entry.is_dir(follow_symlinks=False)):
            yield name, entry
