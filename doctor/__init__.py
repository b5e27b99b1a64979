"""doctor: what is wrong with this Docker host, why, and what to do."""

from __future__ import annotations

__version__ = "0.1.0"
