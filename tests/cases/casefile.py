"""Read case files: a shared base, what is different on this host, and what must be said of it. See README.md."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from doctor.places import Places
from doctor.snapshot import Kind, Meta, Record, Snapshot, Status
from doctor.sources import SOURCES, VERSION

HERE = Path(__file__).parent

PLACES = Places(
    pid=0,
    argv=(),
    binary="/usr/sbin/dockerd",
    config_file="/etc/docker/daemon.json",
    data_root="/var/lib/docker",
    exec_root="/run/docker",
    pidfile="/run/docker.pid",
    log="/var/log/docker.log",
    address="unix:///run/docker.sock",
)
"""Where a case without a base has its daemon."""

META = Meta(
    doctor="case",
    hostname="harbor",
    kernel="6.18.44",
    machine="x86_64",
    collected_at=1795510800.0,  # 2026-11-24T09:00:00Z
    utc_offset=0,
    uid=0,
    user="root",
)


class CaseError(Exception):
    """A case file that does not say what it means."""


class Given(Struct, frozen=True, forbid_unknown_fields=True):
    """A record as a case gives it; `hex` is for bytes that are no text, `same_as` copies another when all is edited."""

    name: str
    kind: Kind | None = None
    target: str | None = None
    status: Status = "ok"
    text: str = ""
    hex: str = ""
    why: str = ""
    errno: int = 0
    ms: float = 0.0
    mtime: float | None = None
    sha256: str = ""
    same_as: str = ""


class Edit(Struct, frozen=True, forbid_unknown_fields=True):
    """A small change of a record's text: one of `replace` (and `with`), `remove` (whole lines), `insert`, `append`.

    `insert` puts lines behind the first one, `append` at the end. `times` is how often a text must stand there.
    """

    record: str
    replace: str = ""
    by: str = field(default="", name="with")
    remove: str = ""
    insert: str = ""
    append: str = ""
    times: int = 1


class Expect(Struct, frozen=True, forbid_unknown_fields=True):
    """What must be said. Texts are parts of what is said; lists are complete, but for `cites`."""

    outcome: Literal["pass", "fail", "unknown", "not-applicable"]
    reason: str = ""
    subjects: tuple[str, ...] = ()
    severity: Literal["info", "warning", "error", ""] = ""
    title: str = ""
    message: str = ""
    cites: tuple[str, ...] = ()
    cure: str = ""
    for_good: str = ""
    risk: Literal["safe", "disruptive", "destructive", ""] = ""
    stops: tuple[str, ...] | None = None
    hits: str = ""
    works: str = ""
    root: str = ""
    explains: tuple[str, ...] = ()
    unsettled: tuple[str, ...] | None = None
    silent: tuple[str, ...] | Literal["all others"] = ()
    beside: tuple[str, ...] = ()
    """Other codes that fire, too, and rightly: `all others` are those that are neither this case's nor of these."""
    broken: str = ""
    """What in doctor is wrong that this case cannot hold yet; as soon as it holds, this line has to go."""


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """A case or base file as it stands."""

    base: str = ""
    meta: dict[str, Any] = {}
    record: tuple[Given, ...] = ()
    edit: tuple[Edit, ...] = ()
    remove: tuple[str, ...] = ()
    expect: Expect | None = None


class Cause(Struct, frozen=True, forbid_unknown_fields=True):
    """A cause of a chain: what it explains, the rivals that it excludes (all of them), whose cures come first, since when."""

    code: str
    explains: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    since: str = ""


class Chain(Struct, frozen=True, forbid_unknown_fields=True):
    """A host with several faults: `of` are cases whose differences all lie on their one base, then its own."""

    of: tuple[str, ...]
    cause: tuple[Cause, ...]
    record: tuple[Given, ...] = ()
    edit: tuple[Edit, ...] = ()


class Case(Struct, frozen=True):
    """A case, ready to be judged: the code, what must hold in a sentence, the snapshot, what is expected."""

    code: str
    says: str
    snapshot: Snapshot
    expect: Expect


_KINDS: dict[str, Kind] = {"tail": "file", "list": "tree"}
_SOURCES = {source.name: source for source in (*SOURCES, VERSION)}
_PREFIXES: dict[str, Kind] = {
    "api/": "api",
    "netns/": "netns",
    "proc/": "tree",
    "run/": "tree",
    "cgroup/": "tree",
    "engine/places": "kernel",
}


def _kind(name: str) -> Kind:
    source = _SOURCES.get(name)
    if source is not None:
        return _KINDS.get(source.kind) or cast("Kind", source.kind)
    return next((kind for prefix, kind in _PREFIXES.items() if name.startswith(prefix)), "file")


def _target(name: str) -> str:
    source = _SOURCES.get(name)
    if source is None:
        name = name.removeprefix("files").replace("store/containers/", f"{PLACES.data_root}/containers/")
        return f"{PLACES.exec_root}/netns" if name.startswith("run/netns") else name
    target = source.target
    for word, value in PLACES.names.items():
        target = target.replace("{" + word + "}", value)
    return target


def _read(path: Path) -> File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), type=File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise CaseError(f"{path.name}: {error}") from error


