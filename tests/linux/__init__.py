"""Tests of doctor.linux: with iproute2 as the independent reader."""
