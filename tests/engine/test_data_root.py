"""A data root written by the runtime's daemon is one that a live engine works with: it lists, runs, saves and removes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.runtime.daemon.generation import generation

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

WRITE = """
import sys
from doctor.runtime.daemon import spec as spelling
from doctor.runtime.daemon.config import settings
from doctor.runtime.daemon.generation import generation
from doctor.runtime.daemon.images import builtin
from doctor.runtime.daemon.state import State
from doctor.runtime.daemon.store import Store
from doctor.runtime.daemon.tarsplit import Entry, pack
from doctor.runtime.daemon.views import Views
from doctor.runtime.model import Container, ContainerSpec, World
place, dialect = sys.argv[1:]
store = Store(place)
image = builtin(store)
top = store.add_layer(pack((Entry("etc", 0o755), Entry("etc/motd", 0o644, b"made by hand\\n"))), image.layers[-1])
made = store.add_image(
    {**image.config, "config": {"Cmd": ["cat", "/etc/motd"]}}, (*image.layers, top), ("made:two",)
)
world = World(settings(("--data-root", place), None, dialect), {}, {}, {image.id: image, made.id: made})
state = State(place, Views(world, store, generation(dialect).release, place))
at = "2026-11-30T08:56:10.119292055Z"
asked = ContainerSpec("kept", "made:two", network_mode="none", labels={"x": "y"}, log_driver="json-file")
spec = spelling.settled(asked, made)
mount = store.add_container("c" * 64, made)
state.create(
    Container("c" * 64, spec, made.id, "exited", exit_code=3, created=at, started=at, finished=at, mount_id=mount)
)
state.save_networks({})
"""
ROOT = "/var/lib/docker/made"  # where the host has a file system that layers may stand on
SOCKET = "/run/made.sock"
DOCKERD = (
    f"dockerd --data-root {ROOT} --exec-root /run/made -p /run/made.pid -H unix://{SOCKET} --bridge=none --iptables=false"
    " > /tmp/made.log 2>&1 & for i in $(seq 100); do test -S /run/made.sock &&"
    f" curl -sm1 --unix-socket {SOCKET} http://d/_ping && exit; sleep 0.1; done; cat /tmp/made.log; exit 1"
)
DIALECTS = {(20, 10): "20.10", (26, 1): "26", (28, 5): "28"}


def test_a_live_engine_works_with_it(engine: EngineHost) -> None:
    """A second dockerd on the same host, on a data root that no engine has made."""
    version = tuple(int(part) for part in engine.version.split(".")[:2])
    dialect = DIALECTS[version]
    assert generation(dialect).version.startswith(engine.version.partition("+")[0])
    engine.run("/opt/doctor/bin/python", "-c", WRITE, ROOT, dialect)

    def docker(*words: str) -> str:
        return engine.docker("-H", f"unix://{SOCKET}", *words)

    try:
        engine.sh(DOCKERD)
        assert sorted(docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()) == [
            "busybox:lab",
            "busybox:latest",
            "made:two",
        ]
        assert docker("ps", "-a", "--format", "{{.Names}} {{.Status}} {{.Labels}}").startswith("kept Exited (3)")
        assert docker("start", "-a", "kept") == "made by hand"
        assert docker("run", "--rm", "--network", "none", "busybox", "echo", "hi") == "hi"
        engine.sh(f"docker -H unix://{SOCKET} save made:two > /tmp/made.tar")
        _saved(engine)
        docker("rm", "kept")
        docker("rmi", "made:two")
        assert docker("images", "-q", "made").strip() == ""
    finally:
        engine.sh(
            "kill $(cat /run/made.pid); for i in $(seq 100); do test -e /run/made.pid || exit; sleep 0.1; done",
            check=False,
        )
        engine.sh(
            f"umount {ROOT}/overlay2 2>/dev/null; rm -rf {ROOT} /run/made /tmp/made.tar /tmp/made.log", check=False
        )


def _saved(engine: EngineHost) -> None:
    """Each layer that was saved has the digest that the image's config says: tar-split gave its tar back, bit for bit."""
    script = (
        "import hashlib, json, tarfile\n"
        "tar = tarfile.open('/tmp/made.tar')\n"
        "one = json.load(tar.extractfile('manifest.json'))[0]\n"
        "told = json.load(tar.extractfile(one['Config']))['rootfs']['diff_ids']\n"
        "found = ['sha256:' + hashlib.file_digest(tar.extractfile(name), 'sha256').hexdigest() for name in one['Layers']]\n"
        "assert len(told) == 2 and told == found, (told, found)\n"
    )
    engine.run("/opt/doctor/bin/python", "-c", script)
