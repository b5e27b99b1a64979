"""Faults of the store: files and directories of layers, of the layer database, of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, starts
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

ROOT = "/var/lib/docker"
OVERLAY = f"{ROOT}/overlay2"
LAYERDB = f"{ROOT}/image/overlay2/layerdb"
OTHER = "shop/other:1"


# Where things are


def _chains(host: EngineHost) -> dict[str, str]:
    """Give the cache id of each chain of the layer database."""
    found = host.sh(f"cd {LAYERDB}/sha256; grep -H . */cache-id").split()
    return {line.partition("/")[0]: line.rpartition(":")[2] for line in found}


def _chain(host: EngineHost, image: str = OTHER) -> str:
    """Give the chain of an image's uppermost layer: of the two here, only that of `OTHER` has a parent."""
    listed = host.sh(f"cd {LAYERDB}/sha256; ls */parent 2>/dev/null || true").split()
    upper = listed[0].partition("/")[0] if listed else ""
    return upper if image == OTHER else next(name for name in _chains(host) if name != upper)


def _layer(host: EngineHost, image: str = IMAGE) -> str:
    return _chains(host)[_chain(host, image)]


def _mount(host: EngineHost, name: str) -> tuple[str, str]:
    """Give the directory of a container's mount, and the id of its layer."""
    folder = f"{LAYERDB}/mounts/" + host.docker("inspect", "-f", "{{.Id}}", name)
    return folder, host.read(f"{folder}/mount-id")


def _link_of_image(host: EngineHost) -> tuple[str, str]:
    """Give layer id and short link of the image's only layer."""
    layer = _layer(host)
    return layer, host.read(f"{OVERLAY}/{layer}/link").strip()


def _other(host: EngineHost) -> None:
    """Make an image of two layers, a container of it that has ended, and keep an archive of the image."""
    host.docker("run", "--name", "made", IMAGE, "sh", "-c", "echo 1 >/version")
    host.docker("commit", "made", OTHER)
    host.docker("rm", "made")
    host.docker("save", "-o", "/root/other.tar", OTHER)
    host.docker("run", "--name", "batch", OTHER, "cat", "/version")


def _restart(host: EngineHost) -> None:
    host.stop_dockerd()
    host.start_dockerd()


def _load(host: EngineHost) -> None:
    host.docker("load", "-i", "/root/other.tar")


def _made_anew(host: EngineHost) -> None:
    """Remove all that stands on the lost layer, and load its image."""
    host.run("docker", "rm", "-f", "batch")
    host.docker("rmi", OTHER)
    _load(host)
    host.docker("run", "--name", "batch", OTHER, "cat", "/version")


# Probes


def other_starts(host: EngineHost) -> object:
    """What a new container of the other image prints."""
    done = host.run("docker", "run", "--rm", "--pull", "never", OTHER, "cat", "/version", check=False)
    return done.returncode, done.stdout


def batch_starts(host: EngineHost) -> object:
    """What the container that had ended prints when it is started again."""
    done = host.run("docker", "start", "-a", "batch", check=False)
    return done.returncode, done.stdout


# What breaks


def _short_link_gone(host: EngineHost) -> None:
    host.sh(f"rm {OVERLAY}/l/{_link_of_image(host)[1]}")


def _short_link_elsewhere(host: EngineHost) -> None:
    layer, link = _link_of_image(host)
    host.sh(f"ln -sfn ../{layer}/dif {OVERLAY}/l/{link}")


def _file(host: EngineHost, name: str, text: str | None, image: str = OTHER) -> None:
    """Give a file of an image's uppermost layer another text, or take it away."""
    path = f"{OVERLAY}/{_layer(host, image)}/{name}"
    if text is None:
        host.sh(f"rm {path}")
    else:
        host.sh(f"printf %s '{text}' >{path}")


def _batch(host: EngineHost, what: str) -> None:
    """Run a command in the directory of the container's layer."""
    host.sh(f"cd {OVERLAY}/{_mount(host, 'batch')[1]}; {what}")


FAULTS = (
    Fault("LAY001", "empty", lambda h: _file(h, "link", "", IMAGE), starts),
    Fault("LAY001", "gone", lambda h: _file(h, "link", None), other_starts, setup=_other),
    Fault(
        "LAY001",
        "with-its-short-link",
        lambda h: h.sh(f"cd {OVERLAY}; rm l/$(cat {_layer(h, OTHER)}/link); : >{_layer(h, OTHER)}/link"),
        lambda h: (other_starts(h), batch_starts(h)),
        setup=_other,
    ),
    Fault("LAY002", "gone", _short_link_gone, starts),
    Fault("LAY002", "elsewhere", _short_link_elsewhere, starts),
    Fault("LAY002", "all", lambda h: h.sh(f"rm -r {OVERLAY}/l"), starts),
    Fault("LAY003", "gone", lambda h: _file(h, "lower", None), other_starts, setup=_other),
    Fault("LAY003", "empty", lambda h: _batch(h, ": >lower"), batch_starts, setup=_other),
    Fault("LAY003", "colon", lambda h: _batch(h, "printf : >>lower"), batch_starts, setup=_other),
    Fault(
        "LAY004",
        "one-is-missing",
        lambda h: _batch(h, "cut -d: -f1,3 lower >new; printf %s $(cat new) >lower; rm new"),
        batch_starts,
        setup=_other,
    ),
    Fault(
        "LAY032",
        "twice",
        lambda h: _batch(h, "printf :%s $(cut -d: -f2 lower) >>lower"),
        batch_starts,
        setup=_other,
    ),
    Fault("LAY006", "of-a-container", lambda h: _batch(h, "rm -r diff"), batch_starts, setup=_other),
    Fault("LAY006", "work", lambda h: _batch(h, "rm -r work"), batch_starts, setup=_other),
    Fault(
        "LAY006",
        "of-an-image",
        lambda h: h.sh(f"rm -r {OVERLAY}/{_layer(h, OTHER)}/diff"),
        lambda h: (other_starts(h), batch_starts(h)),
        setup=_other,
        heal=_made_anew,
    ),
)
