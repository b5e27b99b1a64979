"""Tests of the project itself: pages, proofs, documentation, directions, what a start costs."""
