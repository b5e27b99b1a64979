"""Layers one above the other: overlayfs, the writable one on top (kernel Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import os
from typing import NamedTuple

from doctor.linux import mounting
from doctor.runtime import userns

_PAGE = 4096
"""Bytes that mount(2) takes of options; the engine makes short links to have room for 128 layers."""


class Overlay(NamedTuple):
    """What an overlay is made of: read-only directories, uppermost first; where writes go; a directory of the kernel's."""

    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""


def options(overlay: Overlay, *, userxattr: bool) -> str:
    r"""Write the options of mount(8).

    In a user namespace what is removed from a lower layer is marked in user.* attributes: without `userxattr` the mount
    succeeds, and `rm -r` of a lower directory fails with EIO. A colon, a comma and a backslash in a path are escaped.

    >>> options(Overlay(("/b", "/a:1"), "/u", "/w"), userxattr=True)
    'lowerdir=/b:/a\\:1,upperdir=/u,workdir=/w,userxattr'
    """
    words = ["lowerdir=" + ":".join(_escaped(one) for one in overlay.lowers)]
    if overlay.upper:
        words += [f"upperdir={_escaped(overlay.upper, colon=False)}", f"workdir={_escaped(overlay.work, colon=False)}"]
    if userxattr:
        words.append("userxattr")
    return ",".join(words)


def _escaped(path: str, *, colon: bool = True) -> str:
    path = path.replace("\\", "\\\\").replace(",", "\\,")
    return path.replace(":", "\\:") if colon else path


def mount_overlay(overlay: Overlay, merged: str, *, flags: int = 0) -> None:
    """Mount layers on `merged`. Where their paths are longer than a page, they are named from the directory they share.

    Raises OSError. Changes the working directory of the caller for a moment.
    """
    text = options(overlay, userxattr=userns.inside())
    source = "overlay"
    if len(text) < _PAGE:
        mounting.mount(source, merged, "overlay", flags, text)
        return
    places = (*overlay.lowers, overlay.upper, overlay.work) if overlay.upper else overlay.lowers
    common = os.path.commonpath(places)
    near = Overlay(*(tuple(os.path.relpath(one, common) for one in overlay.lowers),))
    if overlay.upper:
        near = near._replace(upper=os.path.relpath(overlay.upper, common), work=os.path.relpath(overlay.work, common))
    back = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        os.chdir(common)
        mounting.mount(source, os.path.join(common, merged), "overlay", flags, options(near, userxattr=userns.inside()))  # noqa: PTH118 - a path may be any text
    finally:
        os.fchdir(back)
        os.close(back)
