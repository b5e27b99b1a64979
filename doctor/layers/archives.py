"""Archives of images given as files: what `docker save` writes (old and new), OCI layouts as tar or directory.

Every blob is hashed against the descriptor that names it, layers are unpacked as a stream and hashed again against the
diff ids of the configuration, and what would be unpacked outside is told. Source: OCI image-spec image-layout.md;
moby `image/tarexport` (manifest.json; `docker save` writes an OCI layout beside it from 25 on), podman
`docker-archive`.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.layers import manifests
from doctor.layers.archive_members import Contents, Member, climbs, of_folder, of_tar
from doctor.layers.compressed import NoDecompressor
from doctor.layers.manifests import Config, Descriptor, Unusable
from doctor.layers.model import Checked, Damage, Work

if TYPE_CHECKING:
    from doctor.layers.model import Kind, Teller

_ELSEWHERE = ("foreign", "nondistributable")
"""Words of media types whose blobs may be left out."""
_HOPS = 10
_EXPORTED = frozenset({"bin", "etc", "usr", "lib", "dev"})


class _Saved(Struct):
    """One image of manifest.json."""

    Config: str = ""
    RepoTags: list[str] | None = None
    Layers: list[str] | None = None


_saved = msgspec.json.Decoder(list[_Saved])


def plan(path: str) -> list[Work]:
    """Give the work of an archive: it is read in one go. Raises OSError."""
    about = os.stat(path)  # noqa: PTH116 - who names it may name a link
    size = about.st_size
    if stat.S_ISDIR(about.st_mode):
        size = sum(
            os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - many
            for folder, _, names in os.walk(os.path.join(path, "blobs"))  # noqa: PTH118
            for name in names
        )
    return [Work("archive", path, bytes=size, root=path)]


class _Judge:
    """What the archive says of itself, against what is in it."""

    def __init__(self, work: Work, contents: Contents, teller: Teller) -> None:
        self.work, self.contents, self.teller = work, contents, teller
        self.damages = self.unread = 0
        self.told: set[tuple[str, str]] = set()
        self.layers: set[str] = set()
        self.images: list[str] = []
        self.whole = not contents.fault

    def damage(self, path: str, kind: Kind, expected: str, found: str, detail: str = "", offset: int = -1) -> None:
        """Tell one thing, once."""
        if (path, kind) in self.told:
            return
        self.told.add((path, kind))
        self.damages += 1
        self.teller.damage(Damage(self.work.id, path, kind, expected, found, detail=detail, offset=offset))

    def not_known(self, path: str, why: str) -> None:
        """Tell what cannot be said, once."""
        if (path, "unread") not in self.told:
            self.told.add((path, "unread"))
            self.unread += 1
            self.teller.unread(path, why)

    def member(self, name: str) -> Member | None:
        """Find a member by its path; links in the archive are followed, as docker load does."""
        for _ in range(_HOPS):
            found = self.contents.members.get(name)
            if found is None or found.kind not in "lh":
                return found
            name = posixpath.normpath(
                found.link if found.kind == "h" else posixpath.join(posixpath.dirname(name), found.link)
            )
        return None

    def missing(self, path: str, what: str) -> None:
        """Tell that a member is not there; of an archive that breaks off that is no news."""
        if self.whole:
            self.damage(path, "missing", what, "is not in the archive")

    # The parts

    def all(self) -> None:
        """Judge everything."""
        contents = self.contents
        if contents.fault:
            self.damage(self.work.root, "record", "a whole archive", contents.fault, offset=contents.offset)
        for how in contents.strange:
            self.damage(how.split(" ", 1)[0], "record", "stays inside", how)
        for name, member in contents.members.items():
            self._blob(name, member)
        index, manifest = contents.members.get("index.json"), contents.members.get("manifest.json")
        if manifest is not None:
            self._manifest(manifest)
        if index is not None:
            self._index(index)
        if manifest is None and index is None and self.whole:
            tops = {name.partition("/")[0] for name in contents.members}
            why = (
                "it is the file system of a container (docker export): docker import reads it"
                if tops & _EXPORTED
                else ""
            )
            self.damage("manifest.json", "missing", "manifest.json or index.json", "neither is in the archive", why)
        if index is not None and "oci-layout" not in contents.members and manifest is None:
            self.missing("oci-layout", "the file that says that this is an OCI layout")

    def _blob(self, name: str, member: Member) -> None:
        """Compare a blob with its own name, whoever needs it."""
        if member.twice:
            self.damage(name, "record", "stands in it once", "stands in it twice, and differs")
        for how in member.strange:
            self.damage(name, "record", "stays inside", how)
        parts = name.split("/")
        if parts[:2] == ["blobs", "sha256"] and len(parts) == 3 and member.digest:  # noqa: PLR2004 - blobs/sha256/HEX
            self._digest(name, member, f"sha256:{parts[2]}")

    def _digest(self, name: str, member: Member, digest: str) -> bool:
        if member.digest == digest:
            return True
        if member.digest:
            self.damage(name, "content", digest, member.digest, member.fault)
        else:
            self.not_known(name, member.unread)
        return False

    def _index(self, member: Member, depth: int = 0) -> None:
        """Follow an index to its manifests. Of several platforms those that were not saved may be missing."""
        try:
            found = manifests.document(member.document)
        except Unusable as error:
            self.damage(member.name, "record", "an index", str(error))
            return
        if found.config is not None:
            self._image(member.name, found)
            return
        held = [(one, self.member(_path(one))) for one in found.manifests]
        for one, there in held:
            if there is None:
                if not any(other for _, other in held) or len(held) == 1:
                    self.missing(_path(one), f"a manifest that {member.name} names")
            elif self._described(one, there) and depth < _HOPS:
                self._index(there, depth + 1)

    def _described(self, one: Descriptor, there: Member) -> bool:
        name = _path(one)
        if not manifests.is_digest(one.digest):
            self.damage(name, "record", "a digest", one.digest[:80])
            return False
        whole = self._digest(name, there, one.digest)
        if 0 <= one.size != there.size and there.digest:
            self.damage(name, "size", f"{one.size:,} bytes", f"{there.size:,} bytes")
            return False
        return whole

    def _image(self, name: str, found: manifests.Document) -> None:
        """Compare the layers of one manifest with the diff ids of its configuration."""
        assert found.config is not None  # noqa: S101 - who calls has looked
        held = self.member(_path(found.config))
        config = None
        if held is None:
            self.missing(_path(found.config), f"the configuration of {name}")
        elif self._described(found.config, held):
            config = self._config(held)
        members: list[tuple[str, Member | None]] = []
        for one in found.layers:
            there = self.member(_path(one))
            if there is None:
                if not any(word in one.media for word in _ELSEWHERE):
                    self.missing(_path(one), f"a layer of {name}")
            elif not self._described(one, there):
                there = None
            members.append((_path(one), there))
        if config is not None:
            self._layers(name, config, members, tars=all(".tar" in one.media for one in found.layers))

    def _config(self, member: Member) -> Config | None:
        try:
            return manifests.config(member.document)
        except Unusable as error:
            self.damage(member.name, "record", "an image configuration", str(error))
            return None

    def _layers(self, name: str, config: Config, members: list[tuple[str, Member | None]], *, tars: bool) -> None:
        diffs = config.diff_ids
        if len(diffs) != len(members):
            self.damage(name, "record", f"{len(diffs)} layers", f"{len(members)} layers")
            return
        for (path, member), diff in zip(members, diffs, strict=True):
            self.layers.add(path)
            if member is None:
                continue
            if member.unread and not member.inner:
                self.not_known(path, member.unread)
            elif member.inner != diff:
                self.damage(path, "digest", diff, member.inner or "cannot be unpacked", member.fault)
            elif tars and (member.fault or not (member.is_tar or not member.size)):
                self.damage(path, "record", "a tar archive", member.fault or "something else")

    def _manifest(self, member: Member) -> None:
        """Follow manifest.json, as docker load does."""
        try:
            listed = _saved.decode(member.document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.damage("manifest.json", "record", "a list of images", f"no manifest: {error}")
            return
        for one in listed:
            self.images += one.RepoTags or []
            if climbs(one.Config) or any(climbs(layer) for layer in one.Layers or ()):
                self.damage("manifest.json", "record", "stays inside", "names a path that leads out")
                continue
            self._saved_image(one)

    def _saved_image(self, one: _Saved) -> None:
        called = ", ".join(one.RepoTags or ()) or "an image without a name"
        held = self.member(one.Config)
        if held is None:
            self.missing(one.Config, f"the configuration of {called}")
            config = None
        else:
            wanted = f"sha256:{posixpath.basename(one.Config).removesuffix('.json')}"
            whole = not manifests.is_digest(wanted) or self._digest(one.Config, held, wanted)
            config = self._config(held) if whole else None
        members = []
        for path in one.Layers or ():
            there = self.member(path)
            if there is None:
                self.missing(path, f"a layer of {called}")
            elif path.startswith("blobs/") and (path, "content") in self.told:
                there = None
            members.append((path, there))
        if config is not None:
            self._layers("manifest.json", config, members, tars=True)


def _path(one: Descriptor) -> str:
    algorithm, _, name = one.digest.partition(":")
    return f"blobs/{algorithm}/{name}"


def verify(work: Work, teller: Teller) -> Checked:
    """Verify one archive. Raises OSError."""
    start = time.perf_counter()
    try:
        contents = of_folder(work.root, teller) if os.path.isdir(work.root) else of_tar(work.root, teller)  # noqa: PTH112
    except NoDecompressor as error:
        return Checked("archive", work.id, "unknown", why=str(error), root=work.root)
    judge = _Judge(work, contents, teller)
    judge.all()
    state = "damaged" if judge.damages else "unknown" if judge.unread else "whole"
    return Checked(
        "archive",
        work.id,
        state,  # type: ignore[arg-type]
        files=len(contents.members),
        bytes=sum(one.size for one in contents.members.values()),
        seconds=time.perf_counter() - start,
        damages=judge.damages,
        unread=judge.unread,
        root=work.root,
    )
