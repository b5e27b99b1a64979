"""One file as it was recorded in a tar archive against what is on disk: type, mode, owner, device, link, extended attributes.

Times of directories are never compared: everything that is unpacked into one changes them. Source: tar(5); moby
`pkg/archive` (createTarFile, ReadSecurityXattrToTarHeader); capabilities(7), "File capabilities".
"""

from __future__ import annotations

import os
import stat
from errno import ENODATA
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.layers.model import Kind, Owners
    from doctor.layers.tarstream import Entry

CAPABILITY = "security.capability"
_TYPES = {
    "f": (stat.S_IFREG, "file"),
    "h": (stat.S_IFREG, "file"),
    "d": (stat.S_IFDIR, "directory"),
    "l": (stat.S_IFLNK, "symbolic link"),
    "c": (stat.S_IFCHR, "character device"),
    "b": (stat.S_IFBLK, "block device"),
    "p": (stat.S_IFIFO, "FIFO"),
}
_NAMES = {stat.S_IFSOCK: "socket", **dict(_TYPES.values())}
_EFFECTIVE = 1
_PERMITTED = slice(4, 20)
"""Of security.capability: permitted and inheritable sets. What stands before is its version, what follows the user
namespace it is good in, which the kernel adds where users are remapped."""


def mapped(number: int, owners: Owners) -> int:
    """Give the id on disk of an id in the image; one that no range holds stays."""
    for inside, outside, count in owners:
        if inside <= number < inside + count:
            return outside + number - inside
    return number


def type_name(mode: int) -> str:
    """Say what a mode is of: `file`, `directory`, `symbolic link`, ..."""
    return _NAMES.get(stat.S_IFMT(mode), "something unknown")


def recorded_mode(entry: Entry) -> int:
    """Give the mode of an entry with its type."""
    return _TYPES[entry.kind][0] | entry.mode


def differences(
    entry: Entry,
    about: os.stat_result,
    xattrs: dict[str, bytes],
    link: str,
    uids: Owners,
    gids: Owners,
    absent: Callable[[str], int] = lambda _: ENODATA,
) -> Iterator[tuple[Kind, str, str]]:
    """Give what differs, content aside: kind, expected and found, in words.

    `xattrs` are those on disk, `link` the target of a symbolic link there. `absent` gives the errno of reading an
    attribute that is not there: a file system without them has lost nothing.
    """
    wanted, name = _TYPES.get(entry.kind, (0, ""))
    if stat.S_IFMT(about.st_mode) != wanted:
        yield "type", name, type_name(about.st_mode)
        return
    mode = stat.S_IMODE(about.st_mode)
    if mode != entry.mode and entry.kind != "l":
        yield "mode", f"{entry.mode:04o}", f"{mode:04o}"
    owner = (mapped(entry.uid, uids), mapped(entry.gid, gids))
    if owner != (about.st_uid, about.st_gid):
        yield "owner", f"{owner[0]}:{owner[1]}", f"{about.st_uid}:{about.st_gid}"
    if entry.kind == "l" and link != entry.link:
        yield "link target", shown_name(entry.link), shown_name(link)
    if entry.kind in {"c", "b"}:
        device = (os.major(about.st_rdev), os.minor(about.st_rdev))
        if device != entry.device:
            yield "device", "{},{}".format(*entry.device), "{},{}".format(*device)
    yield from _attributes(entry.xattrs, xattrs, absent)


def _attributes(
    wanted: dict[str, bytes], have: dict[str, bytes], absent: Callable[[str], int]
) -> Iterator[tuple[Kind, str, str]]:
    """Compare what was recorded. What is there beside it counts for capabilities alone: labels are the host's to give."""
    for name, value in wanted.items():
        if name.startswith(("trusted.overlay.", "user.overlay.")):
            continue
        held = have.get(name)
        if held is None and absent(name) != ENODATA:
            continue
        if name == CAPABILITY:
            if held is None or _capabilities(held) != _capabilities(value):
                yield "capability", value.hex(), "none" if held is None else held.hex()
        elif held != value:
            yield "xattr", f"{name} {_value(value)}", "none" if held is None else _value(held)
    if CAPABILITY in have and CAPABILITY not in wanted:
        yield "capability", "none", have[CAPABILITY].hex()


def _capabilities(value: bytes) -> tuple[int, bytes]:
    return (value[0] & _EFFECTIVE if value else 0), value[_PERMITTED]


def _value(value: bytes) -> str:
    """Say what an attribute holds, without saying it: nobody knows whose secret it is."""
    from hashlib import sha256

    return f"({len(value)} bytes, sha256 {sha256(value).hexdigest()[:12]})"


def shown_name(name: str) -> str:
    """Give a name of the file system as text that every format can hold, as `model.shown` does for bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
