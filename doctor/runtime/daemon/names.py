"""Names for containers that were given none: an adjective and a surname, in the engine's manner."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

_LEFT = (
    *("able", "bold", "brisk", "calm", "clever", "cosy", "eager", "fair", "fond", "gentle", "glad", "honest", "keen"),
    *("lively", "lucid", "merry", "mild", "neat", "noble", "patient", "plucky", "quiet", "serene", "sober", "witty"),
)
_RIGHT = (
    *("abel", "bose", "curie", "dirac", "euler", "fermi", "gauss", "hopper", "hypatia", "kepler", "knuth", "lamarr"),
    *("lovelace", "meitner", "noether", "pascal", "planck", "ritchie", "shannon", "torvalds", "turing", "wright"),
)


def random_name(taken: Container[str]) -> str:
    """Give a name that is not taken."""
    for number in range(10_000):
        name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}" + (str(number) if number > 5 else "")  # noqa: PLR2004
        if name not in taken:
            return name
    raise RuntimeError("no name is left")
