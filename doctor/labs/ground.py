"""Where a scenario is played: a lab of ours, or a live engine in tests. Faults and probes know nothing else of a host."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from doctor.model import Report


class GroundError(Exception):
    """What was to be done on the host could not be; the text says what and why."""


class Ran(Struct, frozen=True):
    """What a command did: its exit code (128+n for a signal, 124 when it was stopped for its time), what it printed."""

    code: int
    out: str
    err: str


class Ground(Protocol):
    """A host with an engine on it, a network outside beside it, and doctor."""

    def run(self, argv: Sequence[str], *, stdin: str = "", seconds: float = 30.0) -> Ran:
        """Run a command in the host as its root; it raises nothing for what the command does."""

    def read(self, path: str) -> str | None:
        """Give the text of a file in the host; None when it is not there."""

    def write(self, path: str, text: str) -> None:
        """Write a file in the host, with the folders above it."""

    def ask(self, path: str) -> Any:
        """GET from the Engine API, decoded. Raises GroundError when the daemon does not answer, or says no."""

    def answers(self) -> bool:
        """Whether the daemon answers `/_ping` within two seconds."""

    def start_daemon(self, *, fails: bool) -> None:
        """Start dockerd as it was started, and wait until it serves, or gave up where that is expected. GroundError."""

    def stop_daemon(self) -> None:
        """Stop dockerd as an administrator does, and wait until it is gone."""

    def within(self, jobs: Mapping[str, Callable[[], bytes]], seconds: float) -> dict[str, bytes]:
        """Run functions side by side, each in a process of its own in a network (`host`, `outside`, a container's).

        Gives what each gave. Raises GroundError when one did not, within the time.
        """

    def check(self, options: tuple[str, ...] = ()) -> Report:
        """Run `doctor check` there."""


def sh(ground: Ground, script: str, *, seconds: float = 30.0) -> str:
    """Give what a shell script in the host prints. Raises GroundError when one of its commands fails."""
    done = ground.run(("sh", "-ec", script), seconds=seconds)
    if done.code:
        raise GroundError(f"exit {done.code}: {shorten(script)}: {shorten(done.err or done.out)}")
    return done.out


def shorten(text: str) -> str:
    """Give the last lines of an output in one line, at most 300 characters."""
    return " ".join(text.split())[-300:]


_PLACE = re.compile(r"\{([a-z-]+)(?::([\w.-]+)(?:@([\w.-]+))?)?\}")
WORDS = (
    *("bridge", "veth", "pid", "id", "ip", "sandbox", "shim", "log", "folder"),
    *("layer", "init", "image-layer", "mount", "record", "image", "dockerd"),
)
"""What may stand in braces in a fault or a probe, see `Names`."""


def words_of(text: str) -> list[tuple[str, str, str]]:
    """Give what stands in braces: word, whose, and on which network. Braces of shells and JSON are left alone.

    >>> words_of("ip link set {veth:web@shop} down; echo ${x}")
    [('veth', 'web', 'shop')]
    """
    return [(one[1], one[2] or "", one[3] or "") for one in _PLACE.finditer(text) if one[1] in WORDS]


Known = tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]
"""What inspect said of containers and networks, by name."""


class Names:
    """What is known of the host only once it is up, asked of its engine, and remembered while that does not answer.

    `{bridge:NET}` the link of a network, `{veth:CTR@NET}` a container's end on the host, `{pid:CTR}`, `{id:CTR}`,
    `{ip:CTR@NET}`, `{sandbox:CTR}` its file in /run/docker/netns, `{shim:CTR}` the pid of its shim, `{log:CTR}`,
    `{folder:CTR}` what the engine keeps of it, `{layer:CTR}` its directory in overlay2, `{init:CTR}` that below it,
    `{image-layer:CTR}` the uppermost of its image, `{mount:CTR}` the record of its mount, `{record:CTR}` that of the
    uppermost layer of its image, `{image:CTR}` the configuration of its image, `{dockerd}` the daemon's pid.
    """

    def __init__(self, ground: Ground, known: Known | None = None) -> None:
        """Know nothing yet, or what was known before."""
        self._ground = ground
        self._containers, self._networks = known or ({}, {})

    @property
    def known(self) -> Known:
        """What is remembered, for who asks when the engine does not answer any more."""
        return self._containers, self._networks

    def learn(self, containers: Sequence[str], networks: Sequence[str]) -> None:
        """Ask anew for all that may be needed; what does not answer keeps its last answer."""
        for name in containers:
            self._remember(self._containers, name, f"/containers/{name}/json")
        for name in (*networks, "bridge"):
            self._remember(self._networks, name, f"/networks/{name}")

    def _remember(self, held: dict[str, dict[str, Any]], name: str, path: str) -> None:
        try:
            held[name] = self._ground.ask(path)
        except GroundError:
            if name not in held:
                raise

    def container(self, name: str) -> dict[str, Any]:
        """Give what inspect says of a container."""
        if name not in self._containers:
            self._remember(self._containers, name, f"/containers/{name}/json")
        return self._containers[name]

    def address(self, name: str, network: str = "") -> str:
        """Give a container's IPv4 address on a network, or on the first that it has one on; empty for none."""
        networks = self.container(name)["NetworkSettings"]["Networks"]
        chosen = {network: networks.get(network, {})} if network else networks
        return next((str(one["IPAddress"]) for _, one in sorted(chosen.items()) if one.get("IPAddress")), "")

    def fill(self, text: str) -> str:
        """Put what is known in place of the words in braces. Raises GroundError."""

        def put(found: re.Match[str]) -> str:
            if found[1] not in WORDS:
                return found[0]
            return self._word(found[1], found[2] or "", found[3] or "")

        return _PLACE.sub(put, text)

    def _word(self, word: str, of: str, network: str) -> str:
        match word:
            case "bridge":
                return self._bridge(of)
            case "dockerd":
                return sh(self._ground, "cat /run/docker.pid").strip()
            case "ip":
                return self.address(of, network)
            case "veth":
                return self._veth(of, network)
        held = self.container(of)
        match word:
            case "pid":
                return str(held["State"]["Pid"])
            case "id":
                return str(held["Id"])
            case "sandbox":
                return str(held["NetworkSettings"]["SandboxKey"]).replace("/var/run/", "/run/")
            case "shim":
                return sh(self._ground, f"awk '{{print $4}}' /proc/{held['State']['Pid']}/stat").strip()
            case "log":
                return str(held["LogPath"])
            case "folder":
                return f"/var/lib/docker/containers/{held['Id']}"
        return self._stored(word, held)

    def _stored(self, word: str, held: dict[str, Any]) -> str:
        """Give a place in the data root (overlay2 and its layer database)."""
        store = "/var/lib/docker/image/overlay2"
        if word == "mount":
            return f"{store}/layerdb/mounts/{held['Id']}"
        if word == "image":
            return f"{store}/imagedb/content/sha256/{str(held['Image']).removeprefix('sha256:')}"
        driver = held["GraphDriver"]["Data"]
        upper = str(driver["UpperDir"]).removesuffix("/diff")
        lowers = [one.removesuffix("/diff") for one in str(driver["LowerDir"]).split(":")]
        match word:
            case "layer":
                return upper
            case "init":
                return lowers[0]
            case "image-layer":
                return lowers[1]
        cache = lowers[1].rpartition("/")[2]
        found = sh(self._ground, f"grep -l {cache} {store}/layerdb/sha256/*/cache-id").strip()
        return found.removesuffix("/cache-id")

    def _bridge(self, network: str) -> str:
        if network in {"docker0", "bridge"}:
            return "docker0"
        if network not in self._networks:
            self._remember(self._networks, network, f"/networks/{network}")
        held = self._networks[network]
        named = (held.get("Options") or {}).get("com.docker.network.bridge.name", "")
        return str(named or f"br-{held['Id'][:12]}")

    def _veth(self, of: str, network: str) -> str:
        """Give the host's end: that whose index the container's end has as its other end."""
        pid = self.container(of)["State"]["Pid"]
        wanted = self.address(of, network)
        script = (
            f"link=$(nsenter -t {pid} -n ip -o -4 addr show to {shlex.quote(wanted)} | awk '{{print $2; exit}}')\n"
            f'n=$(nsenter -t {pid} -n ip -o link show "$link" | sed "s/.*@if\\([0-9]*\\).*/\\1/")\n'
            'ip -o link | sed -n "s/^$n: \\([^@:]*\\)[@:].*/\\1/p"'
        )
        return sh(self._ground, script).strip()
