"""What is refused, and in which words: each lie and each accident in one line with the path and the cause."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest

from doctor import __version__
from doctor.bundle import MANIFEST, BundleError, pack, read, reading, write
from doctor.bundle import manifest as manifest_module
from tests.bundle.samples import META, SMALL, archive, bundle, entry, gunzip, info, manifest, pack_gzip, unpack

if TYPE_CHECKING:
    from pathlib import Path


def refusal(data: bytes) -> str:
    """Read what cannot be read, packed and plain; give the message, without the path. The same for both."""
    said = []
    for form in (data, pack_gzip(data)):
        with pytest.raises(BundleError) as raised:
            unpack(form)
        text = str(raised.value)
        assert text.isprintable()
        said.append(re.sub(r"^/proc/self/fd/\d+: ", "", text))
    assert said[0] == said[1]
    return said[0]


def refused(path: str) -> str:
    """Read a path that cannot be read; give the message."""
    with pytest.raises(BundleError) as raised:
        read(path)
    assert str(raised.value).isprintable()
    return str(raised.value)


def told(text: bytes) -> str:
    """Give the message for a manifest."""
    return refusal(archive((MANIFEST, text)))


MANIFESTED = (MANIFEST, manifest(entry("a", b"1")))

HOSTILE: dict[str, tuple[bytes, str]] = {
    "leads out": (
        archive(MANIFESTED, ("../../etc/passwd", b"x")),
        "refused: member ../../etc/passwd leads out of the bundle. Nothing was written",
    ),
    "leads out at once": (
        archive(("../../etc/passwd", b"x")),
        "refused: member ../../etc/passwd leads out of the bundle. Nothing was written",
    ),
    "leads out in the middle": (
        archive(MANIFESTED, ("a/../../x", b"x")),
        "refused: member a/../../x leads out of the bundle. Nothing was written",
    ),
    "leads out by its prefix": (
        archive(MANIFESTED, ("../" + "x" * 90 + "/" + "y" * 90, b"x")),
        f"refused: member ../{'x' * 90}/{'y' * 66}... leads out of the bundle. Nothing was written",
    ),
    "absolute": (
        archive(MANIFESTED, ("/etc/passwd", b"x")),
        "refused: member /etc/passwd leads out of the bundle. Nothing was written",
    ),
    "paints": (
        archive(MANIFESTED, ("\x1b[31m\u202eevil\n", b"x")),
        r"refused: member \x1b[31m\u202eevil\n is not in its manifest",
    ),
    "no text": (
        archive(MANIFESTED, ("\udcff\udc80", b"x")),
        r"refused: member \xff\x80 is not in its manifest",
    ),
    "link": (
        archive(MANIFESTED, info("a", tarfile.SYMTYPE, "/etc/shadow")),
        "refused: member a is a link, not a plain file. Nothing was written",
    ),
    "hard link": (
        archive(MANIFESTED, info("a", tarfile.LNKTYPE, "manifest.json")),
        "refused: member a is a hard link, not a plain file. Nothing was written",
    ),
    "character device": (
        archive(MANIFESTED, info("a", tarfile.CHRTYPE)),
        "refused: member a is a device, not a plain file. Nothing was written",
    ),
    "block device": (
        archive(MANIFESTED, info("a", tarfile.BLKTYPE)),
        "refused: member a is a device, not a plain file. Nothing was written",
    ),
    "FIFO": (
        archive(MANIFESTED, info("a", tarfile.FIFOTYPE)),
        "refused: member a is a FIFO, not a plain file. Nothing was written",
    ),
    "directory": (
        archive(MANIFESTED, info("a", tarfile.DIRTYPE)),
        "refused: member a/ is a directory, not a plain file. Nothing was written",
    ),
    "contiguous": (
        archive(MANIFESTED, info("a", tarfile.CONTTYPE)),
        "refused: member a is of type 7, not a plain file. Nothing was written",
    ),
    "sparse": (
        archive(MANIFESTED, info("a", tarfile.GNUTYPE_SPARSE)),
        "refused: member a is a sparse file, not a plain file. Nothing was written",
    ),
    "GNU long name": (
        archive(MANIFESTED, ("y" * 120, b"x"), form=tarfile.GNU_FORMAT),
        "refused: member ././@LongLink is of type L, not a plain file. Nothing was written",
    ),
    "pax": (
        archive(MANIFESTED, ("\xe9", b"x"), form=tarfile.PAX_FORMAT),
        "refused: member ././@PaxHeader is of type x, not a plain file. Nothing was written",
    ),
    "type that paints": (
        archive(MANIFESTED, info("a", b"\x1b")),
        r"refused: member a is of type \x1b, not a plain file. Nothing was written",
    ),
    "twice": (
        archive(MANIFESTED, ("a", b"1"), ("a", b"2")),
        "refused: member a is there twice",
    ),
    "manifest twice": (
        archive(MANIFESTED, ("a", b"1"), MANIFESTED),
        "refused: member manifest.json is there twice",
    ),
    "stowaway": (
        archive(MANIFESTED, ("a", b"1"), ("b", b"2")),
        "refused: member b is not in its manifest",
    ),
    "behind the end": (
        archive(MANIFESTED, ("a", b"1")) + archive(("b", b"2")),
        "refused: data follows the end of the archive",
    ),
    "one block of zeros": (
        archive(MANIFESTED)[: -10240 % 512 or None].rstrip(b"\0").ljust(1024, b"\0") + bytes(512) + b"x" * 512,
        "refused: data follows the end of the archive",
    ),
    "no manifest": (
        archive(("notes.txt", b"x"), ("manifest.json", b"{}")),
        "not a bundle of doctor: it has no manifest.json. `doctor collect` makes one",
    ),
    "no manifest but a directory": (
        archive(info("notes", tarfile.DIRTYPE)),
        "not a bundle of doctor: it has no manifest.json. `doctor collect` makes one",
    ),
    "nothing in it": (
        archive(),
        "not a bundle of doctor: it has no manifest.json. `doctor collect` makes one",
    ),
    "the manifest is a link": (
        archive(info(MANIFEST, tarfile.SYMTYPE, "/etc/shadow")),
        "refused: member manifest.json is a link, not a plain file. Nothing was written",
    ),
    "manifest of 8 GiB": (
        archive(info(MANIFEST, size=8**11 - 1)),
        "refused: member manifest.json is larger than 32 MiB",
    ),
    "member of 8 GiB": (
        archive(MANIFESTED, info("a", size=8**11 - 1)),
        "refused: member a is larger than 64 MiB",
    ),
    "a number of GNU's": (
        archive(MANIFESTED, info("a", size=8**11), form=tarfile.GNU_FORMAT),
        "refused: the size of member a is no number",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    """Each lie in its own words, the same for a tar and a tar.gz."""
    data, words = HOSTILE[name]
    assert refusal(data) == words


@pytest.mark.parametrize(
    "size", [b"-0000000001\0", b"0x1f       \0", b"0o7        \0", b"1_0        \0", b"           \0"]
)
def test_sizes_that_only_python_reads(size: bytes) -> None:
    """`int` takes more than a tar may hold."""
    data = bytearray(bundle(("a", b"1")))
    at = data.rindex(b"a\0\0\0\0\0\0\0")
    at -= at % 512
    data[at + 124 : at + 136] = size
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    assert refusal(bytes(data)) == "refused: the size of member a is no number"


RECORD = b'{"name":"a","kind":"file","target":""}'

LYING: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "manifest.json: JSON ends early at byte 0"),
    "ends early": (b'{"format": 1, ', "manifest.json: JSON ends early at byte 14"),
    "no JSON": (b'{"format": 1 "x"}', "manifest.json: expected ',' or '}' at byte 13"),
    "more than one": (manifest() + b"{}", f"manifest.json: trailing characters at byte {len(manifest()) + 1}"),
    "NaN": (manifest().replace(b"1795520335.25", b"NaN"), "manifest.json: invalid character at byte 124"),
    "no UTF-8": (b'{"format": 1, "x": "\xff"}', "manifest.json: no UTF-8 at byte 20"),
    "no UTF-8 in a key": (b'{"\xc0\xaf": 1}', "manifest.json: no UTF-8 at byte 2"),
    "surrogate in UTF-8": (b'{"format": 1, "doctor": "\xed\xa0\x80"}', "manifest.json: no UTF-8 at byte 25"),
    "surrogate": (
        b'{"format": 1, "doctor": "\\udcff"}',
        "manifest.json: invalid utf-16 surrogate pair at byte 31",
    ),
    "byte order mark": (b"\xef\xbb\xbf{}", "manifest.json: invalid character at byte 0"),
    "control character": (b'{"format": 1, "doctor": "\x1b"}', "manifest.json: invalid character at byte 25"),
    "array": (b"[]", "manifest.json: expected `object`, got `array`"),
    "no format": (b"{}", "manifest.json: object missing required field `format`"),
    "no record list": (manifest(records=None), "manifest.json: object missing required field `records`"),
    "format is text": (manifest(format="1"), "manifest.json: expected `int`, got `str` - at `$.format`"),
    "format is true": (manifest(format=True), "manifest.json: expected `int`, got `bool` - at `$.format`"),
    "format 0": (manifest(format=0), "manifest.json: there is no format 0"),
    "format -1": (manifest(format=-1), "manifest.json: there is no format -1"),
    "newer": (
        manifest(format=3, doctor="2.1", records={"all": "new"}),
        f"made by doctor 2.1 (format 3), this is {__version__} (format 1): upgrade doctor to read it",
    ),
    "newer and paints": (
        manifest(format=3, doctor="\x1b[2J"),
        rf"made by doctor \x1b[2J (format 3), this is {__version__} (format 1): upgrade doctor to read it",
    ),
    "huge format": (
        manifest().replace(b'"format":1,', b'"format":' + b"9" * 400 + b",", 1),
        "manifest.json: expected `int` <= 2147483647 - at `$.format`",
    ),
    "other digest": (manifest(digest="0" * 64), "manifest.json: it is not what was written: digest differs"),
    "record is null": (manifest(records=[None]), "manifest.json: expected `object`, got `null` - at `$.records[0]`"),
    "kind": (
        manifest(entry("a", kind="\x1b[31m")),
        r"manifest.json: invalid enum value '\x1b[31m' - at `$.records[0].kind`",
    ),
    "status": (
        manifest(entry("a", status="fine")),
        "manifest.json: invalid enum value 'fine' - at `$.records[0].status`",
    ),
    "data in it": (
        manifest(entry("a", why=b"x".hex(), target=7)),
        "manifest.json: expected `str`, got `int` - at `$.records[0].target`",
    ),
    "negative size": (
        manifest(entry("a", bytes=-1)),
        "manifest.json: expected `int` >= 0 - at `$.records[0].bytes`",
    ),
    "huge size": (
        manifest(entry("a", bytes=1 << 63)),
        f"manifest.json: expected `int` <= {1 << 62} - at `$.records[0].bytes`",
    ),
    "huge time": (
        manifest(entry("a", mtime=0.0)).replace(b'"mtime":0.0', b'"mtime":1e999'),
        "manifest.json: number out of range - at `$.records[0].mtime`",
    ),
    "time of no calendar": (
        manifest(entry("a", mtime=1e18)),
        "manifest.json: a time of record a is out of range",
    ),
    "endless milliseconds": (manifest(entry("a", ms=1e300)), "manifest.json: a time of record a is out of range"),
    "negative count": (manifest(removed={"label": -1}), "manifest.json: expected `int` >= 0 - at `$[...]`"),
    "too many counts": (
        manifest(removed={str(number): 1 for number in range(10_000)}),
        "manifest.json: too many kinds of secrets",
    ),
    "record twice": (manifest(entry("a"), entry("a")), "refused: manifest.json names record a twice"),
    "member twice": (
        manifest(entry("a", b"1"), entry("b", member="a")),
        "refused: manifest.json names member a twice",
    ),
    "the manifest as a member": (
        manifest(entry("a", member=MANIFEST)),
        "refused: manifest.json names member manifest.json twice",
    ),
    "member leads out": (
        manifest(entry("a", member="../\x07")),
        r"refused: member ../\x07 leads out of the bundle. Nothing was written",
    ),
    "nested": (manifest().replace(b'"doctor"', b'"x":' + b"[" * 100_000), "manifest.json: nested too deeply"),
    "nested objects": (b'{"x":' * 100_000, "manifest.json: nested too deeply"),
    "long and wrong": (
        manifest(entry("a", status="y" * 5000)),
        f"manifest.json: invalid enum value '{'y' * 140}...",
    ),
    **{
        f"meta.{key}": (
            manifest(meta={"doctor": "1", "hostname": "h", "kernel": "k", "machine": "m", "collected_at": 1.0}
            | {"utc_offset": 0, "uid": 0, "user": "u", key: value}),
            "manifest.json: a number of `meta` is out of range",
        )
        for key, value in {
            "collected_at": -1,
            "utc_offset": 86_400,
            "uid": 1 << 40,
            "seconds": 1e300,
            "format": 2,
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LYING)
def test_lying_manifest(name: str) -> None:
    """A manifest that is none is refused with the place where it is wrong."""
    text, words = LYING[name]
    assert told(text) == words


def test_too_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is judged before it costs memory, and once more when it is known."""
    monkeypatch.setattr(manifest_module, "MEMBERS", 10)
    assert told(manifest(*(entry(str(number)) for number in range(11)))).endswith("names more than 10 records")
    assert told(manifest(x=[{}] * 21)).endswith("names more than 10 records")
    assert unpack(archive((MANIFEST, manifest(*(entry(str(number)) for number in range(10))))))


