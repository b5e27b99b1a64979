r"""In which line of a TOML file a key stands: tomllib gives values, and a message names a line.

>>> where = Lines('title = "x"\\n[[probe]]\\nhealthy = "close"\\n')
>>> where.of("probe[0].healthy"), where.of("probe[0].nothing"), where.of("elsewhere")
(3, 2, 1)
"""

from __future__ import annotations

import re
from collections import Counter

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')(\s*\.\s*[A-Za-z0-9_-]+)*\s*=(.*)$""")
_MARKS = ('"""', "'''")


class Lines:
    """The lines of the keys of one file. Keys are written as `probe[0].healthy`, `container.web.listen`."""

    def __init__(self, text: str) -> None:
        """Look for headers and keys; what stands inside a string of several lines is none."""
        self._lines: dict[str, int] = {}
        tables: Counter[str] = Counter()
        prefix, open_string = "", ""
        for number, line in enumerate(text.split("\n"), 1):
            if open_string:
                if open_string in line:
                    open_string = ""
                continue
            header = _HEADER.match(line)
            if header:
                name = _bare(header[2])
                if header[1] == "[[":
                    prefix = f"{name}[{tables[name]}]"
                    tables[name] += 1
                else:
                    prefix = name
                self._lines.setdefault(prefix, number)
                continue
            key = _KEY.match(line)
            if key:
                name = _bare(line.partition("=")[0])
                self._lines.setdefault(f"{prefix}.{name}" if prefix else name, number)
                value = key[3]
                open_string = next((mark for mark in _MARKS if value.count(mark) % 2), "")

    def of(self, key: str) -> int:
        """Give the line of a key; of one that stands nowhere, the line of what it would stand in, else 1."""
        while key:
            if key in self._lines:
                return self._lines[key]
            key = key.rpartition(".")[0] if "." in key else key.partition("[")[0] if "[" in key else ""
        return 1


def _bare(name: str) -> str:
    return re.sub(r"""\s*\.\s*""", ".", name.strip()).replace('"', "").replace("'", "")
