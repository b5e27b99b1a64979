"""System calls, namespaces, netlink and bounded commands: small, own, no third party, only reading."""

from __future__ import annotations
