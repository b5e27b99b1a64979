"""What is read inside each network namespace: links, addresses, routes, rules, neighbours, listeners, firewall.

Each namespace is one job, done on a thread that enters it with setns(2) and speaks netlink there; savers run from that
thread by posix_spawn and so inherit the namespace. Namespaces are keyed by inode: containers that share one cost one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from doctor.linux import namespaces, nfnetlink, rtnetlink, sock_diag
from doctor.snapshot import tree_entries, tree_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.host import Host
    from doctor.snapshot import Kind, Record

SECONDS = 1.0
"""The bound on one netlink answer."""

SAVE_SECONDS = 2.0
SAVE_LIMIT = 1 << 20
DIAG = ("inet_diag", "tcp_diag", "udp_diag")


class Keep(Protocol):
    """Keeps evidence: name, kind, target, data, how it is scrubbed, and fields of the record."""

    def __call__(self, name: str, kind: Kind, target: str, data: bytes, how: str, **about: object) -> None:
        """Keep one record."""


class Failed(Protocol):
    """Notes evidence that could not be had: name, kind, target, error, milliseconds."""

    def __call__(self, name: str, kind: Kind, target: str, error: OSError, ms: float) -> None:
        """Note one record."""


Job = tuple[str, str, "Callable[[], None]"]


def jobs(
    host: Host,
    processes: Record | None,
    sandboxes: Record | None,
    *,
    keep: Keep,
    failed: Failed,
    stuck: set[str],
) -> tuple[str, list[Job]]:
    """Find every namespace. Gives the index (a tree record: inode, where it was found) and a job for each."""
    own = str(namespaces.namespace_id("/proc/self/ns/net"))
    places: dict[str, str] = {own: "host"}
    for inode, place in _seen(processes, sandboxes):
        places.setdefault(inode, place)
    index = "".join(tree_line(inode, "n", 0.0, place) for inode, place in places.items())
    can = {module: host.has_module(module) for module in (*DIAG, "nf_tables")}
    work: list[Job] = []
    for inode, place in places.items():
        name = "host" if place == "host" else inode
        path = f"/proc/{place}/ns/net" if place.isdigit() else place
        reader = _Reader(host, name, inode, path, keep, failed, stuck, can)
        work.append((f"netns/{name}/links", path, reader.read))
    return index, work


def _seen(processes: Record | None, sandboxes: Record | None) -> Iterator[tuple[str, str]]:
    """Give inode and place of each: the engine's processes first, then anybody's, then sandboxes nobody lives in."""
    others = []
    engine = set()
    for entry in tree_entries(processes) if processes is not None else ():
        pid, _, rest = entry.path.partition("/")
        if rest == "cgroup":
            engine.add(pid)
        if rest == "ns/net" and entry.type == "l":
            others.append((entry.content.removeprefix("net:[").rstrip("]"), pid))
    yield from ((inode, pid) for inode, pid in others if pid in engine)
    yield from others
    for entry in tree_entries(sandboxes) if sandboxes is not None else ():
        if entry.type == "n":
            yield (
                entry.content.removeprefix("net:[").rstrip("]"),
                f"{sandboxes.target if sandboxes else ''}/{entry.path}",
            )


class _Reader:
    """Reads one namespace."""

    def __init__(
        self,
        host: Host,
        name: str,
        inode: str,
        path: str,
        keep: Keep,
        failed: Failed,
        stuck: set[str],
        can: dict[str, bool],
    ) -> None:
        self.host = host
        self.name = name
        self.inode = inode
        self.path = path
        self.keep = keep
        self.failed = failed
        self.stuck = stuck
        self.can = can

    def read(self) -> None:
        """Enter and read; what cannot be had is noted, one record each."""
        start = time.perf_counter()
        try:
            if self.path == "host":
                self._home()
            else:
                namespaces.enter(self.path, expected=int(self.inode))
        except OSError as error:
            self.failed(f"netns/{self.name}/links", "netns", self.path, error, (time.perf_counter() - start) * 1000)
            return
        try:
            with rtnetlink.Route(timeout=SECONDS) as route:
                self._dump("links", route.links)
                self._dump("routes", route.routes)
                self._dump("rules", route.rules)
                self._dump("neighbours", route.neighbours)
        except OSError as error:
            self.failed(f"netns/{self.name}/links", "netns", self.path, error, (time.perf_counter() - start) * 1000)
            return
        self._listeners()
        if self.name != "host":
            self._firewall()

    def _home(self) -> None:
        """Go back to the host's namespace, where this thread has left it; without the right to, it never did."""
        if namespaces.namespace_id(f"/proc/self/task/{_tid()}/ns/net") != int(self.inode):
            namespaces.enter("/proc/self/ns/net", expected=int(self.inode))

    def _dump(self, what: str, dump: Callable[[], bytes]) -> None:
        start = time.perf_counter()
        data = dump()
        self.keep(
            f"netns/{self.name}/{what}", "netns", self.path, data, "none", ms=(time.perf_counter() - start) * 1000
        )

    def _listeners(self) -> None:
        name = f"netns/{self.name}/listeners"
        start = time.perf_counter()
        if not all(self.can[module] for module in DIAG):
            error = OSError(0, "would load kernel module inet_diag")
            self.failed(name, "netns", self.path, error, 0.0)
            return
        try:
            data = sock_diag.listeners(timeout=SECONDS)
        except OSError as error:
            self.failed(name, "netns", self.path, error, (time.perf_counter() - start) * 1000)
            return
        self.keep(name, "netns", self.path, data, "none", ms=(time.perf_counter() - start) * 1000)

    def _firewall(self) -> None:
        """Save the rules of a container's namespace that has any: Docker's DNS of user-defined networks, or others'."""
        if not self.can["nf_tables"] or "iptables-nft-save" in self.stuck:
            return
        start = time.perf_counter()
        try:
            tables = nfnetlink.tables(timeout=SECONDS)
        except OSError as error:
            self.failed(f"netns/{self.name}/iptables", "netns", self.path, error, (time.perf_counter() - start) * 1000)
            return
        families = {family for family, _ in tables}
        if "ip" not in families:  # that there are none is known, too: what leads 127.0.0.11 to Docker's DNS was flushed
            self.keep(f"netns/{self.name}/iptables", "netns", "iptables-nft-save", b"", "none")
        for family, program, record in (("ip", "iptables", "iptables"), ("ip6", "ip6tables", "ip6tables")):
            argv = (f"{program}-nft-save",)
            if family not in families or argv[0] in self.stuck:
                continue
            done = self.host.run(argv, SAVE_SECONDS, SAVE_LIMIT)
            if done.status == "timeout":
                self.stuck.add(argv[0])
            bad = f"exit {done.returncode}" if done.returncode else ""
            status = done.status if done.status != "ok" or not bad else "failed"
            self.keep(
                f"netns/{self.name}/{record}",
                "netns",
                " ".join(argv),
                done.stdout,
                "text",
                status=status,
                why=bad if status == "failed" else "" if status == "ok" else f"{argv[0]}: {status}",
                ms=done.seconds * 1000,
            )


def _tid() -> int:
    import threading

    return threading.get_native_id()
