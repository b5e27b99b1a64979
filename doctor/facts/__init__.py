"""Facts: raw evidence parsed into structs, one module per kind. Nothing here judges, does I/O or knows a clock."""

from __future__ import annotations

import msgspec

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a text of a hostile bundle may raise: no JSON or of another shape, no UTF-8, nested without end."""
