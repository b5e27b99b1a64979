"""Where evidence comes from: this host, a bundle, or an example; and who knows what must not stand in anything made of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from doctor.exits import INCOMPLETE, Left, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.deep import Deep
    from doctor.places import Places
    from doctor.redact import Redactor
    from doctor.registry import Registry
    from doctor.snapshot import Snapshot


class Evidence(NamedTuple):
    """What is judged: the snapshot, what to call it when it is no live host, and who scrubbed it when it is one."""

    snapshot: Snapshot
    source: str
    redactor: Redactor | None = None

    def leaks(self, artefact: str | bytes) -> list[str]:
        """Name the secrets that stand in something made of it, which then must not be written."""
        if self.redactor is None:
            return []
        from doctor.redact import leaks

        return leaks(artefact, self.redactor)


def take(
    bundle: str,
    example: str,
    loaded: Callable[[], Registry],
    seconds: float,
    *,
    probe: bool = False,
    sample: float = 0.0,
    deep: Deep | None = None,
    anywhere: bool = False,
    alone: bool = False,
) -> Evidence:
    """Give what is to be judged; with `probe`, nameservers are asked for it. Raises UsageError.

    `loaded` gives the registry; on a live host it is first called while that is being read.

    Of a host that is not the engine's (`doctor.vantage`) nothing is given, and Left raised, but for who takes it from
    `anywhere`. With `sample`, counters are read once more after so many seconds, which are not of the deadline's. With
    `deep` the content of layers is read as well, which has no deadline. Without a Docker engine Left is raised, but for who
    does not need one (`alone`).
    """
    if probe and (bundle or example):
        raise UsageError("check: --probe asks from this host, not from a bundle or an example")
    if sample and (bundle or example):
        raise UsageError("check: --sample reads the counters of this host, not of a bundle or an example")
    if deep is not None and (bundle or example):
        raise UsageError("check: --deep reads the layers of this host, not of a bundle or an example")
    if bundle and example:
        raise UsageError("check: a bundle or an example, not both")
    if example:
        from doctor.examples import path

        bundle = path(example)
    if bundle:
        from doctor.bundle import BundleError, read

        try:
            held = read(bundle)
        except BundleError as error:
            raise UsageError(str(error)) from error
        _of_the_engine(held, anywhere=anywhere)
        return Evidence(held, bundle)
    from doctor.client import here
    from doctor.collect import gather
    from doctor.host import LocalHost
    from doctor.places import find

    host = LocalHost()
    environ = here()
    places = find(host, environ)
    if not (places.present or alone):
        sys.stderr.write(_nothing_here(places))
        raise Left(INCOMPLETE)
    # What remains of the deadline is for judging and writing.
    budget = max(0.2, seconds - min(0.5, seconds * 0.1))
    snapshot, redactor = gather(
        host,
        deadline=budget,
        later=lambda: loaded().sources,
        places=places,
        environ=environ,
        progress=_progress(),
        probe=probe,
        sample=sample,
    )
    _of_the_engine(snapshot, anywhere=anywhere)
    if deep is not None:
        from doctor.deep import read as read_layers
        from doctor.examine import Facts

        snapshot = read_layers(snapshot, Facts(loaded(), snapshot), deep, redactor)
    return Evidence(snapshot, "", redactor)


def _of_the_engine(snapshot: Snapshot, *, anywhere: bool) -> None:
    from doctor.vantage import whole

    if not anywhere and (why := whole(snapshot)):
        sys.stderr.write(f"doctor: {why}\n")
        raise Left(INCOMPLETE)


def _nothing_here(places: Places) -> str:
    looked = [place for place in places.looked if place]
    lines = ["doctor: no Docker engine on this machine"]
    import textwrap

    lines += textwrap.wrap(
        "looked for: " + ", ".join(looked), 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    if places.other:
        lines.append(f"  {places.other} is here, and is not examined")
    lines += [
        "instead:",
        "  doctor check --example forwarding-off    a broken host that ships with doctor",
        "  doctor check host.tar.gz                 a bundle made elsewhere by `collect`",
        "  doctor lab run icc-off-but-open          break a host here, without Docker",
    ]
    return "\n".join(lines) + "\n"


def _progress() -> Callable[[int, float], None] | None:
    """Give the writer of the progress line: on a terminal only, after half a second, and it erases itself."""
    if not sys.stderr.isatty():
        return None

    def write(records: int, seconds: float) -> None:
        if seconds < 0:
            sys.stderr.write("\r\x1b[K")
        elif seconds >= 0.5:  # noqa: PLR2004 - half a second
            sys.stderr.write(f"\rreading: {records} pieces of evidence, {seconds:.1f} s")
        sys.stderr.flush()

    return write
