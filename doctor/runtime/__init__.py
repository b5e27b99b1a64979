"""The minimal runtime: a host of our own in namespaces, that a reader takes for Docker's. Nothing of it is left behind.

Bottom up, each usable alone: namespaces, mounts and control groups; the root of a host and of a container; processes and
containers; links, rules, ports and names; the daemon, which has configuration, a log, a store and an API. It is made for
learning and for tests: it is no sandbox for hostile code.
"""

from __future__ import annotations
