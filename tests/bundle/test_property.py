"""Any snapshot comes back as it was, and nothing that is read raises anything but BundleError."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.bundle import MANIFEST, BundleError, pack
from doctor.snapshot import Meta, Record, Snapshot
from tests.bundle.samples import SMALL, archive, entry, gunzip, manifest, pack_gzip, snapshot, unpack
from tests.bundle.test_damage import agree

if TYPE_CHECKING:
    from collections.abc import Callable

quick = settings(max_examples=min(60, settings.default.max_examples))
texts = st.text(st.characters(codec="utf-8"), max_size=40)
names = st.one_of(
    texts,
    st.lists(st.sampled_from(("a", "b", "..", ".", "", "etc", "x" * 60, "\xe9", "\n", MANIFEST)), max_size=5).map(
        "/".join
    ),
)
times = st.one_of(st.just(0.0), st.floats(-62e9, 253e9, allow_nan=False))
counts = st.one_of(st.just(0), st.integers(0, 1 << 62))
digests = st.one_of(st.just(""), st.binary(min_size=32, max_size=32).map(bytes.hex))
records = st.builds(
    Record,
    name=names,
    kind=st.sampled_from(("file", "tree", "command", "api", "netns", "kernel")),
    target=texts,
    status=st.sampled_from(("ok", "absent", "denied", "timeout", "truncated", "failed", "not-run")),
    data=st.one_of(st.just(b""), st.binary(max_size=1500)),
    why=texts,
    errno=st.integers(0, 133),
    ms=st.integers(0, 10**7).map(lambda number: number / 1000),
    size=counts,
    sha256=digests,
    mtime=times,
    redactions=counts,
)
metas = st.builds(
    Meta,
    doctor=texts,
    hostname=texts,
    kernel=texts,
    machine=texts,
    collected_at=st.floats(0, 253e9),
    utc_offset=st.integers(-86_399, 86_399),
    uid=st.integers(0, (1 << 32) - 1),
    user=texts,
    seconds=st.floats(0, 1e6),
)
snapshots = st.builds(
    Snapshot,
    metas,
    st.lists(records, max_size=8).map(lambda held: {one.name: one for one in held}),
    st.dictionaries(texts, counts, max_size=4),
)


def survives(data: bytes) -> Snapshot | None:
    """Read anything. What is raised is BundleError, in one line that can be shown."""
    try:
        made = unpack(data)
    except BundleError as error:
        assert str(error).isprintable()  # noqa: PT017 - it may also be a bundle
        return None
    assert made.damage.isprintable()
    made.digest()
    return made


@given(snapshots)
@quick
def test_round_trip(made: Snapshot) -> None:
    """Every field but `bundle`, and the same digest of the evidence; written again, the same bytes."""
    packed = pack(made)
    for data in (packed, gunzip(packed)):
        back = unpack(data)
        assert back == Snapshot(made.meta, made.records, made.removed, bundle=True)
        assert list(back.records) == list(made.records)
        assert back.digest() == made.digest()
    assert pack(back) == packed


@given(snapshots, st.data())
@quick
def test_cut(made: Snapshot, data: st.DataObject) -> None:
    """Cut anywhere: refused, or told, and what is left is whole."""
    packed = pack(made)
    for form in (packed, gunzip(packed)):
        back = survives(form[: data.draw(st.integers(0, len(form) - 1))])
        if back:
            assert "truncated after" in back.damage
            agree(back, made)


@given(snapshots, st.data())
@quick
def test_flip(made: Snapshot, data: st.DataObject) -> None:
    """Any byte made another one: refused, or told, and what is left is whole."""
    packed = pack(made)
    for form in (packed, gunzip(packed)):
        flipped = bytearray(form)
        flipped[data.draw(st.integers(0, len(form) - 1))] ^= data.draw(st.integers(1, 255))
        back = survives(bytes(flipped))
        if back:
            agree(back, made)


@given(st.data())
@quick
def test_torn(data: st.DataObject) -> None:
    """Pieces lost, doubled, put in: never a traceback, and never altered data as whole."""
    for form in (pack(SMALL), gunzip(pack(SMALL))):
        low = data.draw(st.integers(0, len(form)))
        high = data.draw(st.integers(0, len(form)))
        back = survives(form[:low] + data.draw(st.binary(max_size=20)) + form[high:])
        if back:
            agree(back, SMALL)


@given(st.binary(max_size=2000))
@quick
def test_random_bytes(data: bytes) -> None:
    """Bytes that mean nothing, as a file, as gzip, behind the magic number, as a header, as a manifest."""
    assert survives(data) is None
    assert survives(pack_gzip(data)) is None
    assert survives(b"\x1f\x8b\x08\0" + data) is None
    assert survives(archive((MANIFEST, data))) is None
    assert survives(gunzip(pack(SMALL))[:512] + data) is None


@given(st.binary(max_size=600))
@quick
def test_random_bytes_behind_a_manifest(data: bytes) -> None:
    """A whole manifest, and then nonsense."""
    head = archive((MANIFEST, manifest(entry("a", b"1"))))
    assert not (made := survives(head[:1024] + data)) or made.damage


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(1 << 70), 1 << 70),
        st.floats(),
        st.text(max_size=10),
        st.sampled_from(("ok", "file", "a", "../a", MANIFEST, "manifest.json/..")),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Give the path of every value inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inside for place in places(one, (*at, key)))]


def changed(value: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """Give a value with the value at a path changed."""
    if not at:
        return change(value)
    copy = value.copy()
    copy[at[0]] = changed(value[at[0]], at[1:], change)
    return copy


@given(st.data())
@settings(max_examples=3 * settings.default.max_examples // 2)
def test_any_manifest(data: st.DataObject) -> None:
    """A right manifest with anything anywhere: refused, or its records are what the types say."""
    whole = json.loads(manifest(entry("a", b"1", errno=2, mtime=1.5), entry("b", b"2"), removed={"label": 1}))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(places(whole)))
        new = data.draw(values)
        whole = changed(whole, at, lambda _old, new=new: new)  # type: ignore[misc]  # mypy has no type for the default
        if not isinstance(whole, dict):
            break
    text = json.dumps(whole).encode("utf-8", "surrogatepass")
    made = survives(archive((MANIFEST, text), ("a", b"1"), ("b", b"2")))
    if made:
        for name, record in made.records.items():
            assert record.name == name
            assert record.data in {b"", b"1", b"2"}
        assert survives(pack(made))


def test_an_empty_snapshot() -> None:
    """The least there can be."""
    back = unpack(pack(snapshot()))
    assert back.records == {}
    assert not back.damage
