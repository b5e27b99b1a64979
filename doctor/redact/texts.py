"""Text scrubbed by pattern."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from doctor.redact.edits import Edit, cut_off
from doctor.redact.limits import MEMO, SHORT_TEXT
from doctor.redact.patterns import RULES, RULES_OF_JSON
from doctor.redact.search import Search, Span
from doctor.redact.tokens import GUILLEMET, TOKEN

if TYPE_CHECKING:
    from doctor.redact.known import Known


class Texts:
    """Scrubs text; notes what it finds among the known secrets."""

    def __init__(self, known: Known) -> None:
        """Remember nothing."""
        self.known = known
        self._memo: dict[tuple[str, bytes], bytes] = {}

    def text(self, data: bytes, kind: str = "text", *, everything: bool = True) -> bytes:
        """Scrub text by pattern; short ones are remembered, for images and containers repeat each other."""
        key = (kind, data)
        if len(data) <= SHORT_TEXT and everything:
            known = self._memo.get(key)
            if known is not None:
                return known
        spans, limit = self.spans(data, data.lower(), kind, everything=everything)
        new = cut_off(data, self.edits(data, spans), limit)
        if len(data) <= SHORT_TEXT and everything:
            if len(self._memo) > MEMO:
                self._memo.clear()
            self._memo[key] = new
        return new

    def edits(self, data: bytes, spans: list[Span]) -> list[Edit]:
        """Put a token for each span."""
        return [
            Edit(
                span.start,
                span.end,
                self.known.token(canonical(data[span.start : span.end], span), span.kind, strong=span.strong),
            )
            for span in spans
            if span.end > span.start
        ]

    def spans(self, data: bytes, low: bytes, kind: str, *, everything: bool) -> tuple[list[Span], int]:
        """Find secrets by pattern; give them in order, and where the search was given up (normally the end)."""
        search: Search | None = None
        for rule in RULES if everything else RULES_OF_JSON:
            pattern, reads, _, _, needs = rule
            if needs and needs not in data:
                continue
            where = low if reads == "low" else data
            match = pattern.search(where)
            if match is not None:
                if search is None:
                    search = Search(data, low, kind, json=not everything)
                search.run(rule, where, match)
        if search is None:
            return [], len(data)
        for login in search.logins:
            self.known.learn_login(login)
        spans = _merged(search.spans)
        return (_tokenless(data, spans) if GUILLEMET in data else spans), search.limit


def canonical(value: bytes, span: Span) -> bytes:
    """Give the secret itself, which a URL may have percent-encoded."""
    return unquote_to_bytes(value) if span.url and b"%" in value else value


def _merged(spans: list[Span]) -> list[Span]:
    """Sort, and make one of those that overlap."""
    out: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if out and span.start < out[-1].end:
            if span.end > out[-1].end:
                out[-1] = out[-1]._replace(end=span.end)
        else:
            out.append(span)
    return out


def _tokenless(data: bytes, spans: list[Span]) -> list[Span]:
    """Leave out what a token stands in: it was judged before."""
    tokens = [match.span() for match in TOKEN.finditer(data)]
    out = []
    for span in spans:
        at = bisect_right(tokens, (span.end, -1)) - 1
        if at < 0 or tokens[at][1] <= span.start:
            out.append(span)
    return out
