"""What the kernel is asked directly: syscalls, namespaces, rtnetlink, sock_diag, nfnetlink, and children in bounds.

Small, own, the standard library only, and nothing of doctor: host and runtime both stand on it. Everything here reads;
nothing changes the host. Whoever calls decides whether a kernel module that a question would load is there already.
"""

from __future__ import annotations
