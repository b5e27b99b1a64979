"""A source of chance that is the same in every run."""

from __future__ import annotations

import random


def chance_of(seed: object) -> random.Random:
    """One that a seed of any kind makes."""
    return random.Random(str(seed))
