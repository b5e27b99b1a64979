"""What a process of its own hands over arrives as it was; what is cut is left out; the program reads this machine."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.linux import rtnetlink, spawn, trees
from doctor.linux.frames import MODULES, Frame, frames
from doctor.linux.survey import index

if TYPE_CHECKING:
    from pathlib import Path

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FRAMES = st.builds(
    Frame,
    TEXT,
    st.sampled_from(["tree", "netns"]),
    TEXT,
    st.sampled_from(["ok", "timeout", "failed"]),
    st.integers(0, 200),
    st.integers(0, 9000).map(float),
    TEXT,
    st.binary(max_size=60),
)


@given(st.lists(FRAMES, max_size=6))
def test_frames_arrive_as_they_were(sent: list[Frame]) -> None:
    """Whatever is in a name, a reason or the data."""
    assert list(frames(b"".join(one.bytes() for one in sent))) == sent


@given(st.lists(FRAMES, min_size=1, max_size=4), st.integers(1, 200))
def test_what_is_cut_is_left_out(sent: list[Frame], gone: int) -> None:
    """The frames before the cut are whole, and nothing is made up behind it."""
    output = b"".join(one.bytes() for one in sent)
    found = list(frames(output[: max(0, len(output) - gone)]))
    assert found == sent[: len(found)]
    assert len(found) < len(sent)


@pytest.mark.parametrize("bad", [b"x\n", b"a\tblob\tt\tok\t0\t0\t0\t\n", b"a\ttree\tt\tfine\t0\t0\t0\t\n"])
def test_what_is_no_frame_ends_the_reading(bad: bytes) -> None:
    """A line of other fields, kinds or words; what came before is kept."""
    good = Frame("a", "tree", "/", "ok", 0, 1.0, "", b"data")
    assert list(frames(good.bytes() + bad + good.bytes())) == [good]


def test_namespaces_are_found_where_they_last_longest() -> None:
    """The host's own first; a process of the engine before another; a sandbox file for one that nobody lives in."""
    processes = (
        "7/stat\tf\t0.000\t7 (-) S 1\n7/ns/net\tl\t0.000\tnet:[100]\n"
        "8/stat\tf\t0.000\t8 (-) S 1\n8/ns/net\tl\t0.000\tnet:[200]\n"
        "9/stat\tf\t0.000\t9 (sh) S 1\n9/ns/net\tl\t0.000\tnet:[200]\n9/cgroup\tf\t0.000\t0::/docker/ab\n"
    )
    held = "one\tn\t0.000\tnet:[200]\ntwo\tn\t0.000\tnet:[300]\nold\tf\t1.000\t0\n"
    assert index(processes, held, "/run/docker/netns", "100") == {
        "100": "host",
        "200": "9",
        "300": "/run/docker/netns/two",
    }


def test_the_program_reads_this_machine() -> None:
    """Started without site-packages it prints who runs and what is in this namespace, as the modules give it."""
    argv = spawn.own("doctor.linux.survey", "/nowhere", ",".join(MODULES), "20")
    done = subprocess.run(argv, check=True, capture_output=True, timeout=60)
    assert not done.stderr
    found = {one.name: one for one in frames(done.stdout)}
    assert (found["run/netns"].status, found["run/netns"].why) == ("absent", "no such file or directory")
    assert f"{os.getpid()}/stat\t".encode() in found["proc/processes"].data
    assert found["netns/index"].data.count(b"\thost\n") == 1
    with rtnetlink.Route(timeout=5) as route:
        here = json.loads(route.links())
    names = [one["ifname"] for one in json.loads(found["netns/host/links"].data)]
    assert names == [one["ifname"] for one in here]
    assert {"cgroup/containers", "proc/signals"} <= found.keys()


def test_a_left_over_sandbox_is_no_namespace(tmp_path: Path) -> None:
    """A plain file is told from a mount."""
    (tmp_path / "left").touch()
    (line,) = trees.sandboxes(str(tmp_path)).splitlines()
    assert line.split("\t")[:2] == ["left", "f"]
