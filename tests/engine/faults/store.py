"""Faults of the store: files and directories of layers, of the layer database, of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, answers, starts
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

ROOT = "/var/lib/docker"
OVERLAY = f"{ROOT}/overlay2"
LAYERDB = f"{ROOT}/image/overlay2/layerdb"
NAMES = f"{ROOT}/image/overlay2/repositories.json"
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


def mount_of(host: EngineHost, name: str) -> tuple[str, str]:
    """Give the directory of a container's mount, and the id of its layer."""
    folder = f"{LAYERDB}/mounts/" + host.docker("inspect", "-f", "{{.Id}}", name)
    return folder, host.read(f"{folder}/mount-id")


def _link_of_image(host: EngineHost) -> tuple[str, str]:
    """Give layer id and short link of the image's only layer."""
    layer = _layer(host)
    return layer, host.read(f"{OVERLAY}/{layer}/link").strip()


def make_other(host: EngineHost) -> None:
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


def size_after_a_restart(host: EngineHost) -> object:
    """What dockerd makes of the size of the other image when it reads the layer database: the sum over its parents."""
    _restart(host)
    return host.docker("image", "inspect", "-f", "{{.Size}}", OTHER)


def writes(host: EngineHost) -> object:
    """Whether a container can write a few mebibytes: dockerd itself gets along with the last kilobytes for a while."""
    fill = ("dd", "if=/dev/zero", "of=/large", "bs=1M", "count=32")
    return host.run("docker", "run", "--rm", IMAGE, *fill, check=False).returncode


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
    host.sh(f"cd {OVERLAY}/{mount_of(host, 'batch')[1]}; {what}")


def _record(host: EngineHost, what: str) -> None:
    """Run a command in the record of the other image's uppermost layer, and let dockerd read it."""
    host.sh(f"cd {LAYERDB}/sha256/{_chain(host)}; {what}")
    _restart(host)


def _exchange(host: EngineHost) -> None:
    """Let the records of the two layers name each other's directory, and dockerd read them."""
    upper, lowest = _chain(host), _chain(host, IMAGE)
    host.sh(f"cd {LAYERDB}/sha256; mv {upper}/cache-id new; mv {lowest}/cache-id {upper}; mv new {lowest}/cache-id")
    _restart(host)


def _mounted(host: EngineHost, what: str) -> None:
    """Run a command in the record of the container's mount, and let dockerd read it."""
    host.sh(f"cd {mount_of(host, 'batch')[0]}; {what}")
    _restart(host)


def _configuration(host: EngineHost, what: str) -> None:
    """Run a command on the configuration of the other image."""
    identity = host.docker("image", "inspect", "-f", "{{.Id}}", OTHER).removeprefix("sha256:")
    host.sh(f"cd {ROOT}/image/overlay2/imagedb/content/sha256; {what} {identity}")


def _names_gone_and_down(host: EngineHost) -> None:
    host.stop_dockerd()
    host.sh(f": >{NAMES}")
    host.start_dockerd(expect_failure=True)


def _other_link(host: EngineHost) -> None:
    host.sh(f"cd {OVERLAY}; cp {_layer(host)}/link {_layer(host, OTHER)}/link")


def _load_and_restart(host: EngineHost) -> None:
    _load(host)
    _restart(host)


def _left_over(host: EngineHost) -> None:
    path = f"{OVERLAY}/{'e' * 64}"
    host.sh(
        f"mkdir -p {path}/diff {path}/work; printf %s {'L' * 26} >{path}/link; touch -d '2 hours ago' {path}/link;"
        f" ln -s ../{'e' * 64}/diff {OVERLAY}/l/{'L' * 26}"
    )


def own_disk(host: EngineHost, size: str = "4G") -> None:
    """Give Docker's data a file system of its own, with few inodes; it is a sparse file."""
    running = host.running()
    host.stop_dockerd()
    host.sh(
        f"truncate -s {size} /root/disk; mkfs.ext4 -q -m 0 -N 3000 /root/disk; mount -o loop /root/disk /mnt;"
        f" cp -a {ROOT}/. /mnt; umount /mnt; mount -o loop /root/disk {ROOT}"
    )
    host.start_dockerd()
    for name in ("web", "cron", "api", "db"):
        if name in running:
            host.docker("start", name)


def _no_bytes(host: EngineHost) -> None:
    left = int(host.sh(f"df --output=avail -B1 {ROOT} | tail -1"))
    host.sh(
        f"mkdir {ROOT}/junk; cd {ROOT}/junk; fallocate -l {left - (8 << 20)} large; cat /dev/zero >rest 2>/dev/null || true"
    )


def _no_inodes(host: EngineHost) -> None:
    host.sh(f"mkdir {ROOT}/junk; cd {ROOT}/junk; seq 9999 | xargs touch 2>/dev/null || true")


def _make_room(host: EngineHost) -> None:
    host.sh(f"rm -r {ROOT}/junk")


def _other_driver(host: EngineHost) -> None:
    host.stop_dockerd()
    host.write("/etc/docker/daemon.json", '{\n  "storage-driver": "vfs"\n}\n')
    host.start_dockerd()


def _two_drivers(host: EngineHost) -> None:
    host.stop_dockerd()
    host.sh(f"mkdir -p {ROOT}/btrfs/subvolumes")
    host.start_dockerd(expect_failure=True)


