"""Faults made by real commands on live engines, a module a topic: what breaks, what proves it, what must be said."""

from __future__ import annotations

import importlib
import pkgutil

from tests.engine.faults.table import Fault, flows, populate

FAULTS: tuple[Fault, ...] = tuple(
    fault
    for module in sorted(one.name for one in pkgutil.iter_modules(__path__))
    for fault in getattr(importlib.import_module(f"{__name__}.{module}"), "FAULTS", ())
)
"""Those of every module of this folder that has a table."""

__all__ = ["FAULTS", "Fault", "flows", "populate"]
