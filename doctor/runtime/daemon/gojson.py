"""The first fault of a text as Go's encoding/json tells it: in the very words that dockerd prints.

Source: go `src/encoding/json/scanner.go`. Each state of that scanner is a place in this one, with its words.
"""

from __future__ import annotations

_SPACE = " \t\r\n"
_ESCAPES = '"\\/bfnrtu'
_DEPTH = 10_000


class GoJsonError(ValueError):
    """A text is no JSON; the message is Go's."""


def fault(text: str, *, whole: bool = True) -> str:
    """Give the words for the first fault of a text, empty for JSON.

    With `whole` false only the first value is read, as a decoder of a stream does (20.10): an end is then `EOF`.

    >>> fault('{"a": 1,}')
    "invalid character '}' looking for beginning of object key string"
    >>> fault('{"a"'), fault("{", whole=False), fault("")
    ('unexpected end of JSON input', 'unexpected EOF', 'unexpected end of JSON input')
    """
    scanner = _Scanner(text)
    try:
        scanner.value()
        if whole:
            scanner.space()
            if scanner.at < len(text):
                scanner.wrong("after top-level value")
    except GoJsonError as error:
        return str(error)
    except IndexError:
        if whole:
            return "unexpected end of JSON input"
        return "unexpected EOF" if text.strip(_SPACE) else "EOF"
    return ""


def _quoted(character: str) -> str:
    """Quote a character as Go does (strconv.Quote of the byte, with its apostrophes)."""
    if character == "'":
        return "'\\''"
    if character == '"':
        return "'\"'"
    first = character.encode("utf-8", "surrogateescape")[0]
    if first < 0x20 or first == 0x7F:  # noqa: PLR2004 - control characters
        named = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r"}
        return f"'\\{named[first]}'" if first in named else f"'\\x{first:02x}'"
    return f"'{chr(first)}'"  # Go looks at one byte, and takes it for a character of Latin-1


class _Scanner:
    """A place in a text; each method reads what its name says, and an IndexError is the end of the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def wrong(self, context: str) -> None:
        raise GoJsonError(f"invalid character {_quoted(self.text[self.at])} {context}")

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def value(self) -> None:
        self.space()
        here = self.text[self.at]
        if here in "{[":
            self.depth += 1
            if self.depth > _DEPTH:
                raise GoJsonError("exceeded max depth")
            (self.mapping if here == "{" else self.array)()
            self.depth -= 1
        elif here == '"':
            self.string()
        elif here == "-" or here in "0123456789":
            self.number()
        elif here in "tfn":
            self.literal({"t": "true", "f": "false", "n": "null"}[here])
        else:
            self.wrong("looking for beginning of value")

    def mapping(self) -> None:
        self.at += 1
        self.space()
        if self.text[self.at] == "}":
            self.at += 1
            return
        while True:
            self.space()
            if self.text[self.at] != '"':
                self.wrong("looking for beginning of object key string")
            self.string()
            self.space()
            if self.text[self.at] != ":":
                self.wrong("after object key")
            self.at += 1
            self.value()
            self.space()
            if self.text[self.at] not in ",}":
                self.wrong("after object key:value pair")
            self.at += 1
            if self.text[self.at - 1] == "}":
                return

    def array(self) -> None:
        self.at += 1
        self.space()
        if self.text[self.at] == "]":
            self.at += 1
            return
        while True:
            self.value()
            self.space()
            if self.text[self.at] not in ",]":
                self.wrong("after array element")
            self.at += 1
            if self.text[self.at - 1] == "]":
                return

    def string(self) -> None:
        self.at += 1
        while (here := self.text[self.at]) != '"':
            if here == "\\":
                self.at += 1
                if self.text[self.at] not in _ESCAPES:
                    self.wrong("in string escape code")
                if self.text[self.at] == "u":
                    for _ in range(4):
                        self.at += 1
                        if self.text[self.at] not in "0123456789abcdefABCDEF":
                            self.wrong("in \\u hexadecimal character escape")
            elif here < " ":
                self.wrong("in string literal")
            self.at += 1
        self.at += 1

    def digits(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1

    def number(self) -> None:
        if self.text[self.at] == "-":
            self.at += 1
            if self.text[self.at] not in "0123456789":
                self.wrong("in numeric literal")
        if self.text[self.at] == "0":
            self.at += 1
        else:
            self.digits()
        if self.text[self.at : self.at + 1] == ".":
            self.at += 1
            if self.text[self.at] not in "0123456789":
                self.wrong("after decimal point in numeric literal")
            self.digits()
        if self.text[self.at : self.at + 1] in {"e", "E"}:
            self.at += 1
            if self.text[self.at] in "+-":
                self.at += 1
            if self.text[self.at] not in "0123456789":
                self.wrong("in exponent of numeric literal")
            self.digits()

    def literal(self, word: str) -> None:
        for wanted in word:
            if self.text[self.at] != wanted:
                self.wrong(f"in literal {word} (expecting {_quoted(wanted)})")
            self.at += 1
