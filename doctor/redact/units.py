"""Units of systemd and their drop-ins, and files of environment variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from doctor.redact.limits import LARGEST_UNIT
from doctor.redact.names import FLAG_ENV
from doctor.redact.tokens import TOKEN, WITHHELD
from doctor.redact.values import is_quoted

if TYPE_CHECKING:
    from doctor.redact.settings import Settings

_SECTION = re.compile(rb"^[ \t]*\[[A-Za-z\-]+\][ \t]*\r?$", re.MULTILINE)
_UNIT_ENV = re.compile(rb"[ \t#;]*(?:Environment|DefaultEnvironment|ManagerEnvironment)[ \t]*=[ \t]*")
_UNIT_CREDENTIAL = re.compile(rb"[ \t]*SetCredential[ \t]*=[ \t]*[\w.\-]+:")
_FILE_ENV = re.compile(rb"[ \t#]*(?:export[ \t]+|set[ \t]+-x[ \t]+)?([A-Za-z_]\w*)=(.*?)[ \t\r]*\Z", re.DOTALL)
_ANY_TOKEN = "«[^»]{1,40}»".encode()
_UNIT_WORD = re.compile(
    rb"\"((?:[^\"\\]|\\.){0,4096})\"|'([^']{0,4096})'|((?:[^\s\"'\\]|\\.)(?:" + _ANY_TOKEN + rb"|[^\s\\]|\\\S)*)"
)


def unit(data: bytes, settings: Settings) -> bytes:
    """Scrub a unit, a drop-in (both have sections), or a file of environment variables (it has none)."""
    if len(data) > LARGEST_UNIT:
        return WITHHELD

    def word(match: re.Match[bytes]) -> bytes:
        content = match[match.lastindex or 0]
        return match[0].replace(content, settings.env(content), 1) if b"=" in content else match[0]

    lines = data.split(b"\n")
    unit = _SECTION.search(data) is not None
    continued = False
    for number, line in enumerate(lines):
        if not unit:
            lines[number] = _file_variable(line, settings)
            continue
        match = _UNIT_ENV.match(line)
        if match or continued:
            start = match.end() if match else 0
            lines[number] = line[:start] + _UNIT_WORD.sub(word, line[start:])
            continued = line.rstrip().endswith(b"\\")
        elif credential := _UNIT_CREDENTIAL.match(line):
            value = line[credential.end() :].strip()
            if value and not TOKEN.fullmatch(value):
                lines[number] = line[: credential.end()] + settings.known.token(value, "environment")
    return settings.texts.text(b"\n".join(lines))


def _file_variable(line: bytes, settings: Settings) -> bytes:
    match = _FILE_ENV.match(line)
    if match is None:
        return line
    name, value = match.groups()
    start, end = match.span(2)
    if is_quoted(value):
        start, end = start + 1, end - 1
    if name.upper() in FLAG_ENV:
        return line[:start] + settings.texts.text(line[start:end], "command line") + line[end:]
    return line[:start] + settings.env(name + b"=" + line[start:end])[len(name) + 1 :] + line[end:]
