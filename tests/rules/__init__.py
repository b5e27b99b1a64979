"""Tests of the rules of the engine, and of `doctor rules`."""
