"""Words that every format shares: counts, lists of names, times, commands as a person types them, hostile text made safe."""

from __future__ import annotations

import shlex
from time import gmtime, strftime, struct_time
from typing import TYPE_CHECKING
from unicodedata import category

from doctor.amounts import plural
from doctor.model import Citation, Command, Edit, EditKey, Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from doctor.model import HostInfo, Moment, Remedy, Since, Step

NAMES = 5
"""Names in a list before "and N more"."""


def by_hand(text: str) -> Iterator[str]:
    """Give the lines of what a person can do: what that says, behind an arrow, has a line of its own.

    >>> list(by_hand("docker save x  ->  it failed"))
    [' by hand  docker save x', '        ->  it failed']
    """
    command, arrow, said = text.partition("  ->  ")
    yield f" by hand  {safe(command)}"
    if arrow:
        yield f"        ->  {safe(said)}"


def safe(text: str) -> str:
    r"""Make text of the host printable: control, format and bidi characters become visible escapes.

    >>> safe("web\x1b[31m")
    'web\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(char) for char in text)


def _visible(char: str) -> str:
    if char.isprintable() and category(char) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
        return char
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"  # noqa: PLR2004 - planes of Unicode


def shortened(names: Sequence[str], limit: int = NAMES) -> list[str]:
    """Give the first names, and `and N more` when there are others."""
    if len(names) <= limit:
        return list(names)
    return [*names[:limit], f"and {len(names) - limit} more"]


def middle(text: str, width: int) -> str:
    """Cut text in the middle to a width, with `...` where it was cut.

    >>> middle("abcdefghij", 7)
    'ab...ij'
    """
    if len(text) <= width:
        return text
    left = (width - 3 + 1) // 2
    right = width - 3 - left
    return text[:left] + "..." + (text[-right:] if right else "")


def command(step: Command) -> str:
    """Print a command on one line as a shell reads it.

    >>> command(Command(("ip", "link", "set", "docker0", "up")))
    'ip link set docker0 up'
    >>> command(Command(("sh", "-c", "doctor rules --missing | iptables-restore --noflush")))
    'doctor rules --missing | iptables-restore --noflush'
    """
    if step.argv[:2] == ("sh", "-c") and len(step.argv) == 3 and step.argv[2].isprintable():  # noqa: PLR2004 - a script
        return step.argv[2]
    return shlex.join(step.argv)


def step_lines(step: Step) -> list[str]:
    """Print a step: a command on its line, an edit as what goes and what comes, a note as it is."""
    if isinstance(step, Command):
        text = command(step)
        return [f"{_printed(step.stdin)} | {text}"] if step.stdin else [text]
    if isinstance(step, Edit):
        lines = [f"- {step.old}"]
        if step.new is not None:
            lines.append(f"+ {step.new}")
        return lines
    if isinstance(step, EditKey):
        key = step.pointer.lstrip("/").replace("~1", "/").replace("~0", "~")
        return [f'- "{key}"'] if step.value is None else [f'+ "{key}": {step.value}']
    return [step.text]


def _printed(stdin: str) -> str:
    """Give the command that prints this: of lines each is a word, for a line break would not be printed as one here."""
    if not stdin.endswith("\n"):
        return f"printf %s {shlex.quote(stdin)}"
    return f"printf '%s\\n' {shlex.join(stdin[:-1].split(chr(10)))}"


def step_place(step: Step) -> str:
    """Say where an edit is made; empty for what is no edit."""
    if isinstance(step, Edit):
        return f"in {step.path}, line {step.line}:"
    if isinstance(step, EditKey):
        return f"in {step.path}, take out the key:" if step.value is None else f"in {step.path}, set the key:"
    return ""


def is_plain(step: Step) -> bool:
    """Whether the step is a sentence, no command and no edit."""
    return isinstance(step, Note)


def risk(remedy: Remedy) -> str:
    """Say in words what a cure costs.

    >>> from doctor.model import Remedy
    >>> risk(Remedy("mount it", ()))
    'safe: nothing stops'
    >>> risk(Remedy("boot", (), risk="disruptive", restarts="host"))
    'disruptive: the host boots, and all that runs on it stops'
    >>> risk(Remedy("restart", (), risk="disruptive", stops=("web", "db"), stays_down=("db",)))
    'disruptive: 2 containers stop: web db; 1 would stay down: db'
    """
    stops, stays = remedy.stops, remedy.stays_down
    if remedy.restarts == "host":
        return f"{remedy.risk}: the host boots, and all that runs on it stops"
    if not stops:
        return f"{remedy.risk}: nothing stops" if remedy.risk == "safe" else f"{remedy.risk}:"
    said = f"{remedy.risk}: {plural(len(stops), 'container')} {'stops' if len(stops) == 1 else 'stop'}"
    if not stays:
        return f"{said}, and {'comes' if len(stops) == 1 else 'come'} back: {' '.join(shortened(stops))}"
    if len(stays) == len(stops):
        return f"{said}, and {'stays' if len(stops) == 1 else 'stay'} down: {' '.join(shortened(stops))}"
    return f"{said}: {' '.join(shortened(stops))}; {len(stays)} would stay down: {' '.join(shortened(stays))}"


LAST = 253402300799.0
"""9999-12-31 23:59:59 UTC: what a hostile report claims beyond that is shown as that."""


def again(code: str, evidence: Sequence[Citation]) -> str:
    """Give the command that looks whether it is healed: evidence that is had only when asked for is asked for again.

    >>> again("NET064", [Citation("probe/nameservers", 1, "192.0.2.1 udp: silent", "asked from web")])
    'doctor check --probe --only NET064'
    """
    asked = (("probe/", "--probe "), ("sample/", "--sample 5s "), ("layers/", "--deep "))
    options = "".join(option for start, option in asked if any(one.record.startswith(start) for one in evidence))
    return f"doctor check {options}--only {code}"


def _date(at: float) -> struct_time:
    return gmtime(min(max(at, 0.0), LAST))


def clock(at: float, host: HostInfo) -> str:
    """Print a time as the host's clock shows it, with the date when it is not the snapshot's day."""
    shown, today = _date(at + host.utc_offset), _date(host.collected_at + host.utc_offset)
    if shown[:3] == today[:3]:  # year, month, day
        return strftime("%H:%M:%S", shown)
    return strftime("%Y-%m-%d %H:%M:%S", shown)


def since(value: Since, host: HostInfo) -> str:
    """Print when a fault began, as exactly as the evidence says."""

    def moment(one: Moment) -> str:
        return f"{clock(one.at, host)} ({one.what})"

    if value.latest and value.exact:
        before = value.earliest
        return moment(value.latest) + (f"; {before.what} at {clock(before.at, host)}" if before else "")
    if value.earliest and value.latest:
        return f"between {moment(value.earliest)} and {moment(value.latest)}"
    if value.latest:
        return f"{clock(value.latest.at, host)} at the latest ({value.latest.what})"
    return f"later than {moment(value.earliest)}" if value.earliest else ""


def stamp(host: HostInfo) -> str:
    """Print when the snapshot was taken: `2026-11-24 08:43 +0000`."""
    sign = "-" if host.utc_offset < 0 else "+"
    hours, minutes = divmod(abs(host.utc_offset) // 60, 60)
    shown = _date(host.collected_at + host.utc_offset)
    return f"{strftime('%Y-%m-%d %H:%M', shown)} {sign}{hours:02d}{minutes:02d}"


def host_line(host: HostInfo) -> str:
    """Print the host in one line, as every report begins."""
    engine = f"Docker {host.engine}" if host.engine else "Docker"
    if host.engine_state in {"does not answer", "not running"}:
        engine += f" ({host.engine_state})"
    parts = [engine, host.firewall, host.storage, f"Linux {host.kernel}"]
    line = f"{safe(host.hostname)}: " + ", ".join(safe(part) for part in parts if part)
    if host.unreadable:
        line += f"; as {safe(host.user)}: {_and(host.unreadable)} unreadable"
    elif host.running >= 0 and host.engine_state == "answers":
        line += f"; {plural(host.running, 'container')} {'runs' if host.running == 1 else 'run'}"
    return line


def _and(words: Iterable[str]) -> str:
    held = list(words)
    return " and ".join([", ".join(held[:-1]), held[-1]] if len(held) > 1 else held)