FAULTS = (
    Fault("LAY001", "empty", lambda h: _file(h, "link", "", IMAGE), starts),
    Fault("LAY001", "gone", lambda h: _file(h, "link", None), other_starts, setup=make_other),
    Fault(
        "LAY001",
        "with-its-short-link",
        lambda h: h.sh(f"cd {OVERLAY}; rm l/$(cat {_layer(h, OTHER)}/link); : >{_layer(h, OTHER)}/link"),
        lambda h: (other_starts(h), batch_starts(h)),
        setup=make_other,
    ),
    Fault("LAY002", "gone", _short_link_gone, starts),
    Fault("LAY002", "elsewhere", _short_link_elsewhere, starts),
    Fault("LAY002", "all", lambda h: h.sh(f"rm -r {OVERLAY}/l"), starts),
    Fault("LAY003", "gone", lambda h: _file(h, "lower", None), other_starts, setup=make_other),
    Fault("LAY003", "empty", lambda h: _batch(h, ": >lower"), batch_starts, setup=make_other),
    Fault("LAY003", "colon", lambda h: _batch(h, "printf : >>lower"), batch_starts, setup=make_other),
    Fault(
        "LAY004",
        "one-is-missing",
        lambda h: _batch(h, "cut -d: -f1,3 lower >new; printf %s $(cat new) >lower; rm new"),
        batch_starts,
        setup=make_other,
    ),
    Fault("LAY007", "diff", lambda h: _record(h, "rm diff"), other_starts, setup=make_other),
    Fault("LAY007", "cache-id", lambda h: _record(h, ": >cache-id"), other_starts, setup=make_other),
    Fault("LAY007", "size", lambda h: _record(h, ": >size"), other_starts, setup=make_other),
    Fault("LAY007", "exchanged", _exchange, other_starts, setup=make_other),
    Fault(
        "LAY008",
        "removed",
        lambda h: h.sh(f"rm -r {OVERLAY}/{_layer(h, OTHER)}"),
        lambda h: (other_starts(h), batch_starts(h)),
        setup=make_other,
        heal=_made_anew,
    ),
    Fault("LAY009", "parent-gone", lambda h: _record(h, "rm parent"), size_after_a_restart, setup=make_other),
    Fault(
        "LAY010",
        "unknown",
        lambda h: _record(h, f"printf sha256:{'0' * 64} >parent"),
        other_starts,
        setup=make_other,
    ),
    Fault("LAY019", "name", _other_link, other_starts, setup=make_other),
    Fault(
        "LAY019", "cache-id", lambda h: _record(h, f"printf %s {_layer(h)} >cache-id"), other_starts, setup=make_other
    ),
    Fault("LAY020", "empty", lambda h: _configuration(h, "truncate -s 0"), other_starts, setup=make_other, heal=_load),
    Fault("LAY020", "cut", lambda h: _configuration(h, "truncate -s 99"), other_starts, setup=make_other, heal=_load),
    Fault(
        "LAY021",
        "removed",
        lambda h: _record(h, "rm -r ../$(basename $PWD)"),
        lambda h: (other_starts(h), batch_starts(h)),
        setup=make_other,
        heal=_load_and_restart,
    ),
    Fault("LAY023", "image-gone", lambda h: _configuration(h, "rm"), other_starts, setup=make_other, heal=_load),
    Fault("LAY023", "empty", lambda h: h.sh(f": >{NAMES}"), lambda h: h.read(NAMES), level="warning"),
    Fault("LAY023", "down", _names_gone_and_down, lambda h: (h.answers(), starts(h)), ("DMN016", "DMN032")),
    Fault("LAY024", "mount-id", lambda h: _mounted(h, ": >mount-id"), batch_starts, setup=make_other, also=("LAY018",)),
    Fault(
        "LAY024",
        "parent",
        lambda h: _mounted(h, "printf sha256: >parent"),
        batch_starts,
        setup=make_other,
        also=("LAY018",),
    ),
    Fault(
        "LAY024",
        "directory-gone",
        lambda h: h.sh(f"rm -r {OVERLAY}/{mount_of(h, 'batch')[1]}"),
        batch_starts,
        setup=make_other,
        also=("LAY018",),
    ),
    Fault(
        "LAY024",
        "init-gone",
        lambda h: h.sh(f"rm -r {OVERLAY}/{mount_of(h, 'batch')[1]}-init"),
        batch_starts,
        setup=make_other,
        also=("LAY018",),
    ),
    Fault(
        "LAY032",
        "twice",
        lambda h: _batch(h, "printf :%s $(cut -d: -f2 lower) >>lower"),
        batch_starts,
        setup=make_other,
    ),
    Fault("LAY006", "of-a-container", lambda h: _batch(h, "rm -r diff"), batch_starts, setup=make_other),
    Fault("LAY006", "work", lambda h: _batch(h, "rm -r work"), batch_starts, setup=make_other),
    Fault(
        "LAY006",
        "of-an-image",
        lambda h: h.sh(f"rm -r {OVERLAY}/{_layer(h, OTHER)}/diff"),
        lambda h: (other_starts(h), batch_starts(h)),
        setup=make_other,
        heal=_made_anew,
    ),
    Fault("LAY018", "left-over", _left_over, lambda h: h.sh(f"ls {OVERLAY} | wc -l"), level="info"),
    Fault("STO001", "vfs", _other_driver, lambda h: h.docker("info", "-f", "{{.Driver}}"), level="info"),
    Fault("STO005", "full", _no_bytes, writes, setup=own_disk, heal=_make_room),
    Fault("STO006", "none", _no_inodes, starts, setup=own_disk, heal=_make_room),
    Fault("STO011", "down", _two_drivers, answers, ("DMN016", "DMN032")),
)
