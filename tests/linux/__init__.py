"""Tests of doctor.linux, with iproute2 and pyroute2 as independent readers of the same namespaces."""
