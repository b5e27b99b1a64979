"""Write the shared bases of the cases from live engines: `python -m tests.cases.make_base [SUITE ...]`. Needs root.

Each base is the snapshot that doctor itself takes of a healthy host of `tests/enginehost.py`, cut down to the records
that checks read. What differs between two runs (ids, pids, inodes, MAC addresses, times) is given a name of its own,
the same on every engine, so that a case can be moved from one base to another and a base can be written anew.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from doctor.facts.images import chain_ids
from doctor.snapshot import Snapshot
from tests.enginehost import IMAGE, EngineHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
BASES = {"bookworm": "20", "trixie": "26", "sid": "28"}

BOOTED = 1795503600  # 2026-11-24T07:00:00Z
STARTED = BOOTED + 3600
COLLECTED = BOOTED + 7200
DAY = "2026-11-24T"
CLOCK = {"web": "08:10:00", "api": "08:12:00", "db": "08:13:00", "job": "08:05:00"}
"""When each container of the base started, on DAY, UTC."""

SPACE = "size 107374182400\nfree 64424509440\nfree_root 64424509440\ninodes 6553600\ninodes_free 6000000\n"
"""Room on the disk of every base: 60 of 100 GiB."""

CONTAINERS = {"web": "a1", "api": "a2", "db": "a3", "job": "a4"}
NETWORKS = {"bridge": "b1", "host": "b2", "none": "b3", "shop": "b4"}
PIDS = {"web": 201, "api": 202, "db": 203}
DAEMON_JSON = {"log-driver": "json-file", "log-opts": {"max-size": "10m"}}

_TAKE = """
import sys
sys.path.insert(0, "/opt/src")
import msgspec
from doctor.collect import collect
from doctor.host import LocalHost
sys.stdout.write(msgspec.json.encode(collect(LocalHost())).decode())
"""


def populate(host: EngineHost) -> None:
    """Start what every base has: two networks, three running containers, one that has ended, an image of two layers."""
    host.docker("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "serve")
    host.docker("run", "--name", "job", IMAGE, "sh", "-c", "echo 1 >/version")
    host.docker("commit", "job", "shop/api:1")
    host.docker("network", "create", "--subnet", "10.7.0.0/24", "shop")
    published = ("--network", "shop", "-p", "8081:80", "--restart", "always")
    host.docker("run", "-d", "--name", "api", *published, "shop/api:1", "serve")
    host.docker("run", "-d", "--name", "db", "--network", "shop", IMAGE, "serve")
    # 20.10 to 27 remove the sandbox file of a container that has ended with the next tick of a minute.
    host.sh("for i in $(seq 130); do ls -l /run/docker/netns | grep -q -- '^-rw' || exit 0; sleep 0.5; done")


def take(host: EngineHost) -> Snapshot:
    """Let doctor collect on the host."""
    done = host.run("/opt/doctor/bin/python", "-c", _TAKE)
    return msgspec.json.decode(done.stdout, type=Snapshot)


class Namer:
    """Gives the names of one snapshot their stand-ins."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Find everything that has a name of its own."""
        self.snapshot = snapshot
        self.words: dict[str, str] = {}
        self.pids: dict[int, int] = {}
        self.macs: dict[str, str] = {}
        self._ids()
        self._layers()
        self._processes()
        self._links()

    def text(self, name: str) -> str:
        """Give a record's text as it was taken."""
        return self.snapshot.get(name).text

    def _ids(self) -> None:
        for one in json.loads(self.text("api/networks")):
            self.words[one["Id"]] = NETWORKS[one["Name"]] * 32
            self.words[one["Id"][:12]] = NETWORKS[one["Name"]] * 6
        for record in self.snapshot.under("api/inspect/"):
            one = json.loads(record.data)
            name = one["Name"].lstrip("/")
            mark = CONTAINERS[name]
            self.words[one["Id"]] = mark * 32
            self.words[one["Id"][:12]] = mark * 6
            sandbox = one["NetworkSettings"]["SandboxID"]
            if sandbox:
                self.words[sandbox] = "5" + mark[1] + ("5" + mark[1]) * 31
                self.words[sandbox[:12]] = ("5" + mark[1]) * 6
            for end in one["NetworkSettings"]["Networks"].values():
                if end["EndpointID"]:
                    self.words[end["EndpointID"]] = ("e" + mark[1]) * 32
            if one["State"]["Pid"]:
                self.pids[one["State"]["Pid"]] = PIDS[name]
                self.words[self._inode(one["State"]["Pid"])] = f"40265325{mark[1]}{mark[1]}"
        self.words[self._inode(1)] = "4026532500"

    def _inode(self, pid: int) -> str:
        found = re.search(rf"^{pid}/ns/net\tl\t0\.000\tnet:\[(\d+)\]", self.text("proc/processes"), re.MULTILINE)
        assert found, pid
        return found[1]

    def _layers(self) -> None:
        owner = {}
        for line in self.text("store/layerdb-mounts").split("\n"):
            container, _, rest = line.partition("/")
            if rest.startswith("mount-id\t"):
                owner[line.rpartition("\t")[2]] = container
        base, derived = "", ""
        for line in self.text("store/layerdb").split("\n"):
            chain, _, rest = line.partition("/")
            if rest.startswith("cache-id\t"):
                if f"{chain}/parent" in self.text("store/layerdb"):
                    derived = line.rpartition("\t")[2]
                else:
                    base = line.rpartition("\t")[2]
        named = {base: ("c1" * 32, "BASE"), derived: ("c2" * 32, "SECOND")}
        self._images()
        for layer, container in owner.items():
            mark = self.words[container][:2]
            name = next(key for key, value in CONTAINERS.items() if value == mark)
            named[layer] = (f"d{mark[1]}" * 32, name.upper())
            named[layer + "-init"] = (f"d{mark[1]}" * 32 + "-init", name.upper() + "INIT")
        pattern = r"^([0-9a-f]{64}(?:-init)?)/link\tf\t[\d.]+\t(\w{26})"
        for entry in re.findall(pattern, self.text("store/overlay2"), re.MULTILINE):
            stand_in, link = named[entry[0]]
            self.words[entry[0].removesuffix("-init")] = stand_in.removesuffix("-init")
            self.words[entry[1]] = link.ljust(26, "A")

    def _images(self) -> None:
        """Name images, diffs and chains so that the chain of the upper layer is still what it has to be (OCI image-spec)."""
        for record in self.snapshot.under("store/images/"):
            diffs = [diff.removeprefix("sha256:") for diff in json.loads(record.data)["rootfs"]["diff_ids"]]
            self.words[record.name.rpartition("/")[2]] = f"1{len(diffs)}" * 32
            self.words[diffs[0]] = "f1" * 32
            if len(diffs) > 1:
                self.words[diffs[1]] = "f2" * 32
                (chain,) = (chain for chain in chain_ids([f"sha256:{diff}" for diff in diffs])[1:])
                self.words[chain.removeprefix("sha256:")] = chain_ids([f"sha256:{'f1' * 32}", f"sha256:{'f2' * 32}"])[
                    1
                ][7:]

    def _processes(self) -> None:
        proxy, others = 301, {"dockerd": 100, "containerd": 110, "init": 1}
        for line in self.text("proc/processes").split("\n"):
            found = re.match(r"(\d+)/stat\tf\t0\.000\t\d+ \((.*)\)", line)
            if not found or int(found[1]) in self.pids:
                continue
            pid, name = int(found[1]), found[2]
            if name in others:
                self.pids[pid] = others[name]
            elif name == "docker-proxy":
                self.pids[pid], proxy = proxy, proxy + 1
            elif name.startswith("containerd-shim"):
                container = re.search(rf"^{pid}/cmdline\t.*-id\0([0-9a-f]+)", self.text("proc/processes"), re.MULTILINE)
                assert container
                mark = self.words[container[1]][1]
                self.pids[pid] = 210 + int(mark)

    def _links(self) -> None:
        veths = {}
        for record in self.snapshot.under("netns/"):
            inode = record.name.split("/")[1]
            if record.name.endswith("/links") and inode in self.words:
                for one in _objects(record.text):
                    if one["ifname"] == "eth0":
                        veths[one["link_index"]] = self.words[inode][-1]
                        self.macs[one["address"]] = f"02:42:00:00:00:0{self.words[inode][-1]}"
        for one in _objects(self.text("netns/host/links")):
            if one["ifindex"] in veths:
                mark = veths[one["ifindex"]]
                self.words[one["ifname"]] = "veth" + f"a{mark}" * 3 + "a"
                self.macs[one["address"]] = f"9a:00:00:00:00:a{mark}"
            elif one.get("address") and one["ifname"] != "lo":
                self.macs[one["address"]] = f"9a:00:00:00:00:{one['ifindex']:02x}"

    def apply(self, text: str) -> str:
        """Put the stand-ins into a text; longer names first."""
        for held in (self.words, self.macs):
            pattern = "|".join(map(re.escape, sorted(held, key=len, reverse=True)))
            text = re.sub(pattern, _looked_up(held), text)
        return text