def test_unknown_keys_are_ignored() -> None:
    """A later version may say more in format 1."""
    text = manifest(entry("a", b"1", colour="blue", more={"x": [1, None]}), future={"a": [1.5]}, kinds=[])
    text = text.replace(b'"hostname"', b'"rack":7,"hostname"')
    back = unpack(archive((MANIFEST, text), ("a", b"1")))
    assert not back.damage
    assert back.get("a").data == b"1"


def test_a_member_can_be_empty() -> None:
    """Ours never are; another writer's may be."""
    back = unpack(bundle(("a", b""), ("b", b"2")))
    assert not back.damage
    assert (back.get("a").status, back.get("a").data) == ("ok", b"")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_packed_anew_by_another_tar(form: int, tmp_path: Path) -> None:
    """Unpacked and packed again it is still a bundle, unless names changed or folders came in."""
    write(SMALL, str(tmp_path / "b.tar.gz"))
    with tarfile.open(tmp_path / "b.tar.gz") as old, tarfile.open(tmp_path / "c.tar", "w", format=form) as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
    assert read(str(tmp_path / "c.tar")).records == SMALL.records


def test_no_other_file(tmp_path: Path) -> None:
    """What somebody gives by mistake is named."""
    path = tmp_path / "x"
    other = {
        b"": "not a bundle of doctor: it is empty",
        b"{}": "not a bundle of doctor: it is no tar",
        os.urandom(5000).replace(b"\x1f", b"x"): "not a bundle of doctor: it is no tar",
        pack_gzip(b"hello" * 200): "not a bundle of doctor: what is in the gzip is no tar",
        pack_gzip(b""): "truncated after 20 bytes (the archive ends early): nothing of it could be read",
        b"\x1f\x8b\xff" + b"x" * 50: "damaged at byte N (gzip cannot be unpacked): nothing of it could be read",
        b"\x1f\x8b": "truncated after 2 bytes (gzip ends early): nothing of it could be read",
        b"\xfd7zXZ\0" + b"x" * 50: "not a bundle of doctor: it is packed by xz, not by gzip: unpack it first",
        b"BZh91AY&SY": "not a bundle of doctor: it is packed by bzip2, not by gzip: unpack it first",
        b"\x28\xb5\x2f\xfd" * 9: "not a bundle of doctor: it is packed by zstd, not by gzip: unpack it first",
    }
    for data, words in other.items():
        path.write_bytes(data)
        assert re.sub(r"byte \d+", "byte N", refused(str(path))) == f"{path}: {words}"
    with zipfile.ZipFile(path, "w") as archived:
        archived.writestr(MANIFEST, "{}")
    assert refused(str(path)) == f"{path}: not a bundle of doctor: it is a zip"


