"""Many small files as lines: the program and the function say the same, and nothing but a regular file is read."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from doctor.linux import spawn, trees
from doctor.linux.frames import frames
from doctor.snapshot import Record, tree_entries

if TYPE_CHECKING:
    from pathlib import Path


def make(root: Path) -> None:
    """Make what a damaged store may hold."""
    for name in ("a", "b"):
        (root / name / "diff").mkdir(parents=True)
        (root / name / "link").write_text("NAME\twith\\odd\ncharacters", encoding="utf-8")
    os.mkfifo(root / "b" / "lower")
    (root / "a" / "work").symlink_to("/nowhere")


def test_every_kind_of_entry(tmp_path: Path) -> None:
    """Text is escaped, a FIFO is not opened for reading, a dangling link is a link, absence is told where looked for."""
    make(tmp_path)
    text, cut = trees.read_tree(str(tmp_path), ["a", "b"], ("link", "lower", "diff/", "work/"), 1 << 20)
    assert not cut
    found = {
        entry.path: (entry.type, entry.content) for entry in tree_entries(Record("x", "tree", "/", data=text.encode()))
    }
    assert found == {
        "a/link": ("f", "NAME\twith\\odd\ncharacters"),
        "a/diff": ("d", ""),
        "a/work": ("l", "/nowhere"),
        "b/link": ("f", "NAME\twith\\odd\ncharacters"),
        "b/lower": ("o", "10644"),
        "b/diff": ("d", ""),
        "b/work": ("-", ""),
    }


def test_the_program_says_the_same(tmp_path: Path) -> None:
    """Run as a program, without anything installed, it prints what the function gives; one that is cut or absent says so."""
    make(tmp_path / "store\tof\nlayers")
    root = str(tmp_path / "store\tof\nlayers")
    wanted = [
        trees.Wanted(root, ("link", "diff/"), 1 << 20),
        trees.Wanted(root, ("link",), 10),
        trees.Wanted(root + "/gone", ("@",), 10),
    ]
    argv = spawn.own("doctor.linux.trees", *(one.argument() for one in wanted))
    done = subprocess.run(argv, check=True, capture_output=True)
    whole, cut, gone = frames(done.stdout)
    assert whole.data.decode() == trees.read_tree(root, ["a", "b"], ("link", "diff/"), 1 << 20)[0]
    assert (whole.status, whole.target, whole.kind) == ("ok", root, "tree")
    assert cut.status == "truncated"
    assert cut.data.count(b"\n") == 1
    assert (gone.status, gone.why, gone.data) == ("absent", "no such file or directory", b"")


def test_a_file_is_read_to_its_limit(tmp_path: Path) -> None:
    """A file longer than what is asked for at first is read on, up to 64 KiB."""
    (tmp_path / "long").write_text("x" * 5000, encoding="utf-8")
    (tmp_path / "longer").write_text("x" * 70000, encoding="utf-8")
    text, _ = trees.read_tree(str(tmp_path), ["."], ("long", "longer"), 1 << 20)
    found = tree_entries(Record("x", "tree", "/", data=text.encode()))
    assert [len(entry.content) for entry in found] == [5000, trees.SMALL]
