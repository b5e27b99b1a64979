"""Faults of layers that are seen without reading their content; tests/engine/test_layers.py has the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.store import ROOT, make_other, mount_of, own_disk
from tests.engine.faults.table import Fault
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

LAYERDB = "/var/lib/docker/image/overlay2/layerdb/sha256"
_HISTORY = """
import hashlib, json, pathlib
root = pathlib.Path("/var/lib/docker/image/overlay2")
names = json.loads((root / "repositories.json").read_text())
held = names["Repositories"]["busybox"]["busybox:lab"]
content = root / "imagedb/content/sha256"
config = json.loads((content / held[7:]).read_text())
config["history"] = [{"created": "2020-01-01T00:00:00Z"}] * (len(config["rootfs"]["diff_ids"]) + 1)
text = json.dumps(config).encode()
name = hashlib.sha256(text).hexdigest()
(content / name).write_bytes(text)
names["Repositories"]["shop/history"] = {"shop/history:1": "sha256:" + name}
(root / "repositories.json").write_text(json.dumps(names))
"""
DEEP = "shop/deep:1"
_LAYERS = f"""
import hashlib, io, json, subprocess, tarfile
def one(name, data):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        about = tarfile.TarInfo(name)
        about.size = len(data)
        tar.addfile(about, io.BytesIO(data))
    return held.getvalue()
with tarfile.open("/root/base.tar") as tar:
    (listed,) = json.load(tar.extractfile("manifest.json"))
    config = json.load(tar.extractfile(listed["Config"]))
    layers = [tar.extractfile(name).read() for name in listed["Layers"]]
layers += [one(f"made/{{number}}", b"%d" % number) for number in range(124 - len(layers))]
config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
config.pop("history", None)
files = {{"config.json": json.dumps(config).encode()}} | {{f"{{number}}.tar": layer for number, layer in enumerate(layers)}}
names = [f"{{number}}.tar" for number in range(len(layers))]
files["manifest.json"] = json.dumps([{{"Config": "config.json", "RepoTags": ["{DEEP}"], "Layers": names}}]).encode()
with tarfile.open("/root/deep.tar", "w") as tar:
    for name, data in files.items():
        about = tarfile.TarInfo(name)
        about.size = len(data)
        tar.addfile(about, io.BytesIO(data))
"""


def _half_removed(host: EngineHost) -> None:
    folder = f"{LAYERDB}/{'ab' * 32}-1234-removing"
    host.sh(f"mkdir {folder}; printf {'cd' * 32} >{folder}/cache-id")


def _history(host: EngineHost) -> None:
    """Load and pull refuse such an image: it comes with a copied store, or from an engine that did not look yet."""
    host.stop_dockerd()
    host.run("python3", "-c", _HISTORY)
    host.start_dockerd()
    for name in ("web", "cron", "api", "db"):
        host.docker("start", name)


def _nearly_full(host: EngineHost) -> None:
    """Load an image of 124 layers: one more goes."""
    host.docker("save", "-o", "/root/base.tar", IMAGE)
    host.run("python3", "-c", _LAYERS)
    host.docker("load", "-i", "/root/deep.tar")


def _commit(host: EngineHost, name: str) -> int:
    host.docker("run", "--name", "made", DEEP, "touch", "/one")
    done = host.run("docker", "commit", "made", name, check=False)
    host.docker("rm", "made")
    return done.returncode


def _commits(host: EngineHost) -> object:
    """Whether something can be committed on top of the image."""
    code = _commit(host, "shop/upon:1")
    host.run("docker", "rmi", "shop/upon:1", check=False)
    return code


def _flatten(host: EngineHost) -> None:
    host.docker("create", "--name", "made", DEEP, "true")
    host.docker("rmi", "-f", DEEP)
    host.sh(f"docker export made | docker import --change 'CMD [\"idle\"]' - {DEEP}")
    host.docker("rm", "made")


def _mounted(host: EngineHost, name: str, place: str) -> None:
    """Mount a container's layer by hand, as people do who want to look into it."""
    layer = mount_of(host, name)[1]
    options = f"lowerdir=$(cat {layer}/lower),upperdir={layer}/diff,workdir={layer}/work"
    host.sh(f"cd {ROOT}/overlay2; mkdir -p {place}; mount -t overlay overlay -o {options} {place}")


def _overlays(host: EngineHost, name: str) -> object:
    """How many overlays write into a container's layer."""
    return host.sh(f"grep -c upperdir=[^,]*{mount_of(host, name)[1]}/diff /proc/self/mountinfo || true")


def _tight_disk(host: EngineHost) -> None:
    """A disk of which a small image is a tenth."""
    own_disk(host, "600M")


def _built_twice(host: EngineHost) -> None:
    """The same name twice: the first image has lost it."""
    for number in range(2):
        host.sh(
            f"cd /root; head -c 70000000 /dev/urandom >large{number}; tar -c large{number} | docker import - shop/large:1"
        )


def _hold_deleted(host: EngineHost) -> None:
    """A container has deleted a file of three gigabytes, and has it open: blocks are taken for it and not written."""
    host.docker("run", "-d", "--name", "hog", IMAGE, "sh", "-c", "exec 3<>/large; rm /large; exec idle")
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", "hog")
    host.sh(
        f"until readlink /proc/{pid}/fd/3 | grep -q deleted; do sleep 0.1; done; fallocate -l 3100M /proc/{pid}/fd/3"
    )


FAULTS = (
    # What takes room, and how many layers it takes, does not differ between engines: each is made on one of them.
    Fault(
        "LAY005",
        "full",
        lambda h: _commit(h, DEEP),
        _commits,
        level="warning",
        engines=("trixie",),
        setup=_nearly_full,
        heal=_flatten,
    ),
    Fault("LAY026", "twice", lambda h: _mounted(h, "cron", "/mnt/look"), lambda h: _overlays(h, "cron")),
    Fault(
        "LAY026",
        "ended",
        lambda h: _mounted(h, "batch", f"{ROOT}/overlay2/{mount_of(h, 'batch')[1]}/merged"),
        lambda h: _overlays(h, "batch"),
        level="warning",
        setup=make_other,
    ),
    Fault(
        "IMG001",
        "built-twice",
        _built_twice,
        lambda h: h.sh("docker images -q -f dangling=true | wc -l"),
        level="info",
        engines=("bookworm",),
        setup=_tight_disk,
    ),
    Fault(
        "STO010",
        "held",
        _hold_deleted,
        lambda h: h.sh(f"df --output=avail -BG {ROOT} | tail -1"),
        ("STO005",),
        level="warning",
        engines=("sid",),
        setup=own_disk,
    ),
    Fault("LAY017", "left", _half_removed, lambda h: h.sh(f"ls {LAYERDB} | grep -c removing || true"), level="info"),
    Fault(
        "LAY022",
        "loaded",
        _history,
        lambda h: h.run("docker", "history", "shop/history:1", check=False).stderr,
        level="warning",
        heal=lambda h: h.docker("rmi", "shop/history:1"),
    ),
)