@pytest.mark.timeout(20)
def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no file is not waited for."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path, words in {
            "missing": "no such file or directory",
            "missing/x": "no such file or directory",
            "": "no such file or directory",
            ".": "it is a directory",
            "fifo": "it is a FIFO; `-` reads standard input",
            "socket": "no such device or address",
            "loop": "too many levels of symbolic links",
            "/dev/zero": "it is a device",
            "x" * 300: "file name too long",
            "a\0b": "no file can have this name",
        }.items():
            shown = {"a\0b": r"a\x00b", "x" * 300: "x" * 160 + "..."}.get(path, path)
            assert refused(path) == f"{shown}: cannot read: {words}"


def test_no_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in the words of the system; root may read all, so the system is told what to say."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert refused(str(tmp_path / "b")) == f"{tmp_path}/b: cannot read: permission denied"


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for reading."""
    (tmp_path / "b").touch()

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    assert refused(str(tmp_path / "b")) == f"{tmp_path}/b: cannot read: input/output error"


def test_a_path_cannot_paint(tmp_path: Path) -> None:
    """Nor can the name of the file itself, in errors and in `damage`."""
    path = tmp_path / "\x1b[31m\u202e\udcff.tar.gz"
    assert refused(str(path)) == rf"{tmp_path}/\x1b[31m\u202e\udcff.tar.gz: cannot read: no such file or directory"
    path.write_bytes(pack(SMALL)[:-1])
    assert read(str(path)).damage.isprintable()


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small machine says so."""

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reading, "decode", full)
    with pytest.raises(BundleError, match="refused: it does not fit into memory"):
        unpack(pack(SMALL))


