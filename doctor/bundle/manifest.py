"""What a bundle says of itself: its manifest, in JSON, and what no manifest may say."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Struct

from doctor import __version__
from doctor.snapshot import FORMAT, Kind, Meta, Status

MANIFEST = "manifest.json"
MEMBERS = 200_000

_SHOWN = 160
_REMOVED = 1 << 16
YEARS = (-62_135_596_800.0, 253_402_300_800.0)
"""From year 1 to year 9999: the times that every clock and calendar of a reader can show."""
NO_DIGEST = b"0" * 64


class BundleError(Exception):
    """The file is no bundle, or one that is refused: one line with the path and the reason."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
_Small = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]


class Entry(Struct, omit_defaults=True):
    """One record in the manifest. `stored` is the SHA-256 of the member as it stands, `sha256` of what was read."""

    name: str
    kind: Kind
    target: str
    status: Status = "ok"
    member: str = ""
    why: str = ""
    errno: _Small = 0
    ms: float = 0.0
    bytes: _Count = 0
    sha256: str = ""
    stored: str = ""
    mtime: float = 0.0
    redactions: _Count = 0


class Manifest(Struct):
    """All of it but what `Version` holds. `removed` is decoded apart, once it is known to be small."""

    meta: Meta
    removed: msgspec.Raw
    records: list[Entry]


class Version(Struct):
    """What is read first, and of every format there will ever be.

    `digest` is the SHA-256 of the manifest in which these 64 characters are zeros; one that is not there is not tested.
    """

    format: _Small
    doctor: str = ""
    digest: str = ""


def printable(text: str) -> str:
    """Make foreign text fit for a message: control, bidi and other invisible characters escaped, and not too long."""
    if len(text) > _SHOWN:
        text = text[:_SHOWN] + "..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def leads_out(name: str) -> bool:
    """Whether a name would lie outside of the folder that a bundle is unpacked into."""
    return name.startswith("/") or ".." in name.split("/")


def decode(text: bytes) -> tuple[Manifest, dict[str, int]]:
    """Decode the manifest and judge it. Raises BundleError."""
    try:
        text.decode()  # msgspec does not look into keys that it skips
        version = msgspec.json.decode(text, type=Version)
        if version.format > FORMAT:
            raise BundleError(
                f"made by doctor {printable(version.doctor)} (format {version.format}),"
                f" this is {__version__} (format {FORMAT}): upgrade doctor to read it"
            )
        if version.format < 1:
            raise BundleError(f"{MANIFEST}: there is no format {version.format}")
        if version.digest and not _whole(text, version.digest):
            raise BundleError(f"{MANIFEST}: it is not what was written: digest differs")
        if text.count(b"{") > 2 * MEMBERS:
            raise BundleError(f"refused: {MANIFEST} names more than {MEMBERS:,} records")
        manifest = msgspec.json.decode(text, type=Manifest)
        if len(manifest.removed) > _REMOVED:
            raise BundleError(f"{MANIFEST}: too many kinds of secrets")
        removed = msgspec.json.decode(manifest.removed, type=dict[str, _Count])
    except UnicodeDecodeError as error:
        raise BundleError(f"{MANIFEST}: no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise BundleError(f"{MANIFEST}: nested too deeply") from None
    except msgspec.ValidationError as error:
        what = str(error)
        raise BundleError(f"{MANIFEST}: {printable(what[:1].lower() + what[1:])}") from None
    except msgspec.MsgspecError as error:
        raise BundleError(f"{MANIFEST}: {_malformed(str(error), len(text))}") from None
    _judge(manifest)
    return manifest, removed


def _whole(text: bytes, digest: str) -> bool:
    """Whether the manifest has its digest; this finds damage, it does not keep anybody from changing both."""
    return sha256(text.replace(digest.encode(), NO_DIGEST, 1)).hexdigest() == digest


def _malformed(what: str, size: int) -> str:
    """Turn msgspec's `JSON is malformed: invalid character (byte 5)` into our words."""
    reason, found, place = what.removeprefix("JSON is malformed: ").partition(" (byte ")
    return f"{reason} at byte {place.rstrip(')')}" if found else f"JSON ends early at byte {size}"


def _judge(manifest: Manifest) -> None:
    """Raise BundleError for names that cannot be and numbers that no host has."""
    names: set[str] = set()
    members = {MANIFEST}
    if len(manifest.records) > MEMBERS:
        raise BundleError(f"refused: {MANIFEST} names more than {MEMBERS:,} records")
    for entry in manifest.records:
        if entry.name in names:
            raise BundleError(f"refused: {MANIFEST} names record {printable(entry.name)} twice")
        names.add(entry.name)
        if not (YEARS[0] <= entry.mtime < YEARS[1] and abs(entry.ms) < YEARS[1]):
            raise BundleError(f"{MANIFEST}: a time of record {printable(entry.name)} is out of range")
        if not entry.member:
            continue
        if entry.member in members:
            raise BundleError(f"refused: {MANIFEST} names member {printable(entry.member)} twice")
        if leads_out(entry.member):
            raise BundleError(f"refused: member {printable(entry.member)} leads out of the bundle. Nothing was written")
        members.add(entry.member)
    meta = manifest.meta
    day = 86_400
    if not (
        0 <= meta.collected_at < YEARS[1]
        and abs(meta.utc_offset) < day
        and abs(meta.seconds) < YEARS[1]
        and abs(meta.uid) < 1 << 32
        and 0 < meta.format <= FORMAT
    ):
        raise BundleError(f"{MANIFEST}: a number of `meta` is out of range")
