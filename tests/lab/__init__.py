"""Tests of labs."""

from __future__ import annotations
