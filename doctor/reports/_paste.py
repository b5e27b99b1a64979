"""What a person copies out of the page: commands for a shell, and the text for a ticket."""

from __future__ import annotations

import shlex
from io import StringIO
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.reports import text, words
from doctor.reports._visible import BLANK, HIDDEN, Clock, one_line, spelled

if TYPE_CHECKING:
    import re

    from doctor.model import Command, HostInfo, Report

TICKET_LINES = 12
"""Lines of the text for a ticket, at most."""

_TICKET_WIDTH = 400


def command_line(command: Command) -> str:
    r"""Print a command as one physical line that a shell reads back as the same arguments and standard input.

    What cannot be seen is written as `$'...'`, which bash, zsh, ksh and POSIX 2024 know.

    >>> command_line(Command(("sh", "-c", "doctor rules --missing | iptables-restore --noflush")))
    'doctor rules --missing | iptables-restore --noflush'
    >>> print(command_line(Command(("tee", "/etc/a b"), "x=1\ny=2\n")))
    printf '%s\n' x=1 y=2 | tee '/etc/a b'
    >>> print(command_line(Command(("docker", "rm", "it's\x1b"))))
    docker rm $'it\'s\x1b'
    """
    line = " ".join(_quoted(argument) for argument in command.argv)
    if not command.stdin:
        script = command.argv[2] if command.argv[:2] == ("sh", "-c") and command.argv[3:] == () else ""
        return script if script.strip() and one_line(script) == script else line
    lines = command.stdin.split("\n")
    if lines.pop() or any(one_line(each) != each for each in lines):
        return f"printf %s {_quoted(command.stdin)} | {line}"
    return f"printf '%s\\n' {' '.join(_quoted(each) for each in lines)} | {line}"


_RAW = range(0xDC80, 0xDD00)  # bytes that were not UTF-8, as os.fsdecode() keeps them

_C1 = range(0x80, 0x100)  # to a shell \x is a byte, so these take \u


def _quoted(argument: str) -> str:
    if one_line(argument) == argument:
        return shlex.quote(argument)

    def escape(match: re.Match[str]) -> str:
        code = ord(match.group())
        if code in _RAW:
            return f"\\x{code - 0xDC00:02x}"
        return f"\\u{code:04x}" if code in _C1 else spelled(match)

    escaped = argument.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{BLANK.sub(escape, HIDDEN.sub(escape, escaped))}'"


def ticket(report: Report) -> list[str]:
    """Give the report as `--format short` does, in at most twelve lines of ASCII, to paste where people talk."""
    held = StringIO()
    plain = replace(
        report,
        host=_datable(report),
        doctor=one_line(report.doctor),
        diagnoses=tuple(replace(each, code=one_line(each.code)) for each in report.diagnoses),
    )
    text.short(plain, held)
    lines = []
    for raw in held.getvalue().rstrip("\n").split("\n"):
        line = one_line(raw).encode("ascii", "backslashreplace").decode()
        lines.append(line if line.startswith("  cure") else words.middle(line, _TICKET_WIDTH))
    heads = [number for number, line in enumerate(lines) if not line.startswith("  ")][1:]  # each cause, and the counts
    if len(lines) > TICKET_LINES:
        keep = max(number for number in heads if number + 2 <= TICKET_LINES)
        lines[keep:-1] = [f"and {len(heads) - 1 - heads.index(keep)} more"]
    return lines


def _datable(report: Report) -> HostInfo:
    host = report.host
    if Clock(host.collected_at, host.utc_offset).iso(host.collected_at):
        return host
    return replace(host, collected_at=0.0, utc_offset=0)
