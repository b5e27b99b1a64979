"""A layer as a tar stream against the directory that it was unpacked to, file by file and byte by byte.

What the directory should hold is what containerd and containers-storage make of the stream: later members replace
earlier ones, `.wh.NAME` is a device 0/0 named NAME, `.wh..wh..opq` the attribute `overlay.opaque` of its directory, and
directories that no member names stand above those that do. Source: containerd `pkg/archive/tar.go` (applyNaive),
`tar_opts_linux.go` (OverlayConvertWhiteout), OCI image-spec layer.md.

Nothing is told before the whole stream was read: a member may be replaced by a later one, and differences from a stream
that is damaged itself would be no differences of the directory.
"""

from __future__ import annotations

import base64
import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.layers import patterns
from doctor.layers.bytewise import Bytewise
from doctor.layers.compare import CAPABILITY, differences
from doctor.layers.folders import xattrs_of
from doctor.layers.model import Damage, shown
from doctor.layers.shifted import Owned

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from doctor.layers.folders import Folders
    from doctor.layers.model import Cause, Kind, Owners, Teller
    from doctor.layers.tarstream import Entry, TarStream

    class _More(TypedDict, total=False):
        detail: str
        cause: Cause
        offset: int
        mode: int
        changed: float
        capability: str


_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_ORIGIN = ("trusted.overlay.origin", "user.overlay.origin")
_HOPS = 20
SETTLED = 2.0
"""Seconds since its last change after which a file is taken to be as somebody left it: before, it may be half written."""
_KINDS = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "c": stat.S_IFCHR,
    "b": stat.S_IFBLK,
    "p": stat.S_IFIFO,
}
_NAMES = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


class Changed(Exception):  # noqa: N818 - what happened to the file, not an error of ours
    """A file was written while it was read."""


def cleaned(name: str) -> str:
    """Give the path of a member as it is unpacked: no `.`, no `..` above the root, no slash at either end.

    >>> cleaned("./a//b/"), cleaned("../../a/../b"), cleaned("/")
    ('a/b', 'b', '')
    """
    if "/." not in name and "//" not in name and not name.startswith((".", "/")):
        return name.rstrip("/")
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def absolute(path: str) -> str:
    """Give a path below the tree as it is called in the image."""
    return "/" + shown(os.fsencode(path))


