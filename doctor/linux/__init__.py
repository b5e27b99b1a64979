"""What the kernel is asked directly: syscalls, namespaces, rtnetlink, sock_diag, nfnetlink, and children in bounds.

Small, own, the standard library only, and nothing of doctor: host and runtime both stand on it. What `doctor check` uses
of it only reads; `mounting`, `privileges`, `rtwrite` and the calls that make namespaces are the runtime's, and change what
is in namespaces of its own. Whoever calls decides whether a kernel module that a question would load is there already.
"""

from __future__ import annotations