@cache
def _base(name: str) -> File:
    if not name:
        text = msgspec.json.encode(PLACES).decode()
        return File(record=(Given("engine/places", target="the running daemon", text=text),))
    file = _read(HERE / "base" / f"{name}.toml")
    if file.base or file.edit or file.remove or file.expect:
        raise CaseError(f"{name}: a base is records and meta, no more")
    return file


def base(name: str) -> Snapshot:
    """Give the snapshot of a shared base; an empty name is a host of which nothing is known but where things would be."""
    return _lay(_base(name), File())


def _lay(below: File, over: File) -> Snapshot:
    """Lay a case over a base: what is removed, then records, then edits, and copies last, so that edits reach them."""
    records: dict[str, Record] = {}
    copies: dict[str, str] = {}
    for name in over.remove:
        if not any(given.name == name for given in below.record):
            raise CaseError(f"remove: there is no record {name}")
    for given in (*(one for one in below.record if one.name not in over.remove), *over.record):
        records[given.name] = _record(given, records.get(given.name))
        copies.pop(given.name, None)
        if given.same_as:
            copies[given.name] = given.same_as
    for edit in over.edit:
        if edit.record not in records:
            raise CaseError(f"edit: there is no record {edit.record}")
        if edit.record in copies:
            records[edit.record] = replace(records[edit.record], data=records[copies.pop(edit.record)].data)
        records[edit.record] = replace(records[edit.record], data=_edited(records[edit.record], edit))
    for name, of in copies.items():
        records[name] = replace(records[name], data=records[of].data)
    meta = msgspec.convert(msgspec.to_builtins(META) | below.meta | over.meta, type=_StrictMeta)
    return Snapshot(Meta(**msgspec.structs.asdict(meta)), records)


def _record(given: Given, held: Record | None) -> Record:
    """Make a record; what it does not say of itself it has from the one that it replaces, else from the sources."""
    return Record(
        given.name,
        given.kind or (held.kind if held else _kind(given.name)),
        given.target or (held.target if held else _target(given.name)),
        given.status,
        data=bytes.fromhex(given.hex) if given.hex else given.text.encode(),
        why=given.why,
        errno=given.errno,
        ms=given.ms,
        sha256=given.sha256 or (held.sha256 if held else ""),
        mtime=given.mtime if given.mtime is not None else (held.mtime if held else 0.0),
    )


class _StrictMeta(Meta, frozen=True, forbid_unknown_fields=True):
    """Meta that refuses a misspelt field."""


def _edited(record: Record, edit: Edit) -> bytes:
    text = record.text
    given = [one for one in (edit.replace, edit.remove, edit.insert, edit.append) if one]
    if len(given) != 1:
        raise CaseError(f"edit of {record.name}: one of replace, remove, insert and append")
    if edit.insert:
        first, _, rest = text.partition("\n")
        return f"{first}\n{edit.insert.rstrip()}\n{rest}".encode()
    if edit.append:
        return (text + edit.append).encode()
    if edit.remove:
        kept = [line for line in text.split("\n") if edit.remove not in line]
        found = text.count("\n") + 1 - len(kept)
        text = "\n".join(kept)
    else:
        found = text.count(edit.replace)
        text = text.replace(edit.replace, edit.by)
    if found != edit.times:
        raise CaseError(f"edit of {record.name}: {given[0]!r} stands there {found} times, not {edit.times}")
    return text.encode()


def snapshot(path: Path) -> Snapshot:
    """Read a file that expects nothing: evidence alone. Raises CaseError."""
    file = _read(path)
    if file.expect:
        raise CaseError(f"{path.name}: what is expected stands beside it")
    return _lay(_base(file.base), file)


def load(path: Path) -> Case:
    """Read a case. Raises CaseError for a file that contradicts itself, its base or its name."""
    file = _read(path)
    if file.expect is None:
        raise CaseError(f"{path.name}: expects nothing")
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    if not first.startswith("# "):
        raise CaseError(f"{path.name}: begins with no sentence that says what must hold")
    wanted = {"fires": {"fail"}, "silent": {"pass", "not-applicable"}, "unknown": {"unknown"}}
    kind = path.stem.partition("-")[0]
    if file.expect.outcome not in wanted.get(kind, ()):
        raise CaseError(f"{path.name}: a case called {kind!r} cannot expect {file.expect.outcome}")
    if file.expect.outcome == "fail" and not file.expect.subjects:
        raise CaseError(f"{path.name}: names no subjects")
    return Case(path.parent.name, first.removeprefix("# "), _lay(_base(file.base), file), file.expect)


def load_chain(path: Path) -> tuple[Snapshot, tuple[Cause, ...]]:
    """Read a chain: the snapshot, and the causes in the order in which they must be named. Raises CaseError."""
    try:
        chain = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), type=Chain)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise CaseError(f"{path.name}: {error}") from error
    files = [_read(HERE / f"{name}.toml") for name in chain.of]
    bases = {file.base for file in files}
    if len(bases) != 1:
        raise CaseError(f"{path.name}: cases of one base, not of {', '.join(sorted(bases))}")
    over = File(
        meta={key: value for file in files for key, value in file.meta.items()},
        record=(*(one for file in files for one in file.record), *chain.record),
        edit=(*(one for file in files for one in file.edit), *chain.edit),
        remove=tuple(dict.fromkeys(name for file in files for name in file.remove)),
    )
    return _lay(_base(bases.pop()), over), chain.cause
