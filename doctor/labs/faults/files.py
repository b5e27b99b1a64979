"""Faults of files, and of the files of layers."""

from __future__ import annotations

import shlex
import time
from typing import Literal

from doctor.labs.faults.base import Fault, Place, Undo
from doctor.labs.ground import GroundError, sh


class FileWrite(Fault, frozen=True, kw_only=True):
    """A file gets another text, or is made."""

    path: str
    text: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        path = at.names.fill(self.path)
        back = put_back(at, path)
        at.ground.write(path, at.names.fill(self.text))
        return back


class FileReplace(Fault, frozen=True, kw_only=True):
    """In a file, `old` becomes `new`. The file stays the same file: it may be mounted in a container."""

    path: str
    old: str
    new: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`. Raises GroundError when `old` is not in it."""
        path, old = at.names.fill(self.path), at.names.fill(self.old)
        text = at.ground.read(path)
        if text is None or old not in text:
            raise GroundError(f"{path}: there is no {old!r} in it")
        at.ground.write(path, text.replace(old, at.names.fill(self.new)))
        return [lambda: at.ground.write(path, text)]


class FileRemove(Fault, frozen=True, kw_only=True):
    """A file, link or folder is gone: it is kept aside, to be put back."""

    path: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        aside = f"/root/.aside-{time.monotonic_ns()}"
        path = at.sh(f"printf %s {self.path}")
        return at.do(f"mv {path} {aside}", f"mv {aside} {path}")


class FileMode(Fault, frozen=True, kw_only=True):
    """`chmod`."""

    path: str
    mode: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        before = at.sh(f"stat -L -c %a {self.path}").strip()
        return at.do(f"chmod {self.mode} {self.path}", f"chmod {before} {self.path}")


def put_back(at: Place, path: str) -> Undo:
    """Give what gives a file its present text back, or removes what is not there yet."""
    before = at.ground.read(path)
    if before is None:
        return [lambda: sh(at.ground, f"rm -f {shlex.quote(path)}")]
    return [lambda: at.ground.write(path, before)]


class LayerDamage(Fault, frozen=True, kw_only=True):
    """One part of a layer is gone, empty, or has another text.

    `of` is a container; `which` layer of it: `image` (the uppermost of its image), `init`, `own`, or a record of the layer
    database: `record` of that image layer, `mount` of the container's own. `part` is a name in its directory (`link`,
    `lower`, `diff`, `size`, `cache-id`, ...); empty: the directory itself; `short-link`: its entry in overlay2/l.
    """

    of: str
    which: Literal["image", "init", "own", "record", "mount"]
    part: str = ""
    damage: Literal["gone", "empty", "text"] = "gone"
    text: str = ""

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        words = {"image": "image-layer", "init": "init", "own": "layer", "record": "record", "mount": "mount"}
        folder = at.names.fill(f"{{{words[self.which]}:{self.of}}}")
        path = f"{folder}/{self.part}" if self.part else folder
        if self.part == "short-link":
            path = f"/var/lib/docker/overlay2/l/{at.sh(f'cat {folder}/link').strip()}"
        if self.damage == "gone":
            return FileRemove(path=path).make(at)
        back = put_back(at, path)
        at.sh(f"printf %s {shlex.quote(self.text)} >{path}")
        return back

    def texts(self) -> list[str]:
        """See `Fault.texts`."""
        return [f"{{id:{self.of}}}", self.text]
