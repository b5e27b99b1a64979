"""What runs on the healthy host of a scenario, as values of the runtime, and as the words of docker's command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from doctor.runtime.model import Attachment, Bind, ContainerSpec, Limits, NetworkSpec, Pool, Publish

if TYPE_CHECKING:
    from doctor.labs.scenario import ContainerTable, NetworkTable, Scenario

IMAGE = "busybox:lab"
ICC = "com.docker.network.bridge.enable_icc"
MTU = "com.docker.network.driver.mtu"
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def networks(one: Scenario) -> tuple[NetworkSpec, ...]:
    """Give the networks to be made, in the order of the file."""
    return tuple(_network(name, table) for name, table in one.network.items())


def _network(name: str, table: NetworkTable) -> NetworkSpec:
    options = dict(table.options)
    if not table.icc:
        options[ICC] = "false"
    if table.mtu:
        options[MTU] = str(table.mtu)
    pools = (Pool(table.subnet, table.range, table.gateway),) if table.subnet else ()
    return NetworkSpec(name, pools=pools, internal=table.internal, ipv6=table.ipv6, options=options)


def containers(one: Scenario) -> tuple[ContainerSpec, ...]:
    """Give the containers to be made, in the order of the file."""
    return tuple(_container(name, table) for name, table in one.container.items())


def _container(name: str, table: ContainerTable) -> ContainerSpec:
    named = [network for network in (table.network, *table.networks) if network]
    shared = next((one for one in named if one in {"host", "none"} or one.startswith("container:")), "")
    attached = [] if shared else [one for one in named if one not in {"docker0", "bridge"} or len(named) > 1]
    return ContainerSpec(
        name=name,
        image=table.image or IMAGE,
        command=table.command or command(table.listen),
        env=table.env,
        hostname=table.hostname,
        network_mode=shared,
        networks=tuple(
            Attachment("bridge" if network == "docker0" else network, ip=table.ip if not number else "")
            for number, network in enumerate(attached)
        ),
        publish=tuple(publish(one) for one in table.publish),
        links=table.links,
        dns=table.dns,
        dns_search=table.dns_search,
        extra_hosts=table.add_host,
        mounts=tuple(_bind(one) for one in table.volumes),
        limits=Limits(memory=_bytes(table.memory)) if table.memory else Limits(),
        init=table.init,
        restart=table.restart,
    )


def command(listen: tuple[str, ...]) -> tuple[str, ...]:
    """Give what serves these (one of them, as `serve` takes it), or idles where there are none."""
    if not listen:
        return ("idle",)
    place = listen[0].partition("/")[0]
    return ("httpd", "-f", "-p", place, "-h", "/www") if ":" in place else ("serve", place)


_PUBLISH = re.compile(r"(?:(\[[0-9a-f:]+\]|\d+[.][\d.]+):)?(?:(\d*):)?(\d+)(?:/(tcp|udp|sctp))?")


def publish(text: str) -> Publish:
    """Read one `-p`.

    >>> publish("127.0.0.1:8080:80")
    Publish(port=80, protocol='tcp', host_port=8080, host_ip='127.0.0.1')
    """
    found = _PUBLISH.fullmatch(text)
    if found is None:
        raise ValueError(f"{text}: is not what -p takes")
    return Publish(int(found[3]), found[4] or "tcp", int(found[2] or 0), (found[1] or "").strip("[]"))


def _bind(text: str) -> Bind:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    return Bind("bind" if source.startswith("/") else "volume", source, target, readonly=mode == "ro")


def _bytes(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else int(text)


def network_words(spec: NetworkSpec) -> list[str]:
    """Give the words of `docker network create` for a network."""
    words = ["network", "create"]
    for pool in spec.pools:
        words += ["--subnet", pool.subnet]
        words += ["--gateway", pool.gateway] if pool.gateway else []
        words += ["--ip-range", pool.range] if pool.range else []
    words += ["--internal"] if spec.internal else []
    words += ["--ipv6"] if spec.ipv6 else []
    for key, value in spec.options.items():
        words += ["-o", f"{key}={value}"]
    return [*words, spec.name]


def run_words(spec: ContainerSpec) -> list[str]:
    """Give the words behind `docker run` or `docker create` for a container; further networks are connected after that."""
    words = ["--name", spec.name]
    for flag, values in (
        ("--env", spec.env),
        ("--link", spec.links),
        ("--dns", spec.dns),
        ("--dns-search", spec.dns_search),
        ("--add-host", spec.extra_hosts),
        ("--publish", tuple(_published(one) for one in spec.publish)),
        ("--volume", tuple(f"{one.source}:{one.target}{':ro' if one.readonly else ''}" for one in spec.mounts)),
    ):
        for value in values:
            words += [flag, value]
    if spec.network_mode or spec.networks:
        words += ["--network", spec.network_mode or spec.networks[0].network]
    if spec.networks and spec.networks[0].ip:
        words += ["--ip", spec.networks[0].ip]
    words += ["--hostname", spec.hostname] if spec.hostname else []
    words += ["--restart", spec.restart] if spec.restart != "no" else []
    words += ["--init"] if spec.init else []
    words += ["--memory", str(spec.limits.memory)] if spec.limits.memory else []
    return [*words, spec.image, *spec.command]


def _published(one: Publish) -> str:
    address = f"[{one.host_ip}]" if ":" in one.host_ip else one.host_ip
    chosen = [str(one.host_port or "")] if one.host_port or address else []
    return ":".join([*([address] if address else []), *chosen, f"{one.port}/{one.protocol}"])