class Comparison:
    """One stream against one tree. Feed it every member (`member`), then ask for what differs (`tell`)."""

    def __init__(self, layer: str, tree: Folders, uids: Owners = (), gids: Owners = ()) -> None:
        """Begin with nothing seen."""
        self.layer, self.tree, self.uids, self.gids = layer, tree, uids, gids
        self.damages: dict[str, list[Damage]] = {}
        self.unread: dict[str, str] = {}
        self.seen: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.opaque: set[str] = set()
        self.at = ""
        """What the stream calls the member that is compared."""
        self.bytes = 0
        self.began = time.time()

    # Each member

    def member(self, entry: Entry, stream: TarStream, teller: Teller) -> None:
        """Compare one member with what stands in its place."""
        path = self._placed(cleaned(entry.name))
        if not path:
            return  # the root is the snapshotter's own
        self.at = entry.name
        above, _, base = path.rpartition("/")
        if base == _OPAQUE:
            self.opaque.add(above)
            return
        if base.startswith(_WHITEOUT):
            hidden = f"{above}/{base[4:]}" if above else base[4:]
            self._begin(hidden, "w", entry)
            self._guard(hidden, self._whiteout, hidden)
            return
        self._begin(path, entry.kind, entry)
        if entry.kind == "l":
            self.links[path] = entry.link
        if entry.kind == "h":
            self._guard(path, self._hard_link, path, entry)
        else:
            self._guard(path, self._compare, path, entry, stream, teller)

    def _begin(self, path: str, kind: str, entry: Entry) -> None:  # noqa: ARG002 - one shape for all members
        """Forget what an earlier member left in this place: this one replaces it, directories are merged."""
        before = self.seen.get(path)
        if before is not None:
            self.damages.pop(path, None)
            self.unread.pop(path, None)
            self.links.pop(path, None)
            if before == "d" and kind != "d":
                inside = path + "/"
                for held in (self.damages, self.unread, self.seen, self.links):
                    for name in [one for one in held if one.startswith(inside)]:
                        del held[name]
        self.seen[path] = kind

    def _placed(self, path: str) -> str:
        """Follow links that earlier members of this layer made in the place of directories, as unpacking does."""
        if not self.links:
            return path
        for _ in range(_HOPS):
            parts = path.split("/")
            for at in range(1, len(parts)):
                target = self.links.get("/".join(parts[:at]))
                if target is not None:
                    base = "" if target.startswith("/") else "/".join(parts[: at - 1])
                    path = cleaned("/".join((base, target, *parts[at:])))
                    break
            else:
                return path
        return path

    def _guard(self, path: str, compare: object, *given: object) -> None:
        """Compare, and keep why that could not be done: missing is a damage, everything else is not known."""
        try:
            compare(*given)  # type: ignore[operator]
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                self._lost(path)
            else:
                self.unread[path] = (error.strerror or str(error)).lower()
        except Changed:
            self.unread[path] = "in use"

    def _lost(self, path: str) -> None:
        if self.seen.get(path) == "w":
            self._damage(path, "whiteout lost", found="is not there", cause="copied")
        else:
            self._damage(path, "missing", found="is not there")

    def _damage(
        self, path: str, kind: Kind, expected: str = "", found: str = "", about: int = 0, **more: Unpack[_More]
    ) -> None:
        name = os.fsencode(path)
        raw = ""
        try:
            name.decode()
        except UnicodeDecodeError:
            raw = base64.b64encode(name).decode()
        member = "" if raw else self.at
        one = Damage(self.layer, absolute(path), kind, expected, found, raw=raw, member=member, **more)
        if patterns.grave(kind, path, one.mode, one.mode if kind == "added" else about):
            one = replace(one, grave=True)
        self.damages.setdefault(path, []).append(one)

    def _whiteout(self, path: str) -> None:
        about = self.tree.look(path)
        if not stat.S_ISCHR(about.st_mode) or about.st_rdev:
            found = _NAMES.get(stat.S_IFMT(about.st_mode), "something else")
            self._damage(
                path, "whiteout lost", "deleted from the layers below", found, changed=about.st_ctime, cause="copied"
            )

    def _hard_link(self, path: str, entry: Entry) -> None:
        target = self._placed(cleaned(entry.link))
        about, other = self.tree.look(path), self.tree.look(target)
        if (about.st_ino, about.st_dev) == (other.st_ino, other.st_dev):
            return
        same = self._equal(path, about, target, other)
        found = "a file of its own with the same bytes" if same else "another file"
        self._damage(path, "link target", f"the same file as {absolute(target)}", found, changed=about.st_ctime)

    def _equal(self, path: str, about: os.stat_result, target: str, other: os.stat_result) -> bool:
        if about.st_size != other.st_size or not (stat.S_ISREG(about.st_mode) and stat.S_ISREG(other.st_mode)):
            return False
        with os.fdopen(self.tree.open(path), "rb", 0) as one, os.fdopen(self.tree.open(target), "rb", 0) as two:
            while data := one.read(1 << 18):
                if data != two.read(1 << 18):
                    return False
        return True

    def _compare(self, path: str, entry: Entry, stream: TarStream, teller: Teller) -> None:
        about = self.tree.look(path)
        wanted = _KINDS[entry.kind]
        mode = wanted | entry.mode
        if stat.S_IFMT(about.st_mode) != wanted:
            found = _NAMES.get(stat.S_IFMT(about.st_mode), "something else")
            self._damage(path, "type", _NAMES[wanted], found, mode=mode, changed=about.st_ctime)
            return
        link = self.tree.target(path) if entry.kind == "l" else ""
        capability = entry.xattrs.get(CAPABILITY, b"").hex()
        for kind, expected, found in differences(entry, about, self.tree.held_xattrs(path), link, self.uids, self.gids):
            self._damage(
                path,
                kind,
                expected,
                found,
                about.st_mode,
                mode=mode,
                changed=about.st_ctime,
                cause=patterns.rights(kind, found, mode, about.st_mode),
                capability=capability if kind == "owner" else "",
            )
        if entry.kind == "f":
            self._content(path, entry, about, stream, teller)

    def _content(self, path: str, entry: Entry, about: os.stat_result, stream: TarStream, teller: Teller) -> None:
        if entry.sparse:
            if about.st_size != entry.real:
                self._damage(path, "size", f"{entry.real:,} bytes", f"{about.st_size:,} bytes", changed=about.st_ctime)
            return
        compared = Bytewise()
        descriptor = self.tree.open(path)
        try:
            while piece := stream.chunk():
                found = _exactly(descriptor, len(piece))
                self.bytes += len(piece)
                teller.read(2 * len(piece))
                compared.feed(piece, found)
            if about.st_size > entry.size and compared.size_found == compared.size:
                compared.size_found = about.st_size
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if (after.st_ctime_ns, after.st_size) != (about.st_ctime_ns, about.st_size):
            raise Changed
        if compared:
            detail, cause = compared.pattern()
            size = compared.size != compared.size_found
            self._damage(
                path,
                "size" if size else "content",
                f"{entry.size:,} bytes" if size else "",
                f"{about.st_size:,} bytes" if size else "other bytes",
                detail=detail,
                cause=cause,
                offset=compared.offset,
                mode=stat.S_IFREG | entry.mode,
                changed=about.st_ctime,
            )

    # All of them

    def finish(self) -> None:
        """Look at what needs the whole stream: opaque directories, and what is there beside it."""
        self.at = ""
        for path in self.opaque:
            try:
                held = self.tree.held_xattrs(path) if path else xattrs_of(self.tree.root)
            except OSError as error:
                if self.seen.get(path) != "d" or error.errno != errno.ENOENT:
                    self.unread.setdefault(path, (error.strerror or str(error)).lower())
                continue
            if not any(held.get(name) == b"y" for name in OPAQUE):
                changed = self.tree.look(path).st_ctime
                said = ("hides the directory below", "shows what is in it")
                self._damage(path, "opaque lost", *said, changed=changed, cause="copied")
        self._added()

    def _added(self) -> None:
        """Find what no member made. Directories above members are made when they are missing."""
        above = set(self.opaque)
        for path in self.seen:
            folder = path.rpartition("/")[0]
            while folder and folder not in above:
                above.add(folder)
                folder = folder.rpartition("/")[0]
        for path, entry in self.tree.walk():
            if isinstance(entry, OSError):
                self.unread[path] = (entry.strerror or str(entry)).lower()
                continue
            if path in self.seen:
                continue
            try:
                about = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(about.st_mode) and (path in above or self._copied_up(path)):
                    continue
            except FileNotFoundError:
                continue
            kind = _NAMES.get(stat.S_IFMT(about.st_mode), "something else")
            found = f"{kind}, {stat.filemode(about.st_mode)}, {about.st_size:,} bytes"
            planted = stat.S_ISREG(about.st_mode) and bool(about.st_mode & (stat.S_ISUID | stat.S_ISGID | 0o111))
            self._damage(
                path,
                "added",
                "",
                found,
                cause="planted" if planted else "",
                mode=about.st_mode,
                changed=about.st_ctime,
            )

    def _copied_up(self, path: str) -> bool:
        """Whether overlayfs made a directory to hold what is in it: where a layer was built, the stream leaves it out."""
        held = self.tree.held_xattrs(path)
        return any(name in held for name in _ORIGIN)

    def _moved(self, path: str, damages: list[Damage]) -> bool:
        """Whether what differs has changed since, or changed just before: it is being written, or made."""
        lately = self.began - SETTLED
        try:
            now = self.tree.look(path).st_ctime
        except OSError:
            return any(one.changed for one in damages) or self._above_changed(path, lately)
        return any(one.kind == "missing" or one.changed != now for one in damages) or now > lately

    def _above_changed(self, path: str, lately: float) -> bool:
        """Whether the directory that something is missing from was changed just before."""
        try:
            return self.tree.look(path.rpartition("/")[0]).st_ctime > lately
        except OSError:
            return False

    def tell(self, teller: Teller) -> tuple[int, int]:
        """Tell everything, and give how many damages and how many unread files there are."""
        for path in [path for path, damages in self.damages.items() if self._moved(path, damages)]:
            del self.damages[path]
            self.unread[path] = "in use"
        told = [one for damages in self.damages.values() for one in damages]
        shifted = self._owned(told).shifted(self.layer, self.uids, self.gids)
        if shifted:
            told = [*(one for one in told if one.kind != "owner"), *shifted]
        for one in told:
            teller.damage(one)
        for path, why in self.unread.items():
            teller.unread(absolute(path), why)
        return len(told), len(self.unread)

    def _owned(self, told: list[Damage]) -> Owned:
        """Count whose owners are right: of hard links and whiteouts none were compared."""
        owned = Owned()
        for one in told:
            if one.kind == "owner":
                owned.damages.append(one)
                owned.count(one.expected, one.found)
        unlike = sum(any(one.kind in {"missing", "type", "owner"} for one in of) for of in self.damages.values())
        owned.right = sum(kind not in {"h", "w"} for kind in self.seen.values()) - unlike
        return owned


def _exactly(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            break
        data += more
    return data
