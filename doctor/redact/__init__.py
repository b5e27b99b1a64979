r"""Scrubbing: no secret reaches the snapshot. Sources of one collect share one `Redactor`.

A secret becomes a token that says how long it is and nothing else; equal secrets have equal tokens, in whatever record
they stand (environment, file, command line, log):

    >>> from doctor.snapshot import Record
    >>> redactor = Redactor()
    >>> data, count = redactor.scrub(b'{"Env":["PATH=/bin","DB_PASSWORD=Winter-2026!","SHOP_MODE=blue"]}', "inspect")
    >>> record = Record("api/containers/web1", "api", "/containers/web1/json", data=data, redactions=count)
    >>> print(redactor.finish([record])[0].text)
    {"Env":["PATH=/bin","DB_PASSWORD=«secret 1, 9–16 chars»","SHOP_MODE=«value»"]}
    >>> print(removed_text(redactor.removed))
    1 secret (1 in an environment)

Three passes:

1. By structure (`scrub`): fields that hold secrets are known by name. JSON is edited in place, never printed anew: line
   numbers, order, number forms and what cannot be parsed (a broken daemon.json, a cut answer) stay as they are.
2. By pattern (`scrub`): what is left, and all other text. Each pattern starts with a literal that the regex engine finds
   at 1-3 GB/s; the rest of it runs only there.
3. By value (`finish`): a value that was seen as a secret anywhere is replaced everywhere, and tokens are numbered in the
   order of the sources, whichever thread was first.

No pattern may need more than linear time, and hostile text of nothing but candidates is withheld beyond `_BUDGET`.
Text inside here is bytes: evidence need not be UTF-8.
"""  # noqa: RUF002 - the token's dash is an en dash

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from doctor.redact.documents import Documents
from doctor.redact.known import Known
from doctor.redact.limits import TOGETHER
from doctor.redact.settings import Settings
from doctor.redact.texts import Texts
from doctor.redact.tokens import COUNTED, FOUND, KINDS, WITHHELD, removed_text
from doctor.redact.trees import processes, tree
from doctor.redact.units import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from doctor.redact.known import Index, Secret
    from doctor.snapshot import Record

__all__ = ["KINDS", "WITHHELD", "Redactor", "leaks", "removed_text"]


class Redactor:
    """Scrubs the evidence of one collect. `scrub` may be called from several threads, `finish` by one at a time."""

    def __init__(self) -> None:
        """Start with no secrets known."""
        self.removed: dict[str, int] = {}
        """Distinct secrets by kind, as they are in the evidence; filled by `finish`."""
        self.known = Known()
        self._texts = Texts(self.known)
        settings = Settings(self.known, self._texts)
        documents = Documents(settings)
        self._ways: dict[str, Callable[[bytes], bytes]] = {
            "inspect": lambda data: documents.scrub(data, "inspect"),
            "daemon-json": lambda data: documents.scrub(data, "daemon-json"),
            "docker-config": lambda data: documents.scrub(data, "docker-config"),
            "environ": settings.environ,
            "cmdline": settings.cmdline,
            "unit": lambda data: unit(data, settings),
            "tree": lambda data: tree(data, self._texts, self.scrub),
            "processes": lambda data: processes(data, settings),
        }

    def __repr__(self) -> str:
        """Never show what is inside."""
        return f"<Redactor: {len(self.known)} secrets>"

    def scrub(self, data: bytes, how: str) -> tuple[bytes, int]:
        """Take the secrets out of one record; give what is left and the number of places where one stood.

        `how` names the structure: `inspect` (any JSON of the Engine API and of the data root), `daemon-json`,
        `docker-config`, `environ`, `cmdline`, `unit`, `tree`, `processes`; anything else is text. Never raises.
        """
        if not data:
            return data, 0
        new = self._ways.get(how, self._texts.text)(data)
        if new == data:
            return data, 0
        return new, max(0, len(COUNTED.findall(new)) - len(COUNTED.findall(data)))

    def finish(self, records: Iterable[Record], ids: Container[str] = ()) -> list[Record]:
        """Replace what was learnt to be secret wherever it stands, and number the tokens in the order of `records`.

        `ids` names records that hold nothing but what the engine made up itself; they are not searched.
        """
        index = self.known.index()
        done: list[Record] = []
        batch: list[Record] = []
        size = 0
        # Most records are small, and hold nothing of the kind: a batch is searched as one text.
        for record in records:
            batch.append(record)
            size += len(record.data)
            if size > TOGETHER:
                done += self._finished(batch, index, ids)
                batch, size = [], 0
        done += self._finished(batch, index, ids)
        self.removed = self.known.kinds()
        return done

    def _finished(self, batch: list[Record], index: Index, ids: Container[str]) -> list[Record]:
        read = [
            (
                b"" if record.name in ids else record.data,
                record.target.encode("utf-8", "replace"),
                self._texts.text(record.why.encode("utf-8", "replace")) if record.why else b"",
            )
            for record in batch
        ]
        known = index.find(b"\n".join(text for texts in read for text in texts))
        return [self._cleaned(record, *texts, known) for record, texts in zip(batch, read, strict=True)]

    def _cleaned(
        self, record: Record, data: bytes, target: bytes, why: bytes, known: list[tuple[bytes, Secret]]
    ) -> Record:
        count = 0
        for form, secret in known:
            if form in data:
                count += data.count(form)
                data = data.replace(form, secret.token(FOUND))
            if form in target or form in why:
                target, why = (text.replace(form, secret.token(FOUND)) for text in (target, why))
        data = self.known.numbered(data)
        changed: dict[str, object] = {}
        if data and data is not record.data:
            changed |= {"data": data, "redactions": record.redactions + count}
        for field, text in (("target", target), ("why", why)):
            new = self.known.numbered(text).decode()
            if new != getattr(record, field):
                changed[field] = new
        return msgspec.structs.replace(record, **changed) if changed else record


def leaks(artefact: bytes | str, redactor: Redactor) -> list[str]:
    """Name the secrets of a collect that stand in a finished report or bundle: who gets any must not write it.

    Never the values: `secret 7`.
    """
    return redactor.known.found(artefact.encode("utf-8", "replace") if isinstance(artefact, str) else artefact)
