"""Layers, verified against what was recorded of them: unit, property and damage tests that need no root."""

from __future__ import annotations
