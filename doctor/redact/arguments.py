"""Secrets in a command line that is split into words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from doctor.redact.limits import LONG
from doctor.redact.names import PLAIN, STRONG, WEAK, level_of
from doctor.redact.tokens import GUILLEMET, TOKEN
from doctor.redact.values import PATH, PIN, is_quoted, looks_random, masked, trivial

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAMS: dict[bytes, dict[bytes, str]] = {
    b"mysql": {b"-p": "glued"},
    b"redis-cli": {b"-a": "next", b"--pass": "next"},
    b"curl": {b"-u": "user", b"--user": "user", b"-U": "user", b"--proxy-user": "user"},
    b"wget": {b"--user": "user"},
    b"sshpass": {b"-p": "both"},
    b"mongo": {b"-p": "next"},
    b"ldap": {b"-w": "both"},
    b"docker": {b"-e": "env", b"--env": "env", b"--build-arg": "env"},
    b"podman": {b"-e": "env", b"--env": "env", b"--build-arg": "env"},
    b"nerdctl": {b"-e": "env", b"--env": "env", b"--build-arg": "env"},
    b"login": {b"-p": "next"},
    b"sqlcmd": {b"-P": "both"},
    b"ipmitool": {b"-P": "next"},
    b"smbclient": {b"-U": "percent"},
    b"etcdctl": {b"--user": "user"},
    b"influx": {b"-password": "next"},
    b"7z": {b"-p": "glued"},
    b"zip": {b"-P": "next"},
    b"unzip": {b"-P": "next"},
    b"useradd": {b"-p": "next"},
    b"usermod": {b"-p": "next"},
    b"htpasswd": {},
    b"rabbitmqctl": {b"add_user": "second", b"change_password": "second"},
}
"""Short flags that hold a password: glued to it, the next word, the one after that, either, `user:password`, or
`user%password`."""
_FAMILIES = ((b"mysql", b"mysql"), (b"mariadb", b"mysql"), (b"mongo", b"mongo"), (b"ldap", b"ldap"))

_BATCH = re.compile(rb"-[A-Za-z]{0,8}b[A-Za-z]{0,8}\Z")
"""htpasswd takes the password from its last word."""
_CLUSTER = re.compile(rb"-[A-Za-z]{2,8}\Z")


def _flags_of(word: bytes) -> dict[bytes, str] | None:
    """Give the password flags of a program by its path; None when it is no program known for such."""
    name = word[word.rfind(b"/") + 1 :]
    for prefix, family in _FAMILIES:
        if name.startswith(prefix):
            return _PROGRAMS[family]
    return _PROGRAMS.get(name)


class Part(NamedTuple):
    """What is secret in a command line: a word, from where to where; or a variable that it hands to a container."""

    word: int
    start: int
    end: int
    environment: bool = False


def secrets_in(args: list[bytes]) -> Iterator[Part]:
    """Find secrets by flags and names in a command line that is split into words."""
    flags: dict[bytes, str] = {}
    wanted = ""
    if any(arg.endswith(b"htpasswd") for arg in args) and any(_BATCH.match(arg) for arg in args):
        yield Part(len(args) - 1, 0, len(args[-1]))
    for number, arg in enumerate(args):
        want, wanted = wanted, ""
        if GUILLEMET in arg and TOKEN.search(arg):
            continue
        if want == "second":
            wanted = "next"
            continue
        part = _wanted_part(number, arg, want) if want else None
        if part is not None:
            yield part
        elif arg.startswith(b"-"):
            wanted, part = _flag(number, arg, flags)
        elif arg in flags:
            wanted = flags[arg]
        elif not want:
            known = _flags_of(arg)
            flags = flags if known is None else known
            script = b" " in arg and not args[0].startswith(b"|")  # `sh -c "PASSWORD=x psql"`: read as text
            part = _named_part(number, arg) if known is None and b"=" in arg and not script else None
        if part is not None and not want:
            yield part


def _flag(number: int, arg: bytes, flags: dict[bytes, str]) -> tuple[str, Part | None]:
    """Judge a flag: what it wants of the next word, or the secret that it has in it."""
    name, equals, value = arg.partition(b"=")
    action = flags.get(name, "")
    if not action and _CLUSTER.match(name) and flags.get(b"-" + name[-1:]) == "user":
        action = "user"
    if equals:
        part = _wanted_part(number, value, action) if action in {"user", "env"} else None
        if part is None:
            return "", _named_part(number, arg)
        shift = len(name) + 1
        return "", part._replace(start=part.start + shift, end=part.end + shift)
    if action and action != "glued":
        return ("next" if action == "both" else action), None
    for flag, way in flags.items():
        if way in {"glued", "both"} and arg.startswith(flag) and len(arg) > len(flag) and not trivial(arg[len(flag) :]):
            return "", Part(number, len(flag), len(arg))
    return {STRONG: "strong", WEAK: "weak"}.get(level_of(name), ""), None


def _wanted_part(number: int, arg: bytes, want: str) -> Part | None:
    """Judge the word after a flag that wants one."""
    if want in {"user", "percent"}:
        at = arg.find(b":" if want == "user" else b"%") + 1
        return Part(number, at, len(arg)) if 0 < at < len(arg) and not masked(arg[at:]) else None
    if want == "env":
        return Part(number, 0, len(arg), environment=True) if b"=" in arg else None
    if not arg or trivial(arg) or (want != "next" and (arg.startswith(b"-") or PATH.match(arg))):
        return None
    return Part(number, 0, len(arg)) if want != "weak" or looks_random(arg) else None


def _named_part(number: int, arg: bytes) -> Part | None:
    """Judge `name=value` and `--name=value`."""
    name, _, value = arg.partition(b"=")
    level = level_of(name) if len(name) <= LONG else PLAIN
    if not value or not level or trivial(value) or PATH.match(value) or (value.isdigit() and len(value) < PIN):
        return None
    start = len(name) + 1
    quoted = is_quoted(value)
    return Part(number, start + quoted, len(arg) - quoted) if level == STRONG or looks_random(value) else None