CHILD = """
import sys
from doctor.bundle import BundleError, read
try:
    made = read("-")
    print(len(made.records), made.damage or made.digest())
except BundleError as error:
    print(error)
"""


def test_standard_input() -> None:
    """A pipe is read as it comes, and cut, and refused, as a file is."""
    for data, words in {
        pack(SMALL): f"5 {SMALL.digest()}",
        pack(SMALL)[:-1]: f"5 standard input: truncated after {len(pack(SMALL)) - 1:,} bytes (gzip ends early): 5 of 5",
        b"": "standard input: not a bundle of doctor: it is empty",
    }.items():
        done = subprocess.run([sys.executable, "-c", CHILD], input=data, capture_output=True, check=True)
        assert done.stdout.decode().startswith(words)
        assert not done.stderr


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_a_slow_pipe(monkeypatch: pytest.MonkeyPatch, *, plain: bool, blocking: bool) -> None:
    """Bytes that come one at a time, also by a pipe that somebody set not to block."""
    out, into = os.pipe()
    os.set_blocking(out, blocking)
    monkeypatch.setattr(reading, "_open", lambda _path: out)
    data = gunzip(pack(SMALL))[:1024] if plain else pack(SMALL)

    def trickle() -> None:
        for place in range(len(data)):
            os.write(into, data[place : place + 1])
        os.close(into)

    writer = threading.Thread(target=trickle)
    writer.start()
    try:
        if plain:
            with pytest.raises(BundleError, match=r"truncated after 1,024 bytes \(the archive ends early\)"):
                read("-")
        else:
            assert read("-").records == SMALL.records
    finally:
        writer.join()


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, it is an error in one line."""

    def closed(_handle: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    assert refused("-") == "standard input: cannot read: bad file descriptor"


def test_zeros_may_follow() -> None:
    """Tapes and block devices pad; anything else that follows gzip is refused."""
    assert not unpack(pack(SMALL) + bytes(100_000)).damage
    assert not unpack(gunzip(pack(SMALL)) + bytes(100_000)).damage
    for tail in (b"x", bytes(100_000) + b"x", pack(SMALL)):
        with pytest.raises(BundleError, match="refused: data follows the end of gzip"):
            unpack(pack(SMALL) + tail)


def test_nothing_of_a_host_is_made_up() -> None:
    """A bundle says that it is one; what was never asked for is not-run in it as on a host."""
    back = unpack(pack(SMALL))
    assert back.bundle
    assert back.meta == META
    assert back.get("never").status == "not-run"
