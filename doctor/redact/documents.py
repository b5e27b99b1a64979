"""JSON: judged field by field, then searched by pattern; never printed anew."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from doctor.redact.edits import Edit, apply
from doctor.redact.fields import Fields, Memo
from doctor.redact.json_text import is_json, json_escape, json_unescape, literal_end, literal_start, plain_escapes
from doctor.redact.limits import FEW
from doctor.redact.texts import canonical
from doctor.redact.tokens import WITHHELD

if TYPE_CHECKING:
    from doctor.redact.search import Span
    from doctor.redact.settings import Settings

_STRING_KINDS = {
    b"Output": "health check",
    b"Command": "command line",
    b"created_by": "image history",
    b"CreatedBy": "image history",
}
"""What a secret in these strings is called."""


class Documents:
    """Scrubs JSON texts; remembers their fields, for inspect and config.v2.json say the same, and so do images."""

    def __init__(self, settings: Settings) -> None:
        """Remember nothing."""
        self.settings = settings
        self.texts = settings.texts
        self._memo: Memo = {}

    def scrub(self, data: bytes, how: str) -> bytes:
        """Scrub a JSON text; `how` is that of `Redactor.scrub`."""
        plain = plain_escapes(data) if b"\\" in data else data
        fields = Fields(self.settings, self._memo, plain)
        fields.judge()
        if how == "docker-config":
            fields.judge_logins()
        judged = plain if fields.given_up else apply(plain, fields.edits)
        spans, limit = self.texts.spans(judged, judged.lower(), "text", everything=False)
        if limit < len(judged) or fields.given_up:
            return b'"' + WITHHELD + b'"'
        new = self._strings(judged, spans, fields.regions()) if spans else judged
        return data if new == plain else new

    def _strings(self, data: bytes, spans: list[Span], regions: list[tuple[int, int, str]]) -> bytes:
        """Scrub what patterns found in the strings of a JSON text, whose fields are judged already."""
        if not is_json(data):
            return apply(data, self.texts.edits(data, spans))
        edits: list[Edit] = []
        done = 0
        for span in spans:
            if span.start < done:
                continue
            if span.bare:
                edits.append(Edit(span.start, span.end, b"0"))
                continue
            start = literal_start(data, span.start)
            at = bisect_right(regions, (span.start, len(data), "")) - 1
            kind = regions[at][2] if at >= 0 and span.start < regions[at][1] else _kind_of_string(data, start)
            end = literal_end(data, start)
            literal = new = data[start:end]
            named = span._replace(kind=kind if span.kind in {"text", "URL"} and kind != "text" else span.kind)
            done = min(span.end, end)
            if (span.start, span.end) == (start, end):
                new = self.settings.known.token(canonical(json_unescape(literal), span), named.kind, strong=span.strong)
            elif b"\\" in literal:
                # What the string says decides: a pattern that only its escapes match (`password \npassword`) found nothing.
                old = json_unescape(literal)
                new = self.texts.text(old, kind)
                new = literal if new == old else json_escape(new)
            else:
                edits += self.texts.edits(data, [named._replace(end=done)])
                continue
            done = end
            if new != literal:
                edits.append(Edit(start, end, new))
        return apply(data, edits)


def _kind_of_string(data: bytes, start: int) -> str:
    """Say what a secret is called in the string of JSON whose content starts at `start`, by the string's name."""
    before = data[max(0, start - FEW) : start - 1].rstrip(b" :")
    return _STRING_KINDS.get(before[before.rfind(b'"', 0, -1) + 1 : -1], "text")
