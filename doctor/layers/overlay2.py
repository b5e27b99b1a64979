"""One layer of the overlay2 driver against its tar-split: every file once, in the order of the archive.

In one pass the archive is put together again and hashed (the diffID), each file's CRC-64 is compared with the recorded
one, so that a damaged file is named without a second pass, and its metadata with the header that stands in the segment
before it. Files that nothing recorded show in the number of names of a directory: only where that is off, names are
compared. Memory is that of a piece of file, of the open directories, and of a counter for each directory.

What is changed while it is read is no damage: it is `in use`. Source: tar-split `tar/asm`, moby `layer/layer_store.go`,
`pkg/archive` (Unpack, overlayWhiteoutConverter), `daemon/graphdriver/overlay2`.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING

from doctor.layers import added, tarsplit
from doctor.layers.compare import CAPABILITY, differences, mapped, recorded_mode, shown_name
from doctor.layers.crc64 import FAST, crc64
from doctor.layers.folders import FILE, PIECE, Folders, pieces
from doctor.layers.hiding import GONE, OPAQUE, OPAQUES, WHITEOUT, Hiding
from doctor.layers.tally import Tally
from doctor.layers.tarstream import BLOCK, Entry, TarDamaged, TarStream, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.layers.model import Checked, Teller, Work
    from doctor.layers.tarsplit import Part

_SMALL = 1 << 16
"""Bytes of a file up to which it is read as a whole and hashed together with its neighbours."""
_LARGE = 16 << 20
"""Bytes of a file from which on its checksum is computed only where the digest is wrong: it would cost a tenth."""
_HEAD = 4 << 20
_REGULAR, _OLD, _DIRECTORY, _GLOBAL = ord("0"), 0, ord("5"), ord("g")
_MATTER = {CAPABILITY, *OPAQUES}


def verify(work: Work, teller: Teller) -> Checked:
    """Verify one layer. `work.root` is its `diff`, `work.record` its tar-split, `work.lowers` the `diff`s below it.

    Raises OSError for a tar-split that cannot be opened.
    """
    began = time.monotonic()
    about = os.lstat(work.record)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(0, "not a regular file", work.record)
    handle = os.open(work.record, FILE)
    try:
        with Folders(work.root) as folders:
            one = _Layer(work, teller, folders, handle)
            found = one.run()
    finally:
        os.close(handle)
    return one.tally.checked(found, time.monotonic() - began, gone=_replaced(work.record, about))


def _replaced(path: str, before: os.stat_result) -> bool:
    try:
        after = os.lstat(path)
    except OSError:
        return True
    return (after.st_ino, after.st_size, after.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns)


def _plain(name: str) -> str:
    """Give a recorded name as a path below the root, empty for the root: no name leads out of it."""
    name = name.removeprefix("./").strip("/")
    if "//" in name or "./" in name or name in {"", ".", ".."} or name.endswith(("/.", "/..")):
        return posixpath.normpath("/" + name)[1:]
    return name


class _Layer:
    """The state of one pass."""

    def __init__(self, work: Work, teller: Teller, folders: Folders, handle: int) -> None:
        self.work = work
        self.teller = teller
        self.folders = folders
        self.handle = handle
        self.tally = Tally(work, teller)
        self.hash = sha256()
        self.counts: dict[str, int] = {"": 0}
        """Names that each directory should hold; the keys are all directories there should be."""
        self.uncertain: set[str] = set()
        """Directories of which names have to be compared."""
        self.hiding = Hiding(folders, work.lowers, self.tally)
        self.sizes = self.links = 0
        self.room = memoryview(bytearray(PIECE))
        self.known: dict[bytes, tuple[int, int, int]] = {}
        self.cut = self.sparse = self.ended = self.late = False

    def run(self) -> str:
        """Go through the layer; give its digest, empty where a file of it cannot be put back."""
        try:
            self._pass()
        except (tarsplit.RecordDamaged, TarDamaged) as damaged:
            why = damaged.why if isinstance(damaged, TarDamaged) else str(damaged)
            self.tally.record(self.work.record, why)
            return ""
        found = "" if self.cut or self.sparse or self.tally.unreadable else f"sha256:{self.hash.hexdigest()}"
        if (self.late or not FAST) and found != self.work.digest:
            self._checksums()
        self.hiding.tell(self._names)
        added.compare(self.counts, self.uncertain, self.folders, self.tally, self._names)
        self.tally.whole(found, self.work, ended=self.ended)
        self.tally.recorded_size(self.work, self.sizes, self.links)
        return found

    def _names(self) -> Iterator[str]:
        """Give every recorded name once more."""
        os.lseek(self.handle, 0, os.SEEK_SET)
        for part in tarsplit.parts(self.handle):
            if part.type == tarsplit.ENTRY:
                yield _plain(_name(part))

    def _checksums(self) -> None:
        """Compare checksums in a pass of their own: of large files, or without a fast way, only a wrong digest is worth it."""
        os.lseek(self.handle, 0, os.SEEK_SET)
        head, last = b"", 0
        for part in tarsplit.parts(self.handle):
            if part.type == tarsplit.SEGMENT:
                head = (head + (part.payload or b""))[:_HEAD]
                continue
            skip, last = -last & 511, part.size
            name = _plain(_name(part))
            if (part.size > _LARGE or (part.size and not FAST)) and self.tally.has_content(name):
                self._checksum(name, part, self._entry(head, skip))
            head = b""

    def _checksum(self, name: str, part: Part, entry: Entry) -> None:
        wanted, crc = int.from_bytes(part.payload or b"", "big"), 0
        folder, _, base = name.rpartition("/")
        try:
            handle = os.open(base, FILE, dir_fd=self.folders.enter(folder))
        except OSError as error:
            self.tally.unread(name, error)
            return
        try:
            for piece in pieces(handle, part.size):
                crc = crc64(piece, crc)
            if crc != wanted:
                touched = int(entry.mtime) != int(os.fstat(handle).st_mtime)
                self.tally.content(name, (wanted, crc), (handle, part.size), recorded_mode(entry), touched=touched)
        except OSError as error:
            self.tally.unread(name, error)
        finally:
            os.close(handle)

    # The pass

    def _pass(self) -> None:  # noqa: C901, PLR0912, PLR0915 - a million files go through this loop: a call costs each
        update, tell = self.hash.update, self.teller.read
        counts, known, enter = self.counts, self.known, self.folders.enter
        held = bytearray()
        head = b""
        last = unread = files = fits = 0
        current, folder = "", self.folders.root
        for part in tarsplit.parts(self.handle):
            if part.type == tarsplit.SEGMENT:
                payload = part.payload or b""
                held += payload
                head = head + payload if head else payload
                if len(head) > _HEAD or len(held) > PIECE:
                    update(held)
                    held.clear()
                    head = head[:_HEAD]
                continue
            files += 1
            skip = -last & 511
            size = last = part.size
            name = _plain(_name(part))
            flag = head[skip + 156] if len(head) == skip + BLOCK else -1
            if flag in {_REGULAR, _OLD}:
                key = head[skip + 100 : skip + 124]
                about = known.get(key) or self._about(key)
                parent, _, base = name.rpartition("/")
                if parent != current or not parent:
                    if parent not in counts:
                        self._directory(parent)
                    try:
                        folder = enter(parent)
                    except OSError as error:
                        head = self._absent(part, name, head, skip, error)
                        current = "\0"
                        continue
                    current = parent
                if not base.startswith(WHITEOUT):
                    counts[parent] += 1
                    self.sizes += size
                    data = self._small(folder, base, size, about, part) if size <= _SMALL else None
                    if data is None:
                        update(held)
                        held.clear()
                        self._file(name, part, self._entry(head, skip))
                        current = "\0"
                    else:
                        fits += 1
                        held += data
                        if len(held) > PIECE:
                            update(held)
                            held.clear()
                    unread += size
                    if unread > PIECE:
                        tell(unread)
                        unread = 0
                    head = b""
                    continue
            current = "\0"
            if flag == _DIRECTORY and name and self._folder(name, head[skip + 100 : skip + 124]):
                fits += 1
                head = b""
                continue
            if flag != _GLOBAL:
                update(held)
                held.clear()
                self._other(name, part, self._entry(head, skip))
                tell(size)
            head = b""
        update(held)
        tell(unread)
        self.tally.files = files
        self.tally.owned.right += fits
        self.ended = len(head) >= 2 * BLOCK and not any(head[-2 * BLOCK :])

    def _folder(self, name: str, key: bytes) -> bool:
        """Whether a directory is in every way as recorded; False for what has to be looked at again."""
        if WHITEOUT in name:
            return False
        mode, uid, gid = self.known.get(key) or self._about(key)
        try:
            handle = self.folders.enter(name)
            about = os.fstat(handle)
            if (about.st_mode & 0o7777, about.st_uid, about.st_gid) != (mode & 0o7777, uid, gid):
                return False
            if any(one in _MATTER for one in os.listxattr(handle)):
                return False
        except OSError:
            return False
        if name not in self.counts:
            self._directory(name)
        return True

    def _small(self, folder: int, base: str, size: int, about: tuple[int, int, int], part: Part) -> bytes | None:
        """Give the content of a file that is in every way as recorded; None for what has to be looked at again."""
        try:
            have = os.lstat(base, dir_fd=folder)
            if (have.st_mode, have.st_uid, have.st_gid) != about or have.st_size != size:
                return None
            handle = os.open(base, FILE, dir_fd=folder)
        except OSError:
            return None
        try:
            if CAPABILITY in os.listxattr(handle):
                return None
            data = os.read(handle, size) if size else b""
        except OSError:
            return None
        finally:
            os.close(handle)
        if len(data) != size or (FAST and size and crc64(data) != int.from_bytes(part.payload or b"", "big")):
            return None
        return data

    def _about(self, key: bytes) -> tuple[int, int, int]:
        try:
            uid, gid = number(key[8:16]), number(key[16:24])
            mode = number(key[:8]) & 0o7777
        except ValueError as error:
            raise tarsplit.RecordDamaged(f"a header that makes no sense ({error})") from None
        if len(self.known) > _SMALL:
            self.known.clear()
        about = (stat.S_IFREG | mode, mapped(uid, self.work.uids), mapped(gid, self.work.gids))
        self.known[key] = about
        return about

    def _directory(self, path: str) -> None:
        """Count a directory in the one above it, and those above likewise, once each."""
        while path and path not in self.counts:
            self.counts[path] = 0
            path = path.rpartition("/")[0]
            if path in self.counts:
                self.counts[path] += 1
                return
            # The one above is new as well: it holds this one.
            self._directory(path)
            self.counts[path] += 1
            return

    def _entry(self, head: bytes, skip: int) -> Entry:
        entry = TarStream(BytesIO(head[skip:]).read).next()
        if entry is None:
            raise tarsplit.RecordDamaged("a file without a header")
        return entry

    # Single files

    def _absent(self, part: Part, name: str, head: bytes, skip: int, error: OSError) -> bytes:
        """A file whose directory cannot be entered."""
        entry = self._entry(head, skip)
        self.counts[name.rpartition("/")[0]] += 1
        self._missing(name, entry, error)
        self._pad(part)
        return b""

    def _missing(self, name: str, entry: Entry, error: OSError) -> None:
        if error.errno in GONE:
            self.uncertain.add(name.rpartition("/")[0])
            self.tally.missing(name, recorded_mode(entry), self._parent_changed(name))
        else:
            self.tally.unread(name, error)

    def _parent_changed(self, name: str) -> float:
        try:
            return self.folders.look(name.rpartition("/")[0] or ".").st_ctime
        except OSError:
            return 0.0

    def _pad(self, part: Part) -> None:
        if part.size:
            self.cut = True
            self.teller.read(part.size)

    def _look(self, name: str, entry: Entry) -> tuple[os.stat_result, dict[str, bytes], str] | None:
        """Give what is on disk, None for what is not there or cannot be looked at, which is told."""
        try:
            about = self.folders.look(name)
            xattrs = self.folders.xattrs(name)
            link = ""
            if stat.S_ISLNK(about.st_mode):
                folder, _, base = name.rpartition("/")
                link = os.readlink(base, dir_fd=self.folders.enter(folder))
        except OSError as error:
            self._missing(name, entry, error)
            return None
        return about, xattrs, link

    def _compare(self, name: str, entry: Entry, about: os.stat_result, xattrs: dict[str, bytes], link: str) -> bool:
        """Tell what differs but for content; False when it is another type, and has none of that."""
        capability = entry.xattrs.get(CAPABILITY, b"")
        right = 1
        for kind, expected, found in differences(
            entry, about, xattrs, link, self.work.uids, self.work.gids, lambda one: self._errno(name, one)
        ):
            self.tally.differs(name, kind, expected, found, recorded_mode(entry), about, capability)
            if kind == "type":
                return False
            right -= kind == "owner"
        self.tally.owned.right += right
        return True

    def _errno(self, name: str, attribute: str) -> int:
        folder, _, base = name.rpartition("/")
        try:
            os.getxattr(f"/proc/self/fd/{self.folders.enter(folder)}/{base}", attribute, follow_symlinks=False)
        except OSError as error:
            return error.errno or 0
        return 0

    def _file(self, name: str, part: Part, entry: Entry) -> None:
        """A regular file, of any size, that is looked at in every way."""
        if entry.sparse:
            self.sparse = True
        held = self._look(name, entry)
        if held is None or not self._compare(name, entry, *held):
            self._pad(part)
            return
        about = held[0]
        if about.st_size != part.size:
            self.tally.size(name, part.size, about, recorded_mode(entry))
            self._pad(part)
            return
        if part.size:
            self._content(name, part, entry, about)

    def _content(self, name: str, part: Part, entry: Entry, about: os.stat_result) -> None:
        folder, _, base = name.rpartition("/")
        wanted = int.from_bytes(part.payload or b"", "big")
        try:
            handle = os.open(base, FILE, dir_fd=self.folders.enter(folder))
        except OSError as error:
            self._missing(name, entry, error)
            self._pad(part)
            return
        try:
            got, crc = self._read(handle, part.size)
            if got != part.size:
                self.tally.in_use(name)
                self.cut = True
            elif part.size > _LARGE:
                self.late = True
            elif FAST and crc != wanted:
                touched = int(entry.mtime) != int(about.st_mtime)
                self.tally.content(name, (wanted, crc), (handle, part.size), recorded_mode(entry), touched=touched)
        except OSError as error:
            self.tally.unread(name, error)
            self._pad(part)
        finally:
            os.close(handle)

    def _read(self, handle: int, size: int) -> tuple[int, int]:
        """Hash a file; give how many bytes there were, and their CRC-64."""
        update, tell, room = self.hash.update, self.teller.read, self.room
        at = crc = 0
        now = FAST and size <= _LARGE
        # One piece of memory for all: a new one of this size each time is mapped, and costs a tenth (measured).
        while at < size and (count := os.readv(handle, (room[: min(PIECE, size - at)],))):
            data = room[:count]
            update(data)
            if now:
                crc = crc64(data, crc)
            at += count
            tell(count)
        return at, crc

    def _other(self, name: str, part: Part, entry: Entry) -> None:
        """Anything that is no plain file: directories, links, devices, whiteouts, files with long names or attributes."""
        parent, _, base = name.rpartition("/")
        if base.startswith(WHITEOUT):
            self._whiteout(parent, base)
            return
        if name and (entry.kind == "d" or parent not in self.counts):
            self._directory(name if entry.kind == "d" else parent)
        if name and entry.kind != "d":
            self.counts[parent] += 1
        if entry.kind == "f":
            self.sizes += part.size
            self._file(name, part, entry)
            return
        if not name:
            return  # unpacking leaves the root as the driver made it (moby pkg/archive, Unpack), and no mount shows it
        held = self._look(name, entry)
        # What a hard link's own header says of rights is that of the file, which was compared.
        if held is None or (entry.kind != "h" and not self._compare(name, entry, *held)):
            return
        if entry.kind == "d" and any(one in held[1] for one in OPAQUES):
            self.hiding.opaque.add(name)
        if entry.kind == "l":
            self.links += len(held[2].encode("utf-8", "surrogateescape"))
        if entry.kind == "h":
            self._hard_link(name, _plain(entry.link), entry, held[0])

    def _hard_link(self, name: str, target: str, entry: Entry, about: os.stat_result) -> None:
        try:
            other = self.folders.look(target)
        except OSError:
            return  # that one is told as missing
        if (other.st_ino, other.st_dev) != (about.st_ino, about.st_dev):
            said = f"the same file as /{shown_name(target)}"
            self.tally.differs(name, "link target", said, "another file", recorded_mode(entry), about)

    def _whiteout(self, parent: str, base: str) -> None:
        if parent and parent not in self.counts:
            self._directory(parent)
        if base == OPAQUE:
            self.hiding.mark(parent)
            return
        self.counts[parent] += 1
        if not self.hiding.whiteout(f"{parent}/{base[4:]}" if parent else base[4:]):
            self.uncertain.add(parent)


def _name(part: Part) -> str:
    return os.fsdecode(part.name_raw) if part.name_raw else part.name
