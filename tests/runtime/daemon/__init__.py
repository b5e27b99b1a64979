"""Tests of its daemon."""
