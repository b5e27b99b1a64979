"""One text searched by pattern: what is a secret where a pattern matches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from doctor.redact.arguments import secrets_in
from doctor.redact.extents import past, value_at
from doctor.redact.json_text import literal_end
from doctor.redact.limits import ACCEPTED, BUDGET, BUDGET_PER, LONG, PEM
from doctor.redact.names import STRONG, WEAK, level_of
from doctor.redact.values import (
    ADDRESS,
    ANY_PATH,
    NO_PASSWORD,
    PATH,
    PIN,
    is_login,
    is_quoted,
    login_in_user,
    looks_random,
    masked,
    trivial,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.redact.patterns import Rule

_NAME_CHARS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
_NAME_LONGEST = 48

_UNESCAPED = re.compile(rb"(?<!\\)\"")

_BLANKS = re.compile(rb"[ \t]*")
_ELEMENT = re.compile(rb"[^<\s]{1,512}(?=<)")
_CLOSED_KEY = re.compile(rb"\"\s*:")

_MIXED = re.compile(rb"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)")

_STATIC = re.compile(rb"v?\d+(?:\.\d+)+[\w.\-+]*\Z|v\d[\w.\-]*\Z|latest\Z|sha256\Z|r[ow]\Z|[rR][wWoO],[zZ]\Z")
_WORDLIKE = re.compile(rb"[a-z]+[.!?:]?\Z|[A-Z][a-z]+[.!?:]?\Z|[a-z]+(?:[/_\-][a-z]+)*[.:]?\Z")
_LINE_START = re.compile(rb"(?:\A|[\n{,]|\\n)[ \t\-]*[\"']?\Z")
_QUOTES = frozenset((b'"', b"'"))
_DIRECTIVES = frozenset((b"requirepass", b"masterauth", b"masterpass", b"primaryauth"))

_HOST_PORTS = re.compile(rb"\d{1,5},")
_ESCAPE_IN = re.compile(rb"(?<!\\)\\[nrtu]")
_MORE_USERINFO = re.compile(rb"[^\s\"'<>/?#@\\`,;]{0,96}@")

_PEM_BODY = re.compile(rb"[A-Za-z0-9+/=\s\\:,.\-]*")
_PEM_END = re.compile(rb"-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")

_DSN_USER = re.compile(rb"(?<![\w.\-])[\w.\-]{1,64}:([^\s\"'`\\/]{1,128})\Z")
_ORACLE_USER = re.compile(rb"thin:[\w.\-]{1,64}/([^\s\"'`\\@]{1,128})\Z")
_GENERATED = re.compile(rb"generated for \S{1,64}: (\S{1,128})")
_ECHOED = re.compile(
    rb"echo\s+(?:-\w{1,4}\s+)?(?:\\?\"(?:[\w.\-]{1,32}:)?([^\"\\\n]{1,128})\\?\"|'(?:[\w.\-]{1,32}:)?([^'\n]{1,128})'"
    rb"|(?:[\w.\-]{1,32}:)?([^\s\"'|:\\]{1,128}))\s*\|[^\n|;]{0,96}\Z"
)
_ECHO_BEFORE = 320

_WORD_CHARS = b"abcdefghijklmnopqrstuvwxyz0123456789_"

_PASSWORD_FLAG = re.compile(rb"-[a-z]{0,8}[abpuw]|user|password")
_COMMAND_WORD = re.compile(rb"(?:\"(?:[^\"\\]|\\.){0,512}\"|'[^']{0,512}'|[^\s\"'|;&\\]+|\\.)+")
_LISTED = re.compile(rb"[\"',\s]{0,8}([^\"'\n\\]{1,256})[\"']")
_COMMAND_LONGEST, _FLAG_WITHIN = 1024, 256


class Span(NamedTuple):
    """A secret found in text: where, and what it is called in the count.

    `strong` is false when only its looks speak for it, `bare` says that it is a number of JSON, `url` that it may be
    percent-encoded.
    """

    start: int
    end: int
    kind: str
    strong: bool = True
    bare: bool = False
    url: bool = False


class Search:
    """The search of one text by pattern: a candidate is where a pattern matches, a span what is a secret there."""

    def __init__(self, data: bytes, low: bytes, kind: str, *, json: bool) -> None:
        """Take a text, and the same in lower case; in JSON a value ends where its string does."""
        self.data = data
        self.low = low
        self.json = json
        self.string = (0, 0)
        self.kind = kind
        self.spans: list[Span] = []
        self.logins: list[bytes] = []
        self.limit = len(data)
        self.budget = BUDGET + len(data) // BUDGET_PER

    def run(self, rule: Rule, where: bytes, match: re.Match[bytes] | None) -> None:
        """Look at every candidate of one pattern; what was taken or read over is not looked at again."""
        judge: Callable[[re.Match[bytes], int], int] = getattr(self, rule.judge)
        while match is not None:
            self.budget -= 1
            if self.budget < 0:
                self.limit = min(self.limit, match.start())
                return
            known = len(self.spans)
            position = max(match.end(), judge(match, rule.before))
            self.budget -= ACCEPTED * (len(self.spans) - known)
            match = rule.pattern.search(where, position)

    def _back(self, position: int, chars: bytes) -> int:
        """Find where the word starts that reaches to here."""
        start = max(0, position - _NAME_LONGEST)
        return start + len(self.data[start:position].rstrip(chars))

    def _string_end(self, position: int) -> int:
        """Find the end of the JSON string around here; once for a string, however many candidates are in it."""
        start, end = self.string
        if not start <= position < end:
            end = literal_end(self.data, position)
            self.string = (position, end)
        return end

    def _add(self, start: int, end: int, kind: str = "", *, strong: bool = True) -> None:
        if start < end:
            self.spans.append(Span(start, end, kind or self.kind, strong=strong))

    # -- names and values ----------------------------------------------------------------------------------------------

    def named(self, match: re.Match[bytes], group: int) -> int:
        """Judge `password=x`, `"token": "x"`, `--secret x`, `Authorization: Basic x`, `<key>x</key>` and the like."""
        group = group or 1
        data, end = self.data, match.end()
        begin = self._back(match.start(), _NAME_CHARS)
        name = data[begin : match.start(group)]
        level = level_of(name)
        if level == WEAK and name.lower() in {b"key", b"keys"} and data[begin - 1 : begin] == b" ":
            level = level_of(data[self._back(begin - 1, _NAME_CHARS) : match.start(group)])
        if level == WEAK and name.lower() in {b"key", b"keys"} and data[begin - 1 : begin] not in {b"?", b"&"}:
            return end  # of a map, a snapshot, a header: `key=moby/12/...`
        relation = _relation(match[group]) if level else ""
        if relation == "blank" and level == STRONG and data[end - 1 : end + 1].strip() in _QUOTES:
            # `using password 'x'`, `define("DB_PASSWORD", "x")`; not `secret "x" not found`
            relation = "said" if b"," in match[group] or b"pass" in name.lower() else ""
        if not relation or (relation == "blank" and not self._takes_a_word(name, begin)):
            return end
        first = data[end : end + 1]
        if first in _QUOTES and first not in match[group] and data[begin - 1 : begin] == first:
            return end  # "password=" is all there is in the string
        if relation == "element":
            element = _ELEMENT.match(data, end) if data[begin - 1 : begin] == b"<" else None
            start, stop, quoted = (*element.span(), True) if element else (end, end, True)
        else:
            start, stop, quoted, scheme = self._value(end, name[-6:].lower(), relation)
            if scheme or (level and data[begin - 1 : begin] in {b"?", b"&"}):
                level = STRONG  # a header with its scheme, a signed URL
        if self.json and not _UNESCAPED.search(match[group]):
            within = self._string_end(match.start())  # the string that the name stands in has the value, too
            start, stop = min(start, within), min(stop, within)
        if start == stop:
            if b"\\" in data[end : start + 1]:
                self.spans.append(Span(start, start, self.kind))  # the string must be unescaped to be read
            return end
        bare = not quoted and _CLOSED_KEY.match(match[group]) is not None
        closed = quoted or bare
        if stop - start <= LONG and not self._secret(name, level, relation, start, stop, begin, quoted=closed):
            return end
        kind = "proxy password" if b"proxy" in name.lower() else self.kind
        self.spans.append(Span(start, stop, kind, strong=level == STRONG, bare=bare))
        return stop

    def _value(self, position: int, last: bytes, relation: str) -> tuple[int, int, bool, bytes]:
        """Find the value under a name that ends so; note it when it is the login of basic authentication."""
        cookie, header = last in {b"cookie", b"ookies"}, last == b"zation" and relation == "colon"
        start, stop, quoted, scheme = value_at(self.data, position, cookie=cookie, header=header)
        if scheme == b"basic" and stop - start <= LONG:
            self.logins.append(self.data[start:stop])
        return start, stop, quoted, scheme

    def p_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge a name, or what was piped into chpasswd, `--password-stdin`, `passwd --stdin`; or a generated password."""
        tail = match[0]
        if tail.startswith(b"pypi"):
            self._add(*match.span())
            return match.end()
        if b"passwd" in tail or b"stdin" in tail:
            echo = self.low.rfind(b"echo", max(0, match.start() - _ECHO_BEFORE), match.start())
            echoed = _ECHOED.match(self.low, echo, match.start()) if echo >= 0 else None
            span = echoed.span(echoed.lastindex or 0) if echoed else (0, 0)
            if not trivial(self.data[slice(*span)]):
                self._add(*span)
        if match[1] is None:
            return match.end()
        before = self.low[max(0, match.start() - 3) : match.start()]
        if (tail.startswith(b"pass ") and before == b"ssh") or (tail.startswith(b"passwd ") and before.endswith(b"ht")):
            return self.command(match, 0)
        generated = _GENERATED.match(self.low, match.end())
        if generated:
            self._add(*generated.span(1))
            return generated.end()
        return self.named(match, 0)

    def k_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge a name, or what else is found by its k."""
        start, end, text = match.start(), match.end(), match[0]
        if text.startswith(b"k-"):
            if _MIXED.match(self.data[start + 2 : end]):
                self._add(start - 1, end)
        elif text.startswith(b"kia"):
            if self.data[start - 1 : end].isupper():
                self._add(start - 1, end)
        elif text.startswith((b"kn-1-", b"key-1-")):
            self._add(start - (4 if text.startswith(b"kn") else 3), end, "swarm token")
        elif text.endswith(b"-----") and match.lastindex is None:
            return self._private_key(start, end)
        elif match[3] is not None:
            return self.named(match, 3)
        elif match.lastindex:
            self._add(*match.span(match.lastindex), "URL" if self.kind == "text" else "")
        return end

    def c_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge credentials, or the URL of a collector."""
        if match[1] is not None:
            return self.named(match, 0)
        self._add(*match.span(2), "URL" if self.kind == "text" else "")
        return match.end()

    def b_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge `Bearer x` where no header's name stands before it, the token of a bot, a password in SQL."""
        span = match.span(match.lastindex or 0)
        if match[1]:
            if not _WORDLIKE.match(match[1]):
                self._add(*span)
        elif match[2] or b"identified" in self.low[max(0, match.start() - 80) : match.start()]:
            self._add(*span)
        return match.end()

    def _private_key(self, start: int, end: int) -> int:
        """Take a private key from `-----BEGIN`, to its end or as far as it looks like one."""
        self.budget -= 10 * ACCEPTED
        begin = self.low.rfind(b"-----begin ", max(0, start - _NAME_LONGEST), start)
        if begin < 0 or b"private" not in self.low[begin:start]:
            return end
        most = end + PEM
        found = _PEM_END.search(self.data, end, most) or _PEM_BODY.match(self.data, end, most)
        stop = found.end() if found else end
        self._add(begin, stop, "private key")
        return stop

    def _takes_a_word(self, name: bytes, begin: int) -> bool:
        """Tell whether a blank after the name can be followed by the secret: a flag, a directive, a .netrc."""
        low = name.lower()
        if name.startswith(b"-") or low in {b"aws_secret_access_key", b"aws_session_token"}:
            return True
        if low in _DIRECTIVES:
            return _LINE_START.search(self.data, max(0, begin - 24), begin) is not None or begin == 0
        before = self.low[max(0, begin - 128) : begin]
        return before.endswith((b"env ", b"arg ")) or (
            low == b"password" and (b"login " in before or before.endswith((b" with ", b" encrypted ")))
        )

    def _secret(
        self, name: bytes, level: int, relation: str, start: int, stop: int, begin: int, *, quoted: bool
    ) -> bool:
        """Tell whether a value under a name is one, or prose, a path, an image's tag."""
        value = self.data[start:stop]
        if trivial(value) or PATH.match(value) or value.startswith(b"//"):
            return False
        if relation == "blank" and value.startswith((b"-", b"=", b":")):
            return False
        if level == WEAK:
            return looks_random(value) or (name.endswith(b"-auth") and b":" in value and not ADDRESS.match(value))
        password = b"pass" in name.lower()
        if value.isdigit() and stop - start < PIN:
            return False
        if name.lower().endswith(b"pwd") and ANY_PATH.match(value):
            return False
        if relation == "said":
            return not _WORDLIKE.match(value)
        if relation != "colon" or quoted:
            return True
        if value.startswith(b"/") and self.data[start - 1 : start] == b":":
            return False  # a volume: `auth-token:/data:rw`
        if _STATIC.match(value) or self.data[begin - 1 : begin] == b"/" or (value.isdigit() and not password):
            return False
        return (
            not _WORDLIKE.match(value) or begin == 0 or bool(_LINE_START.search(self.data, max(0, begin - 24), begin))
        )

    # -- forms ---------------------------------------------------------------------------------------------------------

    def form(self, match: re.Match[bytes], before: int) -> int:
        """Judge a secret that is known by its form."""
        start = match.start() - before if before >= 0 else self._back(match.start(), _WORD_CHARS)
        text = self.data[start : match.end()]
        if not (text.startswith(b"eyJ") and b"." not in text and not is_login(text)):
            self._add(start, match.end())
        return match.end()

    def userinfo(self, match: re.Match[bytes], _: int) -> int:
        """Judge `scheme://user:password@`."""
        start, end = match.start() + 3, match.end()
        for _more in range(4):
            more = _MORE_USERINFO.match(self.low, end)
            if more is None:
                break
            end = more.end()
        if _ESCAPE_IN.search(self.data, start, end):
            return match.end()  # two lines of an escaped text
        user, _colon, password = self.data[start : end - 1].partition(b":")
        near = self.low[max(0, start - _NAME_LONGEST) : start] + self.low[end : end + 16]
        kind = "proxy password" if b"proxy" in near else "URL" if self.kind == "text" else self.kind
        if login_in_user(user, password):
            self.spans.append(Span(start, start + len(user), kind, url=True))
        if password not in NO_PASSWORD and not masked(password) and not _HOST_PORTS.match(password):
            self.spans.append(Span(start + len(user) + 1, end - 1, kind, url=True))
        return end

    def dsn(self, match: re.Match[bytes], _: int) -> int:
        """Judge `user:password@tcp(host:port)` of Go, `thin:user/password@host:port:sid` of Oracle."""
        self.budget -= ACCEPTED
        form = _DSN_USER if match[0].endswith(b"(") else _ORACLE_USER
        user = form.search(self.data, max(0, match.start() - 192), match.start())
        if user and not masked(user[1]):
            self._add(*user.span(1))
        return match.end()

    def command(self, match: re.Match[bytes], _: int) -> int:
        """Judge a command line inside a text: `mysql -uroot -px`, `curl -u user:x`."""
        data, end = self.data, match.end()
        within = end + _FLAG_WITHIN
        if self.json:
            within = data.find(b'"', end, within) if match[0][-1:] != b'"' else within
        if not _PASSWORD_FLAG.search(self.low, end, within):
            return end
        position = self._back(match.start(), _NAME_CHARS)
        last = position + _COMMAND_LONGEST
        words: list[tuple[int, bytes]] = []
        if match[0][-1:] in _QUOTES:
            for listed in _LISTED.finditer(data, position, min(last, len(data))):
                words.append((listed.start(1), listed[1]))
                position = listed.end()
        while match[0][-1:] not in _QUOTES and position < last:
            word = _COMMAND_WORD.match(data, position)
            if word is None:
                break
            text = word[0]
            quoted = is_quoted(text)
            words.append((position + quoted, text[1:-1] if quoted else text))
            position = past(_BLANKS, data, word.end())
        self.budget -= len(words)
        for part in secrets_in([text for _, text in words]):
            offset, text = words[part.word]
            glued = part.start > 0 and is_quoted(text[part.start : part.end])
            if not part.environment:
                self._add(offset + part.start + glued, offset + part.end - glued)
        if any(b"\\" in text for _, text in words):
            self.spans.append(Span(match.start(), match.start(), self.kind))  # in JSON: read it unescaped
        return position


def _relation(separator: bytes) -> str:
    """Say how a name and what follows it belong together."""
    if b"value" in separator:
        return "equals"
    bare = separator.strip(b" \t\\\"'`)],")
    if bare == b">":
        return "element"
    if bare in {b":", b"%3a"}:
        return "colon"
    if bare[:2] == b"is" or bare[:3] in {b"was", b"set"}:
        return "said"
    return "equals" if bare else "blank"
