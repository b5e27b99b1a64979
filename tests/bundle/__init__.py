"""Tests of bundles: round trips, damage and hostile archives."""
