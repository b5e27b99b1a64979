"""Facts: raw evidence parsed into structs, one module per kind. Nothing here judges, does I/O or knows a clock."""

from __future__ import annotations
