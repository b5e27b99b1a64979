"""Many small files as lines: the program and the function say the same, and nothing but a regular file is read."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from doctor.linux import spawn, trees
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
    """Run as a program, without anything installed, it prints what the function gives; cut, it exits with 3."""
    make(tmp_path)
    argv = spawn.own("doctor.linux.trees", str(1 << 20), str(tmp_path), "link", "diff/")
    done = subprocess.run(argv, check=True, capture_output=True)
    assert done.stdout.decode() == trees.read_tree(str(tmp_path), ["a", "b"], ("link", "diff/"), 1 << 20)[0]
    argv = spawn.own("doctor.linux.trees", "10", str(tmp_path), "link")
    cut = subprocess.run(argv, check=False, capture_output=True)
    assert cut.returncode == trees.CUT
