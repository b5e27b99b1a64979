"""From findings to causes: which finding explains which, in what order to read them, and in what order to cure.

A check declares the codes that its finding explains, and a finding may name the codes that would explain it. What
another one explains is a consequence, no cause; one cause may explain many findings, and two that explain each other are
two causes. None explains what is graver than itself, or what concerns another network. Pure: report in, report out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.model import Diagnosis, Excluded, Reported, Severity

if TYPE_CHECKING:
    from doctor.registry import Registry


def diagnose(findings: tuple[Reported, ...], registry: Registry) -> tuple[Diagnosis, ...]:
    """Group findings into causes, most important first. Info findings and ignored ones are no causes."""
    judged = [one for one in findings if one.severity is not Severity.INFO and not one.ignored]
    reach = {code: _reach(code, registry) for code in {one.code for one in judged}}

    def explains(cause: Reported, other: Reported) -> bool:
        """Whether one finding explains another: it may, it is as grave, it is about the same, and not the reverse."""
        if cause.severity.rank < other.severity.rank or cause.code in reach[other.code]:
            return False
        if cause.code in other.because:
            return True
        same = not cause.scope or not other.scope or cause.scope == other.scope
        return other.code in reach[cause.code] and same

    roots = [one for one in judged if not any(explains(other, one) for other in judged)]
    causes = [_cause(root, tuple(one for one in judged if explains(root, one)), registry) for root in roots]
    causes.sort(key=lambda one: (-one.severity.rank, -len(one.consequences), _restarts(one), one.code, one.root))
    return tuple(_ordered(causes, registry))


def _reach(code: str, registry: Registry) -> set[str]:
    """Give every code that a finding of this code explains, directly or through another; a circle explains nothing."""
    seen: set[str] = set()
    todo = [code]
    while todo:
        check = registry.checks.get(todo.pop())
        for other in check.explains if check else ():
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen - {code}


def _cause(root: Reported, explained: tuple[Reported, ...], registry: Registry) -> Diagnosis:
    fired = {one.code for one in explained} | {root.code}
    return Diagnosis(
        code=root.code,
        severity=root.severity,
        title=root.title,
        root=root.id,
        consequences=tuple(one.id for one in explained),
        hits=root.hits,
        works=root.works,
        evidence=root.evidence,
        since=root.since,
        # A rival without a page is no help to a reader: what rules it out is.
        excluded=tuple(
            one if one.rival in registry.checks else Excluded("", one.fact)
            for one in root.excluded
            if one.rival not in fired
        ),
        cure_after=(),
        remedy=root.remedy,
        likely=root.likely,
        by_hand=root.by_hand,
    )


def _restarts(cause: Diagnosis) -> int:
    return 1 if cause.remedy.restarts else 0


def blocking(causes: tuple[Diagnosis, ...], registry: Registry) -> frozenset[str]:
    """Give the codes among these causes that would keep dockerd or a container from starting again."""
    return frozenset(
        one.code for one in causes if one.code in registry.checks and registry.checks[one.code].blocks_start
    )


def _ordered(causes: list[Diagnosis], registry: Registry) -> list[Diagnosis]:
    """Say of each cure that restarts dockerd or the host which others come first.

    Every cure that restarts nothing comes before one that does; of two that restart, the one for what keeps dockerd
    from starting comes first.
    """
    blocks = blocking(tuple(causes), registry)

    def before(other: Diagnosis, cause: Diagnosis) -> bool:
        if other.code == cause.code:
            return False
        return not other.remedy.restarts or (other.code in blocks and cause.code not in blocks)

    return [
        replace(cause, cure_after=tuple(sorted({other.code for other in causes if before(other, cause)})))
        if cause.remedy.restarts
        else cause
        for cause in causes
    ]
