"""Healthy hosts and their look-alikes on live engines, a module a topic: what is set up, and that nothing is said of it."""

from __future__ import annotations

import importlib
import pkgutil

from tests.engine.healthy.table import Healthy

HEALTHY: tuple[Healthy, ...] = tuple(
    healthy
    for module in sorted(one.name for one in pkgutil.iter_modules(__path__))
    for healthy in getattr(importlib.import_module(f"{__name__}.{module}"), "HEALTHY", ())
)
"""Those of every module of this folder that has a table."""

__all__ = ["HEALTHY", "Healthy"]
