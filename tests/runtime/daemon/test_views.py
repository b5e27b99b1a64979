"""What the API and the data root tell has the fields that live engines' have; what is written is read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor.runtime.daemon import objects, system
from doctor.runtime.daemon.generation import generation
from tests.runtime.daemon.worlds import APP, PLAIN, WEB, keys, make

LIVE = json.loads((Path(__file__).parent / "keys.json").read_text(encoding="utf-8"))
"""Keys that 20.10.24, 26.1.5 and 28.5.2 answered with, by dialect and request."""

OF_THEIR_HOSTS = (
    "/MountPoints",  # of what a container mounts
    "/HostConfig/PortBindings",
    "/PortBindings",
    "/NetworkSettings/Ports",
    "/Config/ExposedPorts",
    "/Config/Labels",
    "/Mounts",
    "[]/Mounts",
    "[]/Labels",
    "[]/Ports",
    "/Config/Healthcheck",
    "/State/Health",
    "/NetworkSettings/Networks/NET/IPAMConfig",
    "[]/NetworkSettings/Networks/NET/IPAMConfig",
)


def _compared(found: set[str]) -> set[str]:
    inside = tuple(f"{of}{end}" for of in OF_THEIR_HOSTS for end in ("/", "["))
    return {one for one in found if not one.startswith(inside) and one != "/Config/Healthcheck"}


@pytest.mark.parametrize("dialect", ["20.10", "26", "28"])
def test_fields_are_the_engines(tmp_path: Path, dialect: str) -> None:
    """Field for field, as each generation has them."""
    world, views, state = make(tmp_path, dialect)
    made = generation(dialect)
    image = next(iter(world.images.values()))
    config = json.loads((state.folder(WEB) / "config.v2.json").read_bytes())
    answers = {
        "inspect": views.inspect(world.containers[WEB]),
        "list": [views.listed(one, 0.0) for one in world.containers.values()],
        "network": objects.network(world, world.networks[APP], made, whole=True),
        "images": [objects.image_listed(world, image, made)],
        "image": objects.image_inspect(image, made, str(tmp_path)),
        "history": objects.image_history(image),
        "version": system.version(made),
        "config.v2.json": config,
        "hostconfig.json": json.loads((state.folder(WEB) / "hostconfig.json").read_bytes()),
    }
    for name, answer in answers.items():
        live = _compared(set(LIVE[dialect][name]))
        ours = _compared(keys(answer))
        assert ours - live <= {one for one in ours if "/Ulimits[]" in one}, name
        assert live - ours == set(), name


@pytest.mark.parametrize("dialect", ["20.10", "26", "28"])
def test_info_has_the_engines_fields(tmp_path: Path, dialect: str) -> None:
    """Of /info, too; what it says of a runtime's features is left out."""
    world, _, _ = make(tmp_path, dialect)
    ours = {one for one in keys(system.info(world, generation(dialect), "id", 0)) if not one.startswith("/Runtimes/")}
    assert ours == set(LIVE[dialect]["info"])


@pytest.mark.parametrize("dialect", ["20.10", "26", "28", "29"])
def test_a_container_is_read_again(tmp_path: Path, dialect: str) -> None:
    """What one daemon has written, the next reads: container, network, image."""
    world, _, state = make(tmp_path, dialect)
    networks = state.networks()
    assert networks == world.networks
    found, wrong = state.containers(networks)
    assert not wrong
    for identity in (WEB, PLAIN):
        before, after = world.containers[identity], found[identity]
        assert after.spec == before.spec
        for name in (
            "state",
            "exit_code",
            "created",
            "started",
            "finished",
            "sandbox",
            "sandbox_id",
            "health",
            "restarts",
        ):
            assert getattr(after, name) == getattr(before, name), name
    assert found[WEB].endpoints[0].address == "10.7.0.2"


def test_a_broken_container_is_left_out(tmp_path: Path) -> None:
    """A file that is cut off takes no other container along."""
    _, _, state = make(tmp_path, "28")
    (state.folder(WEB) / "config.v2.json").write_text('{"ID": "1', encoding="utf-8")
    found, wrong = state.containers(state.networks())
    assert list(found) == [PLAIN]
    assert [name for name, _ in wrong] == [WEB]
