"""The cells of `doctor reach` as flows that can be tried, and whether what was met is what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

from doctor.bundle import read
from doctor.reach import reach
from doctor.registry import load
from tests.enginehost import HOST_IP, OUTSIDE_IP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from doctor.model import Reach, ReachPort
    from doctor.packets.walk import Result

Flow = tuple[str, str, int]


class Cells(NamedTuple):
    """What a matrix says: each flow with its answer, the kinds of its letters, and the ports that containers are asked of."""

    answers: dict[Flow, str]
    kinds: dict[str, str]
    ports: tuple[ReachPort, ...]

    @classmethod
    def of(cls, path: Path, outside: int) -> Cells:
        """Judge a bundle; `outside` is the port outside that is tried, and so asked for, as the way out."""
        with patch("doctor.packets.matrix.WAY_OUT", outside):
            found, _ = reach(read(str(path)), load(plugins=False))
        kinds = {one.letter: "elsewhere" if one.code == "ELSEWHERE" else one.kind for one in found.reasons}
        return cls(dict(_flows(found, outside)), kinds, tuple(one for one in found.ports if one.outside != "-"))

    def apart(self, flow: Flow, met: str, walked: Result) -> str:
        """Say how a cell and what was met differ, empty where they do not, or where there is no such cell.

        A connect says nothing of what follows it, nor who took it: where the walk of the flow connects and is cut off then,
        or arrives elsewhere, it agrees with a letter. What depends on a network outside is neither.
        """
        answer = self.answers.get(flow, "?")
        here = (
            {"refused", "reset", "connected"} if answer == "refused" else {"connected"}
        )  # docker-proxy takes it first
        right = (answer in {"yes", "refused"}) == (met in here)
        if right or answer.startswith("?"):
            return ""
        cut = walked.works is False or self.kinds[answer] == "elsewhere"
        if met == "connected" and cut and walked.sees in {"connected", "reset"}:
            return ""
        return f"{flow}: reach says {answer} ({self.kinds.get(answer)}), met {met}"

    def crowds(self, real: Mapping[Flow, str], sources: tuple[str, ...]) -> Iterator[str]:
        """Say for which published port other numbers of containers reach it than the matrix has."""
        for one in self.ports:
            met = [real[source, HOST_IP, one.port] for source in sources if source != one.container]
            sure = sum(count for answer, count in one.containers.items() if answer == "yes")
            # A connect to docker-proxy stands before anybody knows whether what is behind it does.
            unsure = sum(count for answer, count in one.containers.items() if self.kinds.get(answer) != "design")
            if not sure <= met.count("connected") <= unsure:
                yield f"port {one.port} from containers: reach says {one.containers}, met {sorted(met)}"


def _flows(found: Reach, outside: int) -> Iterator[tuple[Flow, str]]:
    for one in found.flows:
        if one.target == "outside":
            yield (one.source, OUTSIDE_IP, outside), one.answer
        else:
            yield (one.source, one.address, one.port), one.answer
    for port in found.ports:
        if port.outside != "-":
            yield ("outside", HOST_IP, port.port), port.outside
        yield ("host", "127.0.0.1", port.port), port.host
        if port.itself != "-":
            yield (port.container, HOST_IP, port.port), port.itself
