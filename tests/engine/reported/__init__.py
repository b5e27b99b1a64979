"""Hosts as people have described them in public issues: what they had set up, and what the report must say to them."""

from __future__ import annotations

from tests.engine.reported.daemons import REPORTED as DAEMONS
from tests.engine.reported.networks import REPORTED as NETWORKS
from tests.engine.reported.starts import REPORTED as STARTS
from tests.engine.reported.table import Reported

REPORTED = (*DAEMONS, *NETWORKS, *STARTS)

__all__ = ["REPORTED", "Reported"]