def _looked_up(names: dict[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda match: names[match[0]]


def _pick(data: Any, keys: dict[str, Any]) -> Any:
    """Keep of an object the keys named; a value of None keeps the whole."""
    if isinstance(data, list):
        return [_pick(one, keys) for one in data]
    return {
        key: data[key] if below is None or data[key] is None else _pick(data[key], below)
        for key, below in keys.items()
        if key in data
    }


_STATE = dict.fromkeys(
    (
        "Status",
        "Running",
        "Paused",
        "Restarting",
        "OOMKilled",
        "Dead",
        "Pid",
        "ExitCode",
        "StartedAt",
        "FinishedAt",
        "Error",
        "Health",
    )
)
_INSPECT: dict[str, Any] = {
    **dict.fromkeys(("Id", "ID", "Name", "Image", "Created", "Path", "RestartCount")),
    "State": _STATE,
    "HostConfig": {
        **dict.fromkeys(("NetworkMode", "PortBindings", "RestartPolicy", "AutoRemove")),
        **dict.fromkeys(("Links", "Dns", "Privileged", "CapAdd", "Runtime", "LogConfig", "Init")),
        **dict.fromkeys(("Memory", "PidsLimit", "PidMode")),
    },
    "Config": dict.fromkeys(("Image", "Labels", "Hostname", "StopSignal", "StopTimeout")),
    "Mounts": None,
    "MountPoints": None,
    "NetworkSettings": dict.fromkeys(("SandboxID", "SandboxKey", "Ports", "Networks")),
}
_INFO: dict[str, Any] = {
    **dict.fromkeys(("Driver", "LiveRestoreEnabled", "ServerVersion", "Debug", "LoggingDriver", "DefaultRuntime")),
    **dict.fromkeys(("DockerRootDir", "ExperimentalBuild", "Labels", "RegistryConfig")),
    **dict.fromkeys(
        ("CgroupVersion", "CgroupDriver", "MemoryLimit", "PidsLimit", "CpuCfsQuota", "CPUShares", "CPUSet")
    ),
}
_LISTED: dict[str, Any] = dict.fromkeys(("Id", "Names", "Image", "State", "NetworkSettings"))
_NETWORK: dict[str, Any] = {
    **dict.fromkeys(("Name", "Id", "Driver", "EnableIPv6", "Internal", "Options")),
    "IPAM": {"Config": None},
}
_LINK: dict[str, Any] = {
    **dict.fromkeys(("ifindex", "link_index", "ifname", "flags", "mtu", "master", "operstate", "address")),
    **dict.fromkeys(("link_netnsid",)),
    "linkinfo": {
        "info_kind": None,
        "info_data": dict.fromkeys(("stp_state", "forward_delay")),
        "info_slave_data": {"state": None},
    },
    "addr_info": dict.fromkeys(("family", "local", "prefixlen", "scope")),
}
_ROUTE = dict.fromkeys(("type", "dst", "gateway", "dev", "table", "scope", "prefsrc", "metric", "family"))


def _line(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _rows(data: Any) -> str:
    """Print JSON with one line for each top-level member."""
    if isinstance(data, list):
        return "[\n" + ",\n".join(map(_line, data)) + "\n]\n"
    return "{\n" + ",\n".join(f"{_line(key)}:{_line(value)}" for key, value in data.items()) + "\n}\n"


def _objects(text: str) -> list[dict[str, Any]]:
    """Read JSON objects that stand one on a line."""
    return [json.loads(line.rstrip(",")) for line in text.split("\n") if line.startswith("{")]


class Cutter:
    """Cuts each kind of record down to what is worth keeping."""

    def __init__(self, snapshot: Snapshot, namer: Namer) -> None:
        """Take the snapshot, and the stand-ins that were made when all ran."""
        self.snapshot = snapshot
        self.namer = namer

    def records(self) -> Iterator[dict[str, Any]]:
        """Give the records of the base, in the order of the file."""
        plain = (
            *("engine/daemon.json", "engine/version", "host/init"),
            *("files/etc/default/docker", "files/etc/nftables.conf", "files/etc/resolv.conf", "netns/host/rules"),
            *("files/proc/sys/net/ipv4/ip_forward", "api/ping", "store/repositories.json"),
            *("files/etc/resolv.conf", "files/run/systemd/resolve/resolv.conf"),
        )
        tables: list[tuple[Callable[[str], str], tuple[str, ...]]] = [
            (self._as_it_is, plain),
            (self._places, ("engine/places",)),
            (self._daemon_pid, ("engine/pidfile", "engine/init-pid")),
            (lambda _: f"btime {BOOTED}\n", ("host/boot",)),
            (lambda text: "".join(text.splitlines(keepends=True)[:2]), ("engine/init-script",)),
            (self._log, ("engine/log",)),
            (self._processes, ("proc/processes",)),
            (self._as_it_is, ("run/netns", "cgroup/containers")),
            (self._paths, ("engine/paths",)),
            (self._groups, ("host/groups",)),
            (lambda _: SPACE, ("store/space",)),
            (self._logs, ("store/logs",)),
            (self._signals, ("proc/signals",)),
            (self._mounts, ("host/mounts",)),
            (lambda _: "", ("host/kernel-log",)),
            (self._index, ("netns/index",)),
            (self._listeners, tuple(name for name in self.snapshot.records if re.match(r"netns/\w+/listeners", name))),
            (self._inner, tuple(name for name in self.snapshot.records if re.match(r"netns/\d+/iptables", name))),
            (self._as_it_is, self._of_containers("resolv.conf")),
            (self._as_it_is, self._of_containers("hosts")),
            (self._as_it_is, self._of_containers("hostname")),
            (self._links, tuple(name for name in self.snapshot.records if re.match(r"netns/\w+/links", name))),
            (self._routes, tuple(name for name in self.snapshot.records if re.match(r"netns/\w+/routes", name))),
            (self._rules, ("net/iptables-nft", "net/ip6tables-nft", "net/iptables-legacy", "net/ip6tables-legacy")),
            (self._nft, ("net/nft",)),
            (self._sysctl, ("net/sysctl/ipv4", "net/sysctl/ipv6", "net/sysctl/bridge")),
            (self._json(_LISTED), ("api/containers",)),
            (self._json(dict.fromkeys(("Version", "ApiVersion", "MinAPIVersion", "KernelVersion"))), ("api/version",)),
            (self._json(_INFO), ("api/info",)),
            (self._json(_NETWORK), ("api/networks",)),
            (self._json({"Volumes": None}), ("api/volumes",)),
            (self._json(_INSPECT), tuple(record.name for record in self.snapshot.under("api/inspect/"))),
            (self._json(_INSPECT), self._of_containers("config.v2.json")),
            (self._json(_INSPECT["HostConfig"]), self._of_containers("hostconfig.json")),
            (
                self._json({"rootfs": None, "architecture": None}),
                tuple(record.name for record in self.snapshot.under("store/images/")),
            ),
            (self._tree, ("store/overlay2", "store/overlay2-l", "store/overlay2-last", "store/layerdb")),
            (self._tree, ("store/layerdb-mounts",)),
        ]
        for cut, names in tables:
            there = (self._record(name, cut) for name in names if name in self.snapshot.records)
            yield from sorted(there, key=lambda one: names_first(one["name"]))
        for copy, of in (
            ("api/containers-last", "api/containers"),
            ("proc/last", "proc/processes"),
            ("run/netns-last", "run/netns"),
        ):
            if copy in self.snapshot.records:
                yield {"name": copy, "same_as": of}

    def _daemon_pid(self, text: str) -> str:
        dockerd = next(pid for pid, stand_in in self.namer.pids.items() if stand_in == 100)
        return text.replace(str(dockerd), "100")

    def _record(self, name: str, cut: Callable[[str], str]) -> dict[str, Any]:
        record = self.snapshot.get(name)
        found: dict[str, Any] = {"name": self.namer.apply(name), "kind": record.kind}
        found["target"] = self.namer.apply(
            re.sub(r"/proc/(\d+)", lambda match: f"/proc/{self.namer.pids.get(int(match[1]), 1)}", record.target)
        )
        if record.status == "ok":
            text = self.namer.apply(cut(record.text))
            if record.kind == "tree" and name != "proc/processes":
                lines = text.splitlines(keepends=True)
                text = "".join(sorted(lines, key=lambda line: re.split(r"[/\t]", line)[0]))
            found["text"] = text
        else:
            found |= {"status": record.status, "why": record.why}
        if record.mtime:
            found["mtime"] = STARTED - 600
        return found

    def _of_containers(self, file: str) -> tuple[str, ...]:
        return tuple(one.name for one in self.snapshot.under("store/containers/") if one.name.endswith("/" + file))

    def _signals(self, text: str) -> str:
        def named(match: re.Match[str]) -> str:
            pid = str(self.namer.pids[int(match[1])])
            return f"{pid}/status{match[2]}NSpid:\\t{pid}\\t"

        lines = re.sub(r"(?m)^(\d+)/status(.*?)NSpid:\\t\d+\\t", named, text).splitlines(keepends=True)
        return "".join(sorted(lines))

    @staticmethod
    def _mounts(text: str) -> str:
        """Keep the mounts of cgroups, with the numbers of a host of their own; the root is on a disk."""
        kept = [line.split(" ", 4) for line in text.split("\n") if " - cgroup" in line]
        groups = "".join(f"{30 + n} 29 0:{30 + n} / {rest[4]}\n" for n, rest in enumerate(kept))
        return groups + "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"

    @staticmethod
    def _as_it_is(text: str) -> str:
        return text

    def _places(self, text: str) -> str:
        found = json.loads(text)
        if found["pid"]:
            found["pid"], found["looked"] = 100, ["found dockerd running, pid 100"]
        else:
            found["looked"] = ["found /usr/sbin/dockerd"]
        return _rows(found)

    @staticmethod
    def _paths(text: str) -> str:
        """Give the group docker one number on every engine, and everything the time of the start."""
        text = re.sub(r"\t[\d.]+\t(\d+ \d+ \d+) \d+( link)?\n", rf"\t{STARTED}.000\t\1 0\2\n", text)
        return re.sub(r"(\t\d+ 0) [1-9]\d* ", r"\1 999 ", text)

    @staticmethod
    def _logs(text: str) -> str:
        return re.sub(r"\tf\t[\d.]+\t\d+\n", f"\tf\t{STARTED}.000\t4096\n", text)

    @staticmethod
    def _groups(text: str) -> str:
        return re.sub(r":x:\d+:", ":x:999:", text)

    @staticmethod
    def _log(text: str) -> str:
        """Keep the lines by which a start and a stop are known, with times of the base."""
        kept = []
        for words, when in (
            ("Starting up", "08:00:00.1"),
            ("Daemon has completed initialization", "08:00:01.0"),
            ("API listen on", "08:00:01.2"),
            ("Processing signal 'terminated'", "08:50:00.0"),
        ):
            line = next((line for line in text.split("\n") if words in line), "")
            if line:
                kept.append(re.sub(r'time="[^"]*"', f'time="{DAY}{when}00000000Z"', line))
        return "\n".join(kept) + "\n"

    def _processes(self, text: str) -> str:
        wanted = ("stat", "cgroup", "cmdline", "ns/net")
        held: dict[int, list[str]] = {}
        started = {100: 0, 110: 0} | {pid: _seconds(CLOCK[name]) - 8 * 3600 for name, pid in PIDS.items()}
        started |= {pid + 10: began for pid, began in started.items() if pid > 200}
        for line in text.split("\n"):
            path, _, rest = line.partition("\t")
            pid, _, member = path.partition("/")
            stand_in = self.namer.pids.get(int(pid)) if pid.isdigit() else None
            if stand_in is None or member not in wanted or (stand_in == 1 and member == "cgroup"):
                continue
            kind, when, content = rest.split("\t", 2)
            if member == "stat":
                ticks = (started.get(stand_in, 0) + 3600) * 100 if stand_in > 1 else 5
                content = self._stat(content, ticks)
            elif member == "cgroup":
                content = "".join(
                    line + "\\n" for line in content.split("\\n") if line.startswith("0::") or "name=systemd" in line
                )
            held.setdefault(stand_in, []).append(f"{stand_in}/{member}\t{kind}\t{when}\t{content}\n")
        return "".join("".join(lines) for _, lines in sorted(held.items()))

    def _stat(self, content: str, ticks: int) -> str:
        name = content[content.find("(") + 1 : content.rfind(")")]
        rest = content[content.rfind(")") + 2 :].split(" ")
        pid, parent = (self.namer.pids.get(int(number), 1) for number in (content.partition(" ")[0], rest[1]))
        state = "S" if rest[0] == "R" else rest[0]
        head = f"{pid} ({name}) {state} {parent if pid > 1 else 0} {pid} {pid}"
        return f"{head} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0\\n"

    def _index(self, text: str) -> str:
        def named(match: re.Match[str]) -> str:
            return f"\t{self.namer.pids[int(match[1])]}\n"

        return re.sub(r"\t(\d+)\n", named, text)

    @staticmethod
    def _links(text: str) -> str:
        found = [_pick(one, _LINK) for one in _objects(text)]
        for one in found:
            one["addr_info"] = [held for held in one["addr_info"] if held["local"] != "::1" and held["scope"] != "link"]
        return _rows(found)

    def _listeners(self, text: str) -> str:
        """Leave out the numbers that no check reads; the ports of dockerd's DNS have names of their own."""
        words = (re.sub(r" (ino|sk):\w+", "", line) for line in text.split("\n") if line)
        return "".join(sorted(f"{self._resolver(line)}\n" for line in words))

    def _inner(self, text: str) -> str:
        return self._resolver(self._rules(text))

    @staticmethod
    def _resolver(text: str) -> str:
        """Give dockerd's DNS the ports 40053 for udp and 40054 for tcp, wherever they stand."""
        lines = []
        for line in text.split("\n"):
            port = "40053" if line.startswith("udp ") or " -p udp " in line else "40054"
            lines.append(re.sub(r"(?<=127\.0\.0\.11:)\d+|(?<=--sport )\d+", port, line))
        return "\n".join(lines)

    @staticmethod
    def _routes(text: str) -> str:
        kept = [one for one in _objects(text) if ":" not in one.get("dst", "") and one.get("type") != "broadcast"]
        return _rows([_pick(one, _ROUTE) for one in kept if one.get("dev") != "lo" or one["dst"] == "127.0.0.0/8"])

    @staticmethod
    def _rules(text: str) -> str:
        return "".join(line + "\n" for line in text.split("\n") if line and line[0] != "#")

    @staticmethod
    def _nft(text: str) -> str:
        """Keep the names of the tables: the rules are iptables' own, and read through its saver."""
        return _rows({"nftables": [one for one in json.loads(text)["nftables"] if "table" in one]})

    @staticmethod
    def _sysctl(text: str) -> str:
        kept = [line for line in text.split("\n") if re.search(r"/forwarding\t|^bridge-nf-call-ip", line)]
        return "".join(re.sub(r"\tf\t[\d.]+\t", "\tf\t0.000\t", line) + "\n" for line in kept)

    def _json(self, keys: dict[str, Any]) -> Callable[[str], str]:
        def cut(text: str) -> str:
            found = _pick(json.loads(text), keys)
            for one in found if isinstance(found, list) else [found]:
                self._clock(one)
            if isinstance(found, list):
                found.sort(key=lambda one: one.get("Name") or one["Names"][0])
            return _rows(found)

        return cut

    def _clock(self, one: dict[str, Any]) -> None:
        if "Created" in one and "State" in one:
            one["Created"] = f"{DAY}{CLOCK[one['Name'].lstrip('/')]}.1Z"
        state = one.get("State")
        if isinstance(state, dict):
            name = one["Name"].lstrip("/")
            state["StartedAt"] = f"{DAY}{CLOCK[name]}.5Z"
            if not state["Running"]:
                state["FinishedAt"] = f"{DAY}{CLOCK[name][:-2]}01Z"
            state["Pid"] = self.namer.pids.get(state["Pid"], 0)

    @staticmethod
    def _tree(text: str) -> str:
        lines = []
        for line in text.split("\n"):
            if line and "tar-split" not in line:  # its size depends on when files were made
                path, kind, when, content = line.split("\t")
                lines.append(f"{path}\t{kind}\t{STARTED - 300 if float(when) else 0}.000\t{content}\n")
        return "".join(lines)


def _seconds(clock: str) -> int:
    hours, minutes, seconds = map(int, clock.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def names_first(name: str) -> tuple[bool, str]:
    """Sort records by name, the host's namespace before the containers'."""
    return (not name.startswith("netns/host/"), name)


def toml(value: Any) -> str:
    """Print a value for TOML; a text of several lines in quotes that need no escapes, where it can."""
    if isinstance(value, int | float):
        return str(value)
    if "\n" not in value:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if "'''" not in value and not any(ord(char) < 32 and char not in "\n\t" for char in value):
        return f"'''\n{value}'''"
    escaped = value.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    escaped = "".join(char if ord(char) >= 32 or char in "\n\t" else f"\\u{ord(char):04x}" for char in escaped)
    return f'"""\n{escaped}"""'


def base(snapshot: Snapshot, namer: Namer, says: str) -> str:
    """Print the base as a file."""
    meta = {
        "hostname": "harbor",
        "kernel": snapshot.meta.kernel.partition("-")[0],
        "machine": snapshot.meta.machine,
        "collected_at": COLLECTED,
        "utc_offset": 0,
        "uid": 0,
        "user": "root",
    }
    lines = [
        f"# {says}",
        "# Written by tests/cases/make_base.py from a live engine: change that, not this.",
        "",
        "[meta]",
        *(f"{key} = {toml(value)}" for key, value in meta.items()),
    ]
    for record in Cutter(snapshot, namer).records():
        lines += ["", "[[record]]", *(f"{key} = {toml(value)}" for key, value in record.items())]
    return "\n".join(lines) + "\n"


def write(host: EngineHost, name: str, says: str, namer: Namer | None = None) -> Namer:
    """Write one base from the host as it is now; gives the stand-ins."""
    snapshot = take(host)
    namer = namer or Namer(snapshot)
    (HERE / "base" / f"{name}.toml").write_text(base(snapshot, namer, says), encoding="utf-8")
    return namer


def main(suites: list[str]) -> None:
    """Write the bases of these suites, all when none is named."""
    for suite in suites or list(BASES):
        release = BASES[suite]
        with EngineHost.up(suite=suite, daemon_json=DAEMON_JSON) as host:
            populate(host)
            docker = f"Docker {host.version}"
            all_run = "web on bridge (8080), api (8081) and db on shop; job has ended"
            namer = write(host, f"healthy-{release}", f"A healthy host of {docker}: {all_run}.")
            if suite == "sid":
                host.sh(f"kill -9 {host.dockerd_pid()}")
                says = f"The host of healthy-{release} ({docker}) after kill -9 of dockerd: its containers run on."
                write(host, f"killed-{release}", says, namer)
                host.start_dockerd()
            host.stop_dockerd()
            says = f"The host of healthy-{release} ({docker}) with dockerd stopped: no container runs."
            write(host, f"stopped-{release}", says, namer)


if __name__ == "__main__":
    main(sys.argv[1:])
