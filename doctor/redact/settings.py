"""Names with values: variables, labels, options; command lines and image histories, which have such in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from doctor.redact.arguments import secrets_in
from doctor.redact.limits import MANY_WORDS, MEMO
from doctor.redact.names import KEPT_ENV, KEPT_PREFIXES, STRONG, WEAK, env_level, level_of
from doctor.redact.tokens import COUNTED, WITHHELD, only_tokens
from doctor.redact.values import ANY_PATH, NUMBER, PATH, URL, is_quoted, login_in_user, looks_random, masked, trivial

if TYPE_CHECKING:
    from doctor.redact.known import Known
    from doctor.redact.texts import Texts

_VERSION_VALUE = re.compile(rb"[vV]?\d[\w.+~:\-]{0,40}\Z")

_NOP = re.compile(rb"(?:/bin/sh -c )?#\(nop\)\s+")
_INSTRUCTION = re.compile(rb"(ENV|ARG|LABEL)\s+", re.IGNORECASE)
_BUILD_ARGS = re.compile(rb"(?:RUN )?\|(\d{1,4}) ")
_ASSIGNMENT = re.compile(rb"(?:\A|(?<=\s))[\"']?([A-Za-z_][\w.\-/]*)[\"']?=")
_SHELL = re.compile(rb"\s(?=/\S*sh -\w*c\b|/\S+ -\w*c )")

_NEXT_URL = re.compile(rb"([,\s]+)(?=(?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]{0,20}://)")
_URL_PARTS = re.compile(
    rb"((?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]{0,20}:(?:[a-z0-9]{1,16}:)?//)"
    rb"(?:([^/?#]*|[^/?#@:]+:(?!\d{1,5}/)[^@\s]*)@)?([^/?#@]*)(.*)\Z",
    re.DOTALL,
)
_LOCAL_SCHEMES = frozenset((b"unix://", b"fd://", b"file://", b"npipe://"))
_HOSTS = re.compile(rb"[\w.\-:\[\]%,*]*\Z")
_SHORT = re.compile(rb"[A-Za-z0-9._/+\-]{0,15}\Z|\d*\Z|[0-9a-f]{64}\Z|sha256:[0-9a-f]{64}\Z")
"""Values too short or too plain for any pattern: not worth trying them all."""


class Settings:
    """Scrubs what has a name, by its name; remembers it, for containers and images repeat each other."""

    def __init__(self, known: Known, texts: Texts) -> None:
        """Remember nothing."""
        self.known = known
        self.texts = texts
        self._envs: dict[bytes, bytes] = {}
        self._instructions: dict[bytes, bytes] = {}
        self._argvs: dict[tuple[bytes, ...], list[bytes]] = {}
        self._options: dict[tuple[bytes, bytes, str], bytes] = {}

    def env(self, text: bytes) -> bytes:
        """Scrub `NAME=value` of an environment: a value is kept only when its name is known to be harmless."""
        new = self._envs.get(text)
        if new is None:
            if len(self._envs) > MEMO:
                self._envs.clear()
            name, equals, value = text.partition(b"=")
            new = self._envs[text] = name + equals + self._env_value(name, value) if value else text
        return new

    def _env_value(self, name: bytes, value: bytes) -> bytes:
        bare = name.strip().upper()
        if bare in KEPT_ENV or bare.startswith(KEPT_PREFIXES) or only_tokens(value):
            return value
        if bare.endswith(b"_VERSION") and _VERSION_VALUE.match(value):
            return value
        level = env_level(name)
        if level and not trivial(value) and not PATH.match(value) and (level == STRONG or not NUMBER.match(value)):
            if b"=" in value or b"@" in value:
                self.texts.text(value, "environment")  # learns what a connection string has in it
            return self.known.token(value, "environment", strong=level == STRONG)
        if URL.match(value):
            return self._env_urls(name, value)
        if bare.startswith(b"DOCKER") and (ANY_PATH.match(value) or NUMBER.match(value)):
            return value
        if _SHORT.match(value):
            return WITHHELD
        tokens = COUNTED.findall(self.texts.text(value, "environment"))
        return b" ".join([WITHHELD, *dict.fromkeys(tokens)]) if tokens else WITHHELD

    def _env_urls(self, name: bytes, value: bytes) -> bytes:
        """Keep scheme, host and port of one or more URLs: they are what a proxy or a daemon's address is read for."""
        kind = "proxy password" if b"PROXY" in name.upper() else "environment"
        return b"".join(self._env_url(part, kind) for part in _NEXT_URL.split(value))

    def _env_url(self, url: bytes, kind: str) -> bytes:
        if not url.strip(b", \t"):
            return url
        match = _URL_PARTS.match(url)
        if match is None:
            return WITHHELD
        scheme, info, host, rest = match.groups()
        if scheme.lower() in _LOCAL_SCHEMES:
            return url
        if info is None:
            login = b""
        else:
            user, colon, password = info.partition(b":")
            if login_in_user(user, password):
                user = self.known.token(unquote_to_bytes(user), kind)
            elif user and not only_tokens(user):
                user = WITHHELD
            if password and not masked(password):
                password = self.known.token(unquote_to_bytes(password), kind)
            login = user + colon + password + b"@"
        if not _HOSTS.match(host):
            host = WITHHELD
        if rest not in {b"", b"/"} and not only_tokens(rest.lstrip(b"/")):
            tokens = [] if _SHORT.match(rest) else COUNTED.findall(self.texts.text(b"//" + host + rest, kind))
            rest = b"/" + (b" ".join(dict.fromkeys(tokens)) or WITHHELD)
        return scheme + login + host + rest

    def pair(self, text: bytes, kind: str) -> bytes:
        """Scrub `name=value` of a label or an option."""
        name, equals, value = text.partition(b"=")
        return name + equals + self.option(name, value, kind) if equals else text

    def option(self, name: bytes, value: bytes, kind: str) -> bytes:
        """Scrub the value of a label, an option, a build argument: it is kept unless its name or itself looks secret."""
        key = (name, value, kind)
        new = self._options.get(key)
        if new is None:
            if len(self._options) > MEMO:
                self._options.clear()
            new = self._options[key] = self._option_value(name, value, kind)
        return new

    def _option_value(self, name: bytes, value: bytes, kind: str) -> bytes:
        if not value or trivial(value):
            return value
        level = level_of(name)
        if (level == STRONG and not PATH.match(value)) or (level == WEAK and looks_random(value.replace(b"$$", b"$"))):
            return self.known.token(value, kind)
        return value if _SHORT.match(value) else self.texts.text(value, kind)

    def argv(self, args: list[bytes], kind: str) -> list[bytes]:
        """Scrub a command line that is already split into words."""
        key = (kind.encode(), *args)
        news = self._argvs.get(key)
        if news is None:
            if len(self._argvs) > MEMO:
                self._argvs.clear()
            news = self._argvs[key] = self._argv_words(args, kind)
        return news

    def _argv_words(self, args: list[bytes], kind: str) -> list[bytes]:
        news = list(args)
        if args and _BUILD_ARGS.match(args[0] + b" "):
            kind = "build argument"
        for part in secrets_in(args):
            arg = args[part.word]
            if part.environment:
                news[part.word] = arg[: part.start] + self.env(arg[part.start :])
            else:
                news[part.word] = (
                    arg[: part.start] + self.known.token(arg[part.start : part.end], kind) + arg[part.end :]
                )
        for number, (old, new) in enumerate(zip(args, news, strict=True)):
            if new == old and old.startswith((b"#(nop)", b"|")):
                news[number] = self.history(old, kind)
            elif new == old and b" " in old:
                news[number] = self.texts.text(old, kind)
        return news

    def instruction(self, text: bytes) -> bytes:
        """Scrub one line of an image's history; images that were built on one another share many."""
        new = self._instructions.get(text)
        if new is None:
            if len(self._instructions) > MEMO:
                self._instructions.clear()
            new = self._instructions[text] = self.history(text, "image history")
        return new

    def history(self, text: bytes, kind: str) -> bytes:
        """Scrub one line of an image's history or one instruction of ONBUILD."""
        nop = _NOP.match(text)
        start = nop.end() if nop else 0
        arguments = _BUILD_ARGS.match(text, start)
        if arguments:
            shell = _SHELL.search(text, arguments.end())
            end = shell.start() if shell else len(text)
            known = self._assignments(text, arguments.end(), end, "ARG")
            return text[: arguments.end()] + known + self.texts.text(text[end:], kind)
        instruction = _INSTRUCTION.match(text, start)
        if instruction is None:
            return self.texts.text(text, kind)
        what = instruction[1].decode().upper()
        return text[: instruction.end()] + self._assignments(text, instruction.end(), len(text), what)

    def _assignments(self, text: bytes, start: int, end: int, what: str) -> bytes:
        """Scrub `A=x B=y`, where a value reaches to the next name; `ENV A x y` too."""
        found = list(_ASSIGNMENT.finditer(text, start, end))
        if not found or found[0].start() > start:
            name, blank, value = text[start:end].partition(b" ")
            if b"=" in name or not blank:
                return self.texts.text(text[start:end], "image history")
            return name + blank + self._assigned(name, value, what)
        out: list[bytes] = []
        for number, match in enumerate(found):
            stop = found[number + 1].start() if number + 1 < len(found) else end
            value = text[match.end() : stop]
            bare = value.strip()
            if is_quoted(bare):
                bare = bare[1:-1]
            out.append(match[0] + (value.replace(bare, self._assigned(match[1], bare, what), 1) if bare else value))
        return b"".join(out)

    def _assigned(self, name: bytes, value: bytes, what: str) -> bytes:
        if what == "ENV":
            return self.env(name + b"=" + value)[len(name) + 1 :]
        return self.option(name, value, "label" if what == "LABEL" else "build argument")

    def environ(self, data: bytes) -> bytes:
        """Scrub the environment of a process, or lines of one."""
        separator = b"\0" if b"\0" in data else b"\n"
        new = separator.join([self.env(text) if text else text for text in data.split(separator)])
        return self.texts.text(new, "environment", everything=False)

    def cmdline(self, data: bytes) -> bytes:
        """Scrub a command line as the kernel shows it."""
        args = data.split(b"\0")
        if len(args) > MANY_WORDS:
            args = [*args[:MANY_WORDS], WITHHELD]
        new = b"\0".join(self.argv(args, "command line"))
        return self.texts.text(new, "command line", everything=False)
