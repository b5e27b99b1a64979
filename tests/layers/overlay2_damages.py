"""Damages by chance, from a seed: each changes a store in one way, says what must be found, and takes itself back."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import stat
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.layers.stores import Store

Expected = set[tuple[str, str]]
"""Kind and path of each damage."""


class Done(NamedTuple):
    """What must be found in which layer, the first byte where that can be told (-1), and how to take it back."""

    layer: str
    expected: Expected
    undo: Callable[[], object]
    offset: int = -1


class Target(NamedTuple):
    """A layer to damage: its chain id, its files by kind, from the recorded names."""

    store: Store
    layer: str
    files: tuple[str, ...]
    links: tuple[str, ...] = ()
    whiteouts: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    hard: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """Where its files are."""
        return self.store.diff(self.layer)


def shown(name: str) -> str:
    """Give a name as it is told."""
    return "/" + name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _rewrite(target: Target, name: str, data: bytes) -> Callable[[], object]:
    """Write a file in place; times stay as they were."""
    path = target.root / name
    before, about = path.read_bytes(), path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))

    def undo() -> None:
        path.write_bytes(before)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))

    return undo


def _pick(rng: random.Random, target: Target, least: int = 1) -> tuple[str, bytes]:
    held = [name for name in target.files if (target.root / name).stat().st_size >= least]
    name = rng.choice(held)
    return name, (target.root / name).read_bytes()


def flip(rng: random.Random, target: Target) -> Done:
    """Flip one bit."""
    name, data = _pick(rng, target)
    at = rng.randrange(len(data))
    held = bytearray(data)
    held[at] ^= 1 << rng.randrange(8)
    return Done(target.layer, {("content", shown(name))}, _rewrite(target, name, bytes(held)), at)


def zeroed(rng: random.Random, target: Target) -> Done:
    """Zero one aligned block."""
    name, data = _pick(rng, target, 8192)
    at = rng.randrange(len(data) // 4096) * 4096
    held = data[:at] + bytes(4096) + data[at + 4096 :]
    return Done(target.layer, {("content", shown(name))}, _rewrite(target, name, held), at)


def cut(rng: random.Random, target: Target) -> Done:
    """End a file early, often on a block."""
    name, data = _pick(rng, target)
    at = rng.choice((0, rng.randrange(len(data)), len(data) // 4096 * 4096))
    at = 0 if at == len(data) else at
    offset = at if at % 512 == 0 else -1
    return Done(target.layer, {("size", shown(name))}, _rewrite(target, name, data[:at]), offset)


def longer(rng: random.Random, target: Target) -> Done:
    """Write behind the end of a file."""
    name, data = _pick(rng, target)
    return Done(target.layer, {("size", shown(name))}, _rewrite(target, name, data + rng.randbytes(rng.randint(1, 99))))


def scrambled(rng: random.Random, target: Target) -> Done:
    """Write some other bytes in the middle."""
    name, data = _pick(rng, target, 16)
    at = rng.randrange(len(data) - 8)
    other = bytes(byte ^ rng.randint(1, 255) for byte in data[at : at + 8])
    return Done(target.layer, {("content", shown(name))}, _rewrite(target, name, data[:at] + other + data[at + 8 :]))


def _away(path: Path) -> Callable[[], object]:
    aside = path.parents[len(path.parts) - len(path.parts[: path.parts.index("diff")]) - 1] / "aside"
    path.rename(aside)
    return lambda: aside.rename(path)


def missing(rng: random.Random, target: Target) -> Done:
    """Take a file or a link away."""
    single = [name for name in target.files if (target.root / name).stat().st_nlink == 1]
    name = rng.choice([*single, *target.links])
    return Done(target.layer, {("missing", shown(name))}, _away(target.root / name))


def mode(rng: random.Random, target: Target) -> Done:
    """Change a mode, of a file or a directory."""
    name = rng.choice((*target.files, *target.folders))
    path = target.root / name
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(before ^ rng.choice((0o4000, 0o2000, 0o022, 0o111, 0o001)))
    return Done(target.layer, {("mode", shown(name))}, lambda: path.chmod(before))


def owner(rng: random.Random, target: Target) -> Done:
    """Give a file or a link to somebody else. Needs root."""
    name = rng.choice((*target.files, *target.links, *target.folders))
    path = target.root / name
    before = path.lstat()
    os.chown(path, before.st_uid + rng.randint(1, 9), before.st_gid, follow_symlinks=False)

    def undo() -> None:
        os.chown(path, before.st_uid, before.st_gid, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(before.st_mode))

    return Done(target.layer, {("owner", shown(name))} | _lost_ids(path, before), undo)


def _lost_ids(path: Path, before: os.stat_result) -> Expected:
    """chown(2) of a file takes setuid away."""
    now = path.lstat()
    return set() if now.st_mode == before.st_mode else {("mode", "/" + str(path).partition("/diff/")[2])}


def retarget(rng: random.Random, target: Target) -> Done:
    """Let a symbolic link lead elsewhere."""
    name = rng.choice(target.links)
    path = target.root / name
    before = path.readlink()
    path.unlink()
    path.symlink_to(f"{before}x")

    def undo() -> None:
        path.unlink()
        path.symlink_to(before)

    return Done(target.layer, {("link target", shown(name))}, undo)


def another_type(rng: random.Random, target: Target) -> Done:
    """Put a link, a FIFO or a directory where a file was."""
    name = rng.choice([name for name in target.files if (target.root / name).stat().st_nlink == 1])
    path = target.root / name
    back = _away(path)
    kind = rng.randrange(3)
    if kind == 0:
        path.symlink_to("/etc/passwd")
    elif kind == 1:
        os.mkfifo(path)
    else:
        path.mkdir()

    def undo() -> None:
        path.rmdir() if kind == 2 else path.unlink()
        back()

    return Done(target.layer, {("type", shown(name))}, undo)


def attribute(rng: random.Random, target: Target) -> Done:
    """Lose or change an extended attribute."""
    name = rng.choice(target.attributes)
    path = target.root / name
    key = next(key for key in os.listxattr(path) if key.startswith("user."))
    before = os.getxattr(path, key)
    if rng.random() < 0.5:
        os.removexattr(path, key)
    else:
        os.setxattr(path, key, before + b"!")
    return Done(target.layer, {("xattr", shown(name))}, lambda: os.setxattr(path, key, before))


def parted(rng: random.Random, target: Target) -> Done:
    """Make a hard link a file of its own, as a copy without -H does."""
    name = rng.choice(target.hard)
    path = target.root / name
    back = _away(path)
    aside = path.parents[len(path.parts) - len(path.parts[: path.parts.index("diff")]) - 1] / "aside"
    shutil.copy2(aside, path)

    def undo() -> None:
        path.unlink()
        back()

    return Done(target.layer, {("link target", shown(name))}, undo)


def whiteout(rng: random.Random, target: Target) -> Done:
    """Lose a whiteout, or have a file in its place."""
    name = rng.choice(target.whiteouts)
    path = target.root / name
    path.unlink()
    if rng.random() < 0.5:
        path.write_bytes(b"back")

    def undo() -> None:
        path.unlink(missing_ok=True)
        os.mknod(path, stat.S_IFCHR, 0)

    return Done(target.layer, {("whiteout lost", shown(name))}, undo)


def opaque(rng: random.Random, target: Target) -> Done:
    """Lose the mark of an opaque directory."""
    name = rng.choice(target.opaque)
    path = target.root / name
    os.removexattr(path, "user.overlay.opaque")
    return Done(target.layer, {("opaque lost", shown(name))}, lambda: os.setxattr(path, "user.overlay.opaque", b"y"))


def added(rng: random.Random, target: Target) -> Done:
    """Add something."""
    folder = rng.choice(("", *target.folders))
    name = f"{folder}/new{rng.randrange(999)}" if folder else f"new\n{rng.randrange(999)}"
    path = target.root / name
    kind = rng.randrange(6)
    if kind == 0:
        path.mkdir()
        (path / "inside").write_bytes(b"x")
    elif kind == 1:
        path.symlink_to("/etc")
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        os.mknod(path, stat.S_IFCHR, 0)
    else:
        path.write_bytes(b"x")
        path.chmod(0o4755 if kind == 4 else 0o644)
    return Done(target.layer, {("added", shown(name))}, lambda: shutil.rmtree(path) if kind == 0 else path.unlink())


def _unpacked(data: bytes) -> bytes | None:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


def record(rng: random.Random, target: Target) -> Done:
    """Damage the tar-split itself: cut it, flip a bit of it, empty it, or change what it says."""
    path = target.store.record(target.layer)
    before = path.read_bytes()
    kind = rng.randrange(6)
    if kind == 0:
        path.write_bytes(before[: rng.randrange(1, len(before))])
    elif kind == 1:
        held = bytearray(before)
        while _unpacked(bytes(held)) == _unpacked(before):  # some bits of gzip mean nothing
            held = bytearray(before)
            held[rng.randrange(len(held))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(held))
    elif kind == 2:
        path.write_bytes(b"" if rng.random() < 0.5 else bytes(len(before)))
    else:
        lines = [json.loads(line) for line in gzip.decompress(before).splitlines()]
        if kind == 3:  # a checksum
            one = rng.choice([line for line in lines if line.get("size")])
            one["payload"] = base64.b64encode(rng.randbytes(8)).decode()
        elif kind == 4:  # a time in a header
            one = next(line for line in lines if line["type"] == 2)
            text = bytearray(base64.b64decode(one["payload"]))
            text[136:147] = b"%011o" % rng.randrange(1 << 30)
            one["payload"] = base64.b64encode(bytes(text)).decode()
        else:
            del lines[rng.randrange(len(lines) - 3) :]
            lines.append({"type": 7})
        path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return Done(target.layer, {("record", str(path))}, lambda: path.write_bytes(before))


MAKERS: dict[Callable[[random.Random, Target], Done], int] = {
    flip: 90,
    zeroed: 15,
    cut: 25,
    longer: 10,
    scrambled: 15,
    missing: 20,
    mode: 20,
    owner: 10,
    retarget: 8,
    another_type: 12,
    attribute: 8,
    parted: 4,
    whiteout: 8,
    opaque: 3,
    added: 25,
    record: 30,
}
"""How many of each."""
