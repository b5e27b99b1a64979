"""Facts: captured text, and what the parsers make of it beside it."""

from __future__ import annotations
