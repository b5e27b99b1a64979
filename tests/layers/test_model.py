"""Lines of a record of layers: what is printed is read again, and what is none is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from doctor.layers.model import Checked, Damage, Run, Unread, dump, load, shown

TEXT = st.text(max_size=20)
LINES = st.one_of(
    st.builds(Run, TEXT, st.integers(0, 9), st.integers(0, 1 << 60), seed=TEXT, asked=st.tuples(TEXT)),
    st.builds(Checked, TEXT, TEXT, st.just("damaged"), found=TEXT, files=st.integers(0, 1 << 40)),
    st.builds(Damage, TEXT, TEXT, st.just("whiteout lost"), TEXT, TEXT, offset=st.integers(-1, 1 << 60)),
    st.builds(Unread, TEXT, TEXT, TEXT),
)


@given(st.lists(LINES, max_size=5))
def test_lines_are_read_as_they_were_printed(lines: list[Run | Checked | Damage | Unread]) -> None:
    """Printing and reading are inverse."""
    assert list(load(dump(lines))) == list(enumerate(lines, 1))


@given(st.binary(max_size=80))
def test_a_hostile_record_is_no_error(data: bytes) -> None:
    """Nothing is raised for any bytes."""
    list(load(data))


def test_what_is_no_line_is_left_out_and_the_numbers_stay() -> None:
    """Numbers of lines are those of the record."""
    good = dump([Unread("l", "/a", "in use")])
    assert [number for number, _ in load(b'{"type":"nothing"}\n[]\n\xff\n' + good)] == [4]


@given(st.binary(max_size=40))
def test_every_name_can_be_shown(name: bytes) -> None:
    """A name of any bytes can stand in a line."""
    assert dump([Unread("", shown(name), "")])
