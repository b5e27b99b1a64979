"""Words of records, and lines of fields: how a tree record spells its entries, `path TAB type TAB mtime TAB content`.

Whoever reads a host writes them, in a process without third-party packages too, and whoever judges reads them:
`doctor.snapshot.TreeEntry` says what they mean.
"""

from __future__ import annotations

from typing import Literal

Status = Literal["ok", "absent", "denied", "timeout", "truncated", "failed", "not-run"]
Kind = Literal["file", "tree", "command", "api", "netns", "kernel"]
"""What became of a piece of evidence, and what it is: see `doctor.snapshot.Record`."""

_UNESCAPED = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


def escape(text: str) -> str:
    """Make text fit into one field of one line; `unescape` is the inverse."""
    if "\\" in text or "\t" in text or "\n" in text or "\r" in text:
        return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return text


def unescape(text: str) -> str:
    """Take back what `escape` did; an unknown escape stays as it stands."""
    if "\\" not in text:
        return text
    if "\\\\" not in text:  # no escaped backslash, so every escape is what it looks like
        return text.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")
    out: list[str] = []
    rest = iter(text)
    for char in rest:
        if char != "\\":
            out.append(char)
            continue
        after = next(rest, "")
        out.append(_UNESCAPED.get(after, "\\" + after))
    return "".join(out)


def tree_line(path: str, kind: str, mtime: float, content: str = "") -> str:
    """Print one entry of a tree record, newline included."""
    return f"{escape(path)}\t{kind}\t{mtime:.3f}\t{escape(content)}\n"
