r"""What a process of its own reads while another asks the daemon and parses: who runs, and every network namespace.

A run over 200 containers is 8,000 system calls, 1,000 netlink answers and 160 children; in one interpreter all of that
waits for whoever parses, and the other way round (measured by turns, on a busy machine: 2.0 s in one, 1.6 s in two).

Run as a program (`spawn.own`) it takes the directory of the sandbox files, the kernel modules that are there (with
commas), and how many seconds it has. It prints records (`doctor.linux.frames`).

Each namespace is one job of a thread that enters it with setns(2) and speaks netlink there; savers run from that thread by
posix_spawn and so inherit the namespace. A second thread would only pass the interpreter to and fro with the first, at each
of the system calls (measured: a quarter more processor time, and more of the clock). Namespaces are keyed by inode:
containers that share one cost one. A job that does not come back costs nothing but a new thread. What is printed here is not
scrubbed.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from doctor.lanes import Lane, current, wait
from doctor.lines import tree_line, unescape
from doctor.linux import cgroups, namespaces, nfnetlink, nfsets, rtnetlink, sock_diag, spawn
from doctor.linux.frames import DIAG, Frame, status_of, why_of
from doctor.linux.procfs import scan
from doctor.linux.trees import sandboxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.lanes import Job
    from doctor.lines import Kind, Status

SECONDS = 1.0
"""The bound on one netlink answer."""

JOB_SECONDS = 3.0
"""The bound on one namespace."""

SAVE_SECONDS = 2.0
SAVE_LIMIT = 1 << 20
IPTABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
"""The tables that iptables makes; its savers print them."""
_NETWORK = re.compile(r"^(\d+)/(?:ns/net\tl\t[\d.]+\tnet:\[(\d+)\]|(cgroup)\t)", re.MULTILINE)


def index(processes: str, held: str, folder: str, own: str) -> dict[str, str]:
    """Find every network namespace: inode → `host`, a pid, or the sandbox file of one that nobody lives in.

    Of several processes the first that belongs to the engine is taken: containers outlive what entered them.
    """
    others: list[tuple[str, str]] = []
    engine = set()
    for pid, inode, group in _NETWORK.findall(processes):
        if group:
            engine.add(pid)
        else:
            others.append((inode, pid))
    places = {own: "host"}
    for inode, pid in (*(one for one in others if one[1] in engine), *others):
        places.setdefault(inode, pid)
    for name, inode in re.findall(r"^([^\t\n]+)\tn\t[\d.]+\tnet:\[(\d+)\]", held, re.MULTILINE):
        places.setdefault(inode, f"{folder}/{unescape(name)}")
    return places


class Survey:
    """One survey: prints to `write`."""

    def __init__(self, folder: str, modules: Iterable[str], until: float, write: Callable[[bytes], None]) -> None:
        """Take the directory of sandbox files, the modules that are there, and when to end (time.monotonic)."""
        self.folder = folder
        self.can = frozenset(modules)
        self.until = until
        self.stuck: set[str] = set()
        self._write = write
        self._lock = threading.Lock()

    def run(self) -> None:
        """Read everything."""
        held = self._text("run/netns", self.folder, lambda: sandboxes(self.folder))
        processes = self._text("proc/processes", "/proc", scan)
        own = str(namespaces.namespace_id("/proc/self/ns/net"))
        places = index(processes, held, self.folder, own)
        listed = "".join(tree_line(inode, "n", 0.0, place) for inode, place in places.items())
        self.put("netns/index", "tree", "/proc/*/ns/net", listed.encode("utf-8", "surrogateescape"))
        lane = Lane("survey", self._fault)
        for inode, place in places.items():
            path = f"/proc/{place}/ns/net" if place.isdigit() else place
            reader = _Reader(self, "host" if place == "host" else inode, inode, path)
            lane.add(f"netns/{reader.name}/links", path, JOB_SECONDS, reader.read)
        lane.add("cgroup/containers", cgroups.ROOT, JOB_SECONDS, lambda: self._groups(processes))
        wake = threading.Condition()
        lane.start(wake)
        wait((lane,), self.until, wake, self._given_up)
        for job in lane.give_up(lambda _: True):
            self._given_up(job, time.monotonic() - job.begun)

    def put(
        self,
        name: str,
        kind: Kind,
        target: str,
        data: bytes,
        status: Status = "ok",
        errno: int = 0,
        ms: float = 0.0,
        why: str = "",
    ) -> None:
        """Print one record, unless the job that brought it was given up meanwhile."""
        job = current()
        with self._lock:
            if job is None or not job.abandoned:
                self._write(Frame(name, kind, target, status, errno, ms, why, data).bytes())

    def failed(self, name: str, target: str, error: OSError, ms: float, kind: Kind = "netns") -> None:
        """Print a record of what could not be had."""
        self.put(name, kind, target, b"", status_of(error), error.errno or 0, ms, why_of(error))

    def _text(self, name: str, target: str, read: Callable[[], str]) -> str:
        start = time.perf_counter()
        try:
            text = read()
        except OSError as error:
            self.failed(name, target, error, _since(start), "tree")
            return ""
        self.put(name, "tree", target, text.encode("utf-8", "surrogateescape"), ms=_since(start))
        return text

    def _fault(self, job: Job, error: Exception) -> None:
        why = f"fault in doctor itself: {type(error).__name__}: {error}"
        self.put(job.name, _kind(job), job.target, b"", "failed", why=why)

    def _given_up(self, job: Job, waited: float) -> None:
        self.put(job.name, _kind(job), job.target, b"", "timeout", 0, waited * 1000, f"did not end in {waited:.1f} s")

    def _groups(self, processes: str) -> None:
        """Read the groups of running containers, and how their first processes take signals."""
        start = time.perf_counter()
        try:
            groups, signals = cgroups.read(processes)
        except OSError as error:
            self.failed("cgroup/containers", cgroups.ROOT, error, _since(start), "tree")
            self.failed("proc/signals", "/proc", error, 0.0, "tree")
            return
        self.put("cgroup/containers", "tree", cgroups.ROOT, groups.encode("utf-8", "surrogateescape"), ms=_since(start))
        self.put("proc/signals", "tree", "/proc", signals.encode("utf-8", "surrogateescape"))


def _kind(job: Job) -> Kind:
    return "netns" if job.name.startswith("netns/") else "tree"


class _Reader:
    """Reads one namespace."""

    def __init__(self, survey: Survey, name: str, inode: str, path: str) -> None:
        self.survey = survey
        self.name = name
        self.inode = inode
        self.path = path

    def read(self) -> None:
        """Enter and read; what cannot be had is noted, one record each."""
        start = time.perf_counter()
        try:
            if self.path == "host":
                self._home()
            else:
                namespaces.enter(self.path, expected=int(self.inode))
            with rtnetlink.Route(timeout=SECONDS) as route:
                # Filters of tc are asked for on the host, where the other end of each container's link is.
                self._dump("links", partial(route.links, filters=self.name == "host"))
                self._dump("routes", route.routes)
                self._dump("rules", route.rules)
                self._dump("neighbours", route.neighbours)
        except OSError as error:
            self.survey.failed(f"netns/{self.name}/links", self.path, error, _since(start))
            return
        self._listeners()
        if self.name == "host":
            self._sets()
        else:
            self._firewall()

    def _home(self) -> None:
        """Go back to the host's namespace, where this thread has left it; without the right to, it never did."""
        if namespaces.namespace_id(f"/proc/self/task/{threading.get_native_id()}/ns/net") != int(self.inode):
            namespaces.enter("/proc/self/ns/net", expected=int(self.inode))

    def _dump(self, what: str, dump: Callable[[], bytes]) -> None:
        start = time.perf_counter()
        data = dump()
        self.survey.put(f"netns/{self.name}/{what}", "netns", self.path, data, ms=_since(start))

    def _listeners(self) -> None:
        name = f"netns/{self.name}/listeners"
        start = time.perf_counter()
        if not self.survey.can.issuperset(DIAG):
            self.survey.failed(name, self.path, OSError(0, "would load kernel module inet_diag"), 0.0)
            return
        try:
            data = sock_diag.listeners(timeout=SECONDS)
        except OSError as error:
            self.survey.failed(name, self.path, error, _since(start))
            return
        self.survey.put(name, "netns", self.path, data, ms=_since(start))

    def _sets(self) -> None:
        """Read what stands in the host's named sets, which the listing of its rules leaves out."""
        if "nf_tables" not in self.survey.can:
            return
        start = time.perf_counter()
        try:
            data = nfsets.sets(timeout=SECONDS)
        except OSError as error:
            self.survey.failed("net/nft-sets", "sets, by netlink", error, _since(start))
            return
        self.survey.put("net/nft-sets", "netns", "sets, by netlink", data, ms=_since(start))

    def _firewall(self) -> None:
        """Save the rules of a container's namespace that has any: Docker's DNS of user-defined networks, or others'."""
        stuck = self.survey.stuck
        if "nf_tables" not in self.survey.can:
            return
        start = time.perf_counter()
        try:
            tables = nfnetlink.tables(timeout=SECONDS)
        except OSError as error:
            self.survey.failed(f"netns/{self.name}/iptables", self.path, error, _since(start))
            return
        if tables == [("ip", "nat")] and self._resolver():
            return
        families = {family for family, _ in tables}
        if "ip" not in families:  # that there are none is known, too: what leads 127.0.0.11 to Docker's DNS was flushed
            self.survey.put(f"netns/{self.name}/iptables", "netns", "iptables-nft-save", b"")
        savers: list[tuple[str, ...]] = [(f"{word}tables-nft-save",) for word in ("ip", "ip6") if word in families]
        if any(family not in {"ip", "ip6"} or table not in IPTABLES for family, table in tables):
            savers.append(("nft", "-j", "list", "ruleset"))
        for argv in savers:
            program, record = argv[0], argv[0].partition("-")[0]
            if program in stuck:
                continue
            # In our own process group: whoever kills that gets the saver, too.
            done = spawn.run(argv, deadline_seconds=SAVE_SECONDS, limit_bytes=SAVE_LIMIT, own_group=False)
            if done.status == "timeout":
                stuck.add(program)
            status: Status = done.status
            why = "" if done.status == "ok" else f"{program}: {done.status}"
            if done.status == "ok" and done.returncode:
                status, why = "failed", f"exit {done.returncode}"
            ms = done.seconds * 1000
            self.survey.put(f"netns/{self.name}/{record}", "netns", " ".join(argv), done.stdout, status, 0, ms, why)

    def _resolver(self) -> bool:
        """Read the rules here when there are no others than those of the engine's resolver; whether that was so."""
        start = time.perf_counter()
        try:
            text = nfnetlink.nat(timeout=SECONDS)
        except OSError:
            return False
        if text:
            self.survey.put(f"netns/{self.name}/iptables", "netns", "table nat, by netlink", text, ms=_since(start))
        return bool(text)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000


def _print(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def main() -> None:
    """Make a survey and print it."""
    import gc

    gc.disable()
    folder, modules, seconds = sys.argv[1:4]
    until = time.monotonic() + float(seconds)
    os.read(0, 1)  # it ends when reading may begin: the interpreter was started before
    Survey(folder, modules.split(","), until, _print).run()
    os._exit(0)
