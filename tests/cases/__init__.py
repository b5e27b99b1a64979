"""Cases: mini-snapshots as data, see README.md."""

from __future__ import annotations
