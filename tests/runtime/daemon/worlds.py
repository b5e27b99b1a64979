"""A small world of the daemon, without a daemon: what is told of it can be compared with what live engines tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.runtime.daemon import spec as spelling
from doctor.runtime.daemon.config import settings
from doctor.runtime.daemon.generation import generation
from doctor.runtime.daemon.state import State
from doctor.runtime.daemon.store import Store
from doctor.runtime.daemon.tarsplit import Entry, pack
from doctor.runtime.daemon.views import Views
from doctor.runtime.model import (
    Attachment,
    Bind,
    Bound,
    Container,
    ContainerSpec,
    Endpoint,
    Limits,
    Network,
    NetworkSpec,
    Pool,
    Publish,
    World,
)

if TYPE_CHECKING:
    from pathlib import Path

BRIDGE, APP, WEB, PLAIN = "b" * 64, "a" * 64, "1" * 64, "2" * 64
NOW = "2026-11-30T08:56:10.119292055Z"


def make(place: Path, dialect: str) -> tuple[World, Views, State]:
    """Make a world with a network, a container that runs in it, and one that has ended; with its data root."""
    told = settings(("--data-root", str(place)), None, dialect)
    store = Store(str(place))
    image = store.add_image(
        {
            "os": "linux",
            "architecture": "amd64",
            "created": NOW,
            "config": {"Cmd": ["sh"]},
            "history": [{"created": NOW}],
        },
        [store.add_layer(pack((Entry("bin", 0o755), Entry("bin/sh", 0o755, b"x"))))],
        ("busybox:lab",),
    )
    pool = Pool("10.7.0.0/24", gateway="10.7.0.1")
    app = Network(APP, NetworkSpec("app", pools=(Pool("10.7.0.0/24"),)), "br-app", (pool,), NOW)
    bridge = Network(BRIDGE, NetworkSpec("bridge"), "docker0", (Pool("172.17.0.0/16", gateway="172.17.0.1"),), NOW)
    world = World(told, {BRIDGE: bridge, APP: app}, {}, {image.id: image})
    views = Views(world, store, generation(dialect).release, str(place))
    state = State(str(place), views)
    for one in (_web(image.id), _plain(image.id)):
        settled = spelling.settled(one.spec, image)
        mount = store.add_container(one.id, image)
        world.containers[one.id] = Container(
            **{name: getattr(one, name) for name in one.__struct_fields__ if name not in {"spec", "mount_id"}},
            spec=settled,
            mount_id=mount,
        )
        state.create(world.containers[one.id])
    state.save_networks(world.networks)
    return world, views, state


def _web(image: str) -> Container:
    spec = ContainerSpec(
        "web",
        "busybox:lab",
        ("serve",),
        env=("A=b",),
        networks=(Attachment("app", aliases=("w",)),),
        publish=(Publish(80, host_port=8080),),
        expose=("80/tcp",),
        restart="on-failure:3",
        labels={"x": "y"},
        mounts=(Bind("volume", "vol1", "/data"), Bind("bind", "/tmp", "/host", readonly=True, options="ro")),
        limits=Limits(memory=100 << 20, pids=50, cpus=0.5),
        dns=("198.51.100.1",),
        ulimits={"nofile": (1024, 2048)},
        log_driver="json-file",
    )
    names = ("web", "w", WEB[:12])
    endpoint = Endpoint(APP, "e" * 64, "10.7.0.2", 24, "10.7.0.1", mac="02:42:0a:07:00:02", names=names)
    return Container(
        WEB, spec, image, "running", pid=316, created=NOW, started=NOW, sandbox="/run/docker/netns/99c437efc00a",
        sandbox_id="9" * 64, endpoints=(endpoint,), ports=(Bound(80, "tcp", "198.51.100.2", 8080), Bound(80, "tcp", "::", 80)),
    )  # fmt: skip


def _plain(image: str) -> Container:
    spec = ContainerSpec(
        "plain",
        "busybox:lab",
        (),
        entrypoint=("sleep",),
        health=("CMD-SHELL", "true"),
        tty=True,
        log_driver="json-file",
    )
    return Container(
        PLAIN, spec, image, "exited", exit_code=3, created=NOW, started=NOW, finished=NOW, health="unhealthy"
    )


def keys(value: object, path: str = "") -> set[str]:
    """Give the keys of JSON, by their paths; ids and names of networks are one key."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, held in value.items():
            name = "NET" if path.endswith("/Networks") else "ID" if len(key) == 64 else key
            found |= {f"{path}/{name}"} | keys(held, f"{path}/{name}")
    elif isinstance(value, list):
        for held in value:
            found |= keys(held, f"{path}[]")
    return found
