"""The table of the secrets of one collect: what stands for each, and where they stand besides."""

from __future__ import annotations

import base64
import binascii
import html
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import quote

from doctor.redact.json_text import json_escape
from doctor.redact.limits import SOME, TRACKED
from doctor.redact.tokens import CODES, KIND_OF, KINDS, OPEN, PROVISIONAL, WITHHELD, size_of, write
from doctor.redact.values import followed_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNRESERVED = re.compile(rb"[A-Za-z0-9_.\-]+")
_HTML_JINJA = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("'"): "&#39;", ord('"'): "&#34;"}


class Secret:
    """One secret value: its number in the order of discovery, what it was first seen as, and the words for its length."""

    __slots__ = ("followed", "kind", "number", "size", "value")

    def __init__(self, number: int, value: bytes, kind: str) -> None:
        """Take a value, its number in the order of discovery, and what it was first seen as."""
        self.number = number
        self.value = value
        self.kind = kind
        self.followed = False
        self.size = size_of(value)

    def token(self, code: str) -> bytes:
        """Give what stands for it until `finish`; `code` says why here."""
        return write(code, self.number, self.size)

    def forms(self) -> set[bytes]:
        """Give the spellings in which it may stand in evidence and in reports: raw, JSON, Go's JSON, URL, HTML."""
        value = self.value
        if _UNRESERVED.fullmatch(value):
            return {value}
        text = value.decode("utf-8", "replace")
        escaped = json_escape(value)
        go = escaped.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
        forms = {value, escaped, go, quote(value, safe="").encode(), quote(value, safe="/!$*()',;:@&=+").encode()}
        forms |= {html.escape(text).encode(), text.translate(_HTML_JINJA).encode()}
        return {form for form in forms if len(form) >= TRACKED}


class Index:
    """Finds known secrets in text: a few by searching each, many by the words of the text, in the same time for all."""

    _SEPARATE = bytes(code if chr(code).isalnum() and code < 0x80 else 0x20 for code in range(256))  # noqa: PLR2004 - ASCII

    def __init__(self, secrets: Iterable[Secret]) -> None:
        """Take the secrets that are to be found."""
        self._forms = {form: secret for secret in secrets if secret.followed for form in secret.forms()}
        self._wordless = []
        self._by_word: dict[bytes, list[tuple[frozenset[bytes], frozenset[bytes], bytes]]] = {}
        split = {form: form.translate(self._SEPARATE).split() for form in self._forms}
        shared = Counter(word for words in split.values() for word in set(words))
        for form, words in split.items():
            if words:
                rarest = min(words, key=lambda word: (shared[word], -len(word)))
                # Of the words at its two ends one may be grown together with what stands beside it.
                needs = frozenset(words[1:]), frozenset(words[:-1])
                self._by_word.setdefault(rarest, []).append((*needs, form))
            else:
                self._wordless.append(form)
        self._words = frozenset(shared)

    def find(self, data: bytes) -> list[tuple[bytes, Secret]]:
        """Give what is in the text, the longest first."""
        if not self._forms:
            return []
        if len(self._forms) <= SOME:
            maybe = list(self._forms)
        else:
            text = data.replace(WITHHELD, b" ") if WITHHELD in data else data
            words = self._words.intersection(text.translate(self._SEPARATE).split())
            maybe = self._wordless + [
                form
                for word in words
                for end, start, form in self._by_word.get(word, ())
                if end <= words or start <= words
            ]
        found = [(form, self._forms[form]) for form in maybe if form in data]
        return sorted(found, key=lambda pair: (-len(pair[0]), pair[0]))


class Known:
    """The table itself. `token` may be called from several threads, the rest once they are done."""

    def __init__(self) -> None:
        """Start with no secrets known."""
        self._lock = threading.Lock()
        self._secrets: dict[bytes, Secret] = {}
        self._by_number: list[Secret] = []
        self._final: dict[int, int] = {}
        self._kinds: dict[int, str] = {}
        self.learnt = 0
        """Rises whenever an index that was made before would find too little."""

    def __len__(self) -> int:
        """Count them."""
        return len(self._secrets)

    def index(self) -> Index:
        """Make an index of what is known now."""
        return Index(self._by_number)

    def forget_numbers(self) -> None:
        """Number anew from here on."""
        self._final.clear()
        self._kinds.clear()

    def numbered(self, text: bytes) -> bytes:
        """Number the tokens of a text, after those of the texts before."""
        return PROVISIONAL.sub(self._number, text) if OPEN in text else text

    def kinds(self) -> dict[str, int]:
        """Count the secrets whose tokens were numbered, by kind."""
        kinds = [self._kinds.get(number) or self._by_number[number].kind for number in self._final]
        return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}

    def _number(self, match: re.Match[bytes]) -> bytes:
        number = int(match[2])
        if number >= len(self._by_number):
            return match[0]  # not ours: somebody wrote it so
        final = self._final.setdefault(number, len(self._final) + 1)
        kind = KIND_OF.get(match[1].decode())
        if kind is not None:
            self._kinds.setdefault(number, kind)
        return b"\xc2\xabsecret %d," % final

    def found(self, artefact: bytes) -> list[str]:
        """Name the secrets that stand in an artefact, by number, never by value."""
        numbers = {secret.number for _, secret in Index(self._by_number).find(artefact)}
        names = [
            (
                self._final.get(number, 0),
                f"secret {self._final[number]}" if number in self._final else "an unnumbered secret",
            )
            for number in numbers
        ]
        return [name for _, name in sorted(names)]

    def learn(self, value: bytes, kind: str, *, strong: bool = True) -> Secret:
        """Note a secret; the same value is the same secret, whoever saw it first."""
        secret = self._secrets.get(value)
        if secret is None:
            with self._lock:
                secret = self._secrets.get(value)
                if secret is None:
                    secret = Secret(len(self._by_number), value, kind)
                    self._by_number.append(secret)
                    self._secrets[value] = secret
        if not secret.followed and followed_everywhere(value, strong=strong):
            secret.followed = True
            self.learnt += 1
        return secret

    def token(self, value: bytes, kind: str, *, strong: bool = True) -> bytes:
        """Give what stands for a secret until `finish`."""
        return self.learn(value, kind, strong=strong).token(CODES[kind])

    def learn_login(self, value: bytes) -> None:
        """Note the password inside the base64 of `user:password`."""
        try:
            _, colon, password = base64.b64decode(value, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return
        if colon and password:
            self.learn(password, "registry login")
