"""What a collection keeps: records, scrubbed on the way in, and notes of what could not be had."""

from __future__ import annotations

import threading
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from doctor.lanes import current
from doctor.linux.frames import status_of, why_of
from doctor.snapshot import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doctor.redact import Redactor
    from doctor.snapshot import Kind, Status


def shown(name: str) -> str:
    """Give a name of the file system as text that every format can hold: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def since(start: float) -> float:
    """Give the milliseconds since `start` (time.perf_counter)."""
    return (time.perf_counter() - start) * 1000


class Keeper:
    """The records of one collection by name, and the redactor that all of them went through. Safe for lanes of threads."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.records: dict[str, Record] = {}
        self.ids: set[str] = set()
        """Records that hold nothing but what the engine made up: no secret is looked for in them."""
        self._redactor: Redactor | None = None
        self._making = threading.Lock()
        self._ahead: dict[str, tuple[Record, Record]] = {}
        self._learnt = -1

    @property
    def redactor(self) -> Redactor:
        """Who scrubs. It is imported for the first that has something to keep: the first readings begin before."""
        with self._making:
            if self._redactor is None:
                from doctor.redact import Redactor

                self._redactor = Redactor()
            return self._redactor

    def put(self, record: Record) -> None:
        """Keep a record as it is."""
        self.records[record.name] = record

    def keep(
        self,
        name: str,
        kind: Kind,
        target: str,
        data: bytes,
        how: str,
        *,
        status: Status = "ok",
        why: str = "",
        ms: float = 0.0,
        mtime: float = 0.0,
    ) -> None:
        """Scrub evidence and keep it, unless the job that brought it was given up meanwhile.

        `how` is that of `Redactor.scrub`; `none` and `ids` are kept as they are (see `doctor.sources.Source.scrub`).
        """
        job = current()
        if job is not None and job.abandoned:
            return
        if how == "ids":
            self.ids.add(name)
        clean, redactions = (data, 0) if how in {"none", "ids"} else self.redactor.scrub(data, how)
        self.put(
            Record(
                name,
                kind,
                shown(target),
                status,
                data=clean,
                why=why,
                ms=ms,
                size=len(data),
                sha256=sha256(data).hexdigest(),
                redactions=redactions,
                mtime=mtime,
            )
        )

    def failed(self, name: str, kind: Kind, target: str, error: OSError, ms: float) -> None:
        """Note what could not be had, and why."""
        status = status_of(error)
        self.put(Record(name, kind, shown(target), status, why=why_of(error), errno=error.errno or 0, ms=ms))

    def missing(self, name: str, kind: Kind, target: str, status: Status, why: str, ms: float = 0.0) -> None:
        """Note what could not be had for a reason that is no errno."""
        self.put(Record(name, kind, shown(target), status, why=why, ms=ms))

    def finish_ahead(self, records: Sequence[Record]) -> None:
        """Do for these what `finished` does, while others are still waited for."""
        redactor = self.redactor
        self._learnt = redactor.known.learnt
        self._ahead = {
            one.name: (one, done) for one, done in zip(records, redactor.finish(records, self.ids), strict=True)
        }

    def finished(self, records: Sequence[Record]) -> dict[str, Record]:
        """Give the records as they may leave: see `Redactor.finish`. By name, in the order given.

        What was finished ahead is not done again, unless a secret has been learnt since that might stand in it.
        """
        redactor = self.redactor
        if redactor.known.learnt != self._learnt:
            redactor.known.forget_numbers()
            self._ahead = {}
        rest = [one for one in records if one.name not in self._ahead or self._ahead[one.name][0] is not one]
        done = {one.name: one for one in redactor.finish(rest, self.ids)}
        return {one.name: done[one.name] if one.name in done else self._ahead[one.name][1] for one in records}
