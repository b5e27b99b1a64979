"""The daemon's words for its configuration are those that live engines printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.runtime.daemon.config import ConfigError, refused, settings

HERE = Path(__file__).parent
ALWAYS = ("-p", "/tmp/d.pid", "-H", "unix:///tmp/d.sock", "--data-root", "/tmp/dr", "--exec-root", "/tmp/er")
"""What the engines that were asked had on their command line."""
NOT_OURS = ("Error initializing network controller", "group nogrp")
"""Said by whoever sets up networks or the socket."""


def _rows() -> list[tuple[str, str, str, str]]:
    lines = (HERE / "words.tsv").read_text(encoding="utf-8").split("\n")
    rows = [tuple(line.split("\t")) for line in lines if line and not line.startswith("#")]
    return [row for row in rows if not any(words in row[3] for words in NOT_OURS)]  # type: ignore[misc]


def _said(dialect: str, text: str, flags: str) -> str:
    argv = ("--config-file", "FILE", *ALWAYS, *flags.split())
    try:
        told = settings(argv, text, dialect)
    except ConfigError as error:
        return error.text.split("\n")[0]
    said = refused(told)
    return f"failed to start daemon: {said}" if said else ""


@pytest.mark.parametrize("row", _rows(), ids=lambda row: f"{row[0]}:{row[1]}{row[2]}")
def test_words_are_the_engines(row: tuple[str, str, str, str]) -> None:
    """One question, one answer."""
    dialect, text, flags, said = row
    assert _said(dialect, text, flags) == said
