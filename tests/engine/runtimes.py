"""The runtime's network controller told what a live engine was told, and what both look like then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.config import settings
from doctor.runtime.model import Attachment
from doctor.runtime.names import hostname, hosts, resolv_conf
from doctor.runtime.network import NetworkController
from tests.runtime import portrait
from tests.runtime.nets import Host, apart, sh

if TYPE_CHECKING:
    from tests.engine.test_rules import Setting
    from tests.enginehost import EngineHost

DIALECTS = {"bookworm": "20.10", "trixie": "26", "sid": "28"}


def live(engine: EngineHost) -> dict[str, Any]:
    """The portrait of a live engine's host and of each container that has a network namespace of its own."""
    classic = engine.suite != "sid"
    found: dict[str, Any] = {"host": portrait.host(engine.sh, classic)}
    for name in engine.docker("ps", "--format", "{{.Names}}").split():
        about = json.loads(engine.docker("inspect", name))[0]
        mode = about["HostConfig"]["NetworkMode"]
        inner: dict[str, Any] = {}
        if mode != "host" and not about["State"]["Paused"]:
            enter = f"nsenter -t {about['State']['Pid']} -n sh -c"
            inner = portrait.container(lambda script, enter=enter: engine.sh(f"{enter} '{script}'"), classic)
        files = {
            "hosts": engine.read(about["HostsPath"]),
            "resolv.conf": engine.read(about["ResolvConfPath"]),
            "hostname": engine.read(about["HostnamePath"]),
        }
        if mode == "host":
            files = {"resolv.conf": files["resolv.conf"]}
        if about["State"]["Paused"]:
            continue
        found[name] = {**inner, **files, "ports": _ports(about["NetworkSettings"]["Ports"])}
    return found


def _ports(told: dict[str, Any] | None) -> list[tuple[str, ...]]:
    found = []
    for port, bindings in (told or {}).items():
        found += [(port, one["HostIp"], portrait._CHOSEN.sub("PORT", one["HostPort"])) for one in bindings or ()]
    return sorted(found)


def identities(engine: EngineHost) -> dict[str, str]:
    """Names of networks and containers → their ids, so that ours have the same."""
    found = {one["Name"]: one["Id"] for one in engine.api("GET", "/networks")}
    found |= {one["Names"][0].lstrip("/"): one["Id"] for one in engine.api("GET", "/containers/json?all=1")}
    return found


def forwards(engine: EngineHost) -> bool:
    """Whether a host forwards IPv6 already: what was done on it before stays."""
    return engine.sh("cat /proc/sys/net/ipv6/conf/all/forwarding").strip() == "1"


def ours(setting: Setting, engine: EngineHost, *, forwarding: bool) -> dict[str, Any]:
    """The portrait of a host of ours that was told the same; `forwarding`: what `forwards` said before."""
    names, resolv = identities(engine), engine.read("/etc/resolv.conf")
    return apart(lambda: _ours(setting, engine.suite, engine.version, names, resolv, forwarding=forwarding))


def _ours(
    setting: Setting, suite: str, version: str, names: dict[str, str], resolv: str, *, forwarding: bool
) -> dict[str, Any]:
    dialect = DIALECTS[suite]
    if forwarding:
        sh("sh", "-c", "for one in all default; do echo 1 >/proc/sys/net/ipv6/conf/$one/forwarding; done")
        if dialect == "28":
            sh("ip6tables", "-P", "FORWARD", "DROP")
    values = settings(("dockerd", *setting.args)[1:], None, dialect).values
    host = Host(dialect, values, version)
    try:
        host.controller.start(names.get("bridge", ""))
        for network in setting.networks:
            host.network(network, names.get(network.split(" ")[-1], ""))
        with host.controller.batch():
            for index, run in enumerate(setting.runs):
                host.run(f"c{index}", run, names.get(f"c{index}", ""))
        _then(host, setting)
        return _portrait(host, resolv)
    finally:
        host.close()


def _then(host: Host, setting: Setting) -> None:
    """Do what is run on the live engine afterwards."""
    words = setting.then.split(" ")
    if setting.then.startswith("docker network connect"):
        one = host.named(words[4])
        host.controller.connect(one.id, Attachment(words[3]), host.spaces[one.id])
    elif setting.then.startswith("docker network rm"):
        host.controller.remove_network(
            next(one.id for one in host.world.networks.values() if one.spec.name == words[3])
        )
    elif setting.then.startswith("docker stop"):
        host.stop(words[2])
    elif setting.then.startswith("docker restart"):
        host.stop(words[2])
        host.again(words[2])
    elif setting.then == "restart":
        _restart(host, live="--live-restore" in setting.args)
    elif setting.then == "docker pause c0":
        host.paused = "c0"  # nobody can look into its files
    else:
        assert not setting.then, setting.then


def _restart(host: Host, *, live: bool) -> None:
    """Restart the daemon; without live-restore its containers end with it, and come back."""
    running = [one.spec.name for one in host.world.containers.values() if one.endpoints]
    if not live:
        for name in running:
            host.stop(name)
    host.controller.stop()
    host.controller = NetworkController(host.world, proxy="/sbin/docker-proxy")
    host.controller.start()
    if not live:
        for name in running:
            host.again(name)


def _portrait(host: Host, resolv: str) -> dict[str, Any]:
    classic = host.world.settings.version < "28"

    def run(script: str) -> str:
        return sh("sh", "-c", script)

    found: dict[str, Any] = {"host": portrait.host(_of_this_host(host), classic)}
    for one in host.world.containers.values():
        mode = one.spec.network_mode
        if one.id not in host.spaces or host.paused == one.spec.name:
            continue
        inner = host.inside(one.spec.name, lambda: portrait.container(run, classic)) if mode != "host" else {}
        files = {
            "hosts": hosts(host.world, one),
            "resolv.conf": resolv_conf(host.world, one, resolv),
            "hostname": hostname(one) + "\n",
        }
        if mode == "host":
            files = {"resolv.conf": files["resolv.conf"]}
        ports = [(f"{port.port}/{port.protocol}", port.host_ip, str(port.host_port or "")) for port in one.ports]
        found[one.spec.name] = {
            **inner,
            **files,
            "ports": sorted((port, address, portrait._CHOSEN.sub("PORT", number)) for port, address, number in ports),
        }
    return found


def _of_this_host(host: Host) -> portrait.Run:
    """Run scripts here, with the proxies of this host alone: others may run on the machine."""
    pids = [str(port.proxy) for one in host.world.containers.values() for port in one.ports if port.proxy]
    files = " ".join(f"/proc/{pid}/cmdline" for pid in pids) or "/dev/null"
    return lambda script: sh("sh", "-c", script.replace("/proc/[0-9]*/cmdline", files))
