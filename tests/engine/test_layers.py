"""Layers of live engines, damaged in every way: the code, the file and the owners are named, and the cure as printed heals.

One host an engine, with an image of a base that has everything (a capability, an attribute, links, odd names), one on top
that deletes some of it, and containers of both. Each damage is made on the disk, told by `doctor layers verify --deep`,
and cured by the steps that are printed; then the layers verify clean, and a container shows the right bytes.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.enginehost import OUTSIDE_IP, EngineHost, build_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE, TOP = "shop/base:12", "shop/jobs:7"
_MAKE = r"""
set -e
cd /root; mkdir -p r/usr/bin r/etc r/usr/lib/deep r/bin
head -c 300000 /dev/urandom >r/usr/bin/tool; chmod 755 r/usr/bin/tool
ln r/usr/bin/tool r/usr/bin/twin; ln -s tool r/usr/bin/link
cp /bin/busybox r/bin/busybox
for one in sh rm mkdir cat ls stat sleep readlink cksum; do ln -s busybox r/bin/$one; done
cp /bin/true r/usr/bin/ping
echo a >r/etc/a; echo b >r/etc/b; echo c >r/etc/c; for one in 1 2 3; do echo $one >r/usr/lib/deep/$one; done
chown 5:6 r/etc/b; : >r/etc/empty; mkfifo r/etc/fifo; touch "r/etc/odd
name" "r/etc/caf$(printf '\351')"
python3 -c "
import os
os.setxattr('r/usr/bin/ping', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))
os.setxattr('r/etc/c', 'user.tag', b'value')"
mknod r/etc/device c 5 7
tar --sort=name --xattrs --xattrs-include='*' -C r -cf base.tar .
docker import base.tar shop/base:12
docker run --name make shop/base:12 /bin/sh -c '
    rm /etc/a; rm -r /usr/lib/deep; mkdir /usr/lib/deep; echo new >/usr/lib/deep/new'
docker commit make shop/jobs:7
docker rm make
docker save -o good.tar shop/jobs:7
docker save -o lower.tar shop/base:12 # apart: a save of both at once never gives their layer back (28.5.2)
docker run -d --name live shop/base:12 /bin/sleep 1000
docker create --name jobs shop/jobs:7 /bin/sleep 1000
"""


class Damage(NamedTuple):
    """One damage: what makes it ($B and $T are the files of both layers, $R the record of the base), and what is told.

    `probe` prints in a container of the upper image what was damaged. `layer` is whose it is; `source` whether it is put
    back from an archive.
    """

    name: str
    make: str
    code: str
    kind: str
    path: str
    probe: str
    layer: str = BASE
    source: bool = False
    hidden: bool = False


_FLIP = (
    "python3 -c \"p=open('$B/usr/bin/tool','r+b'); p.seek(777); b=p.read(1)[0]; p.seek(777); p.write(bytes([b^4]))\""
)
TABLE = (
    Damage("bit", _FLIP, "LAY012", "content", "/usr/bin/tool", "cksum /usr/bin/tool"),
    Damage("bit-from", _FLIP, "LAY012", "content", "/usr/bin/tool", "cksum /usr/bin/tool", source=True),
    Damage(
        "cut", "truncate -s 4096 $B/usr/bin/tool", "LAY012", "size", "/usr/bin/tool", "cksum /usr/bin/tool", source=True
    ),
    Damage("emptied", ": >$B/etc/c", "LAY012", "size", "/etc/c", "cat /etc/c", source=True),
    Damage("missing", "rm $B/etc/c", "LAY012", "missing", "/etc/c", "cat /etc/c", source=True),
    Damage("hidden", "echo z >$B/etc/a", "LAY012", "content", "/etc/a", "ls /etc/a", source=True, hidden=True),
    Damage("setuid", "chmod u+s $B/bin/busybox", "LAY015", "mode", "/bin/busybox", "stat -c %a /bin/busybox"),
    Damage("owner", "chown 0:0 $B/etc/b", "LAY015", "owner", "/etc/b", "stat -c %u:%g /etc/b"),
    Damage(
        "capability",
        "python3 -c \"import os; os.removexattr('$B/usr/bin/ping', 'security.capability')\"",
        "LAY015",
        "capability",
        "/usr/bin/ping",
        "true",
    ),
    Damage("link", "ln -sfn ping $B/usr/bin/link", "LAY015", "link target", "/usr/bin/link", "readlink /usr/bin/link"),
    Damage("added", "cp /bin/true $B/usr/bin/evil", "LAY014", "added", "/usr/bin/evil", "ls /usr/bin"),
    Damage("whiteout", "rm $T/etc/a", "LAY016", "whiteout lost", "/etc/a", "ls /etc", layer=TOP),
    Damage(
        "opaque",
        "python3 -c \"import os; os.removexattr('$T/usr/lib/deep', 'trusted.overlay.opaque')\"",
        "LAY016",
        "opaque lost",
        "/usr/lib/deep",
        "ls /usr/lib/deep",
        layer=TOP,
    ),
    Damage(
        "xattr",
        "python3 -c \"import os; os.removexattr('$B/etc/c', 'user.tag')\"",
        "LAY015",
        "xattr",
        "/etc/c",
        "cat /etc/c",
        source=True,
    ),
    Damage(
        "device",
        "rm $B/etc/device; mknod $B/etc/device c 5 8",
        "LAY012",
        "device",
        "/etc/device",
        "stat -c %t:%T /etc/device",
        source=True,
    ),
    Damage("size", "printf 7 >$R/size", "LAY013", "recorded size", "", "true"),
    Damage("record", "truncate -s 100 $R/tar-split.json.gz", "LAY011", "record", "", "true"),
)


@pytest.fixture(scope="module")
def host(suite: str) -> Iterator[EngineHost]:
    """A host with both images; setfattr is there for cures that print it."""
    with EngineHost.up(suite=suite) as made:
        made.sh(_MAKE, timeout=120)
        if not made.exists("/usr/bin/setfattr"):
            made.write("/usr/local/bin/setfattr", _SETFATTR, 0o755)
        yield made


_SETFATTR = """#!/usr/bin/python3
import os, sys
words = sys.argv[1:]
if words[0] == "-x":
    os.removexattr(words[2], words[1])
else:
    value = words[3]
    os.setxattr(words[4], words[1], bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode())
"""
"""What Debian's package attr brings, as far as a cure needs it: the hosts do not have it."""


def verify(host: EngineHost, *words: str) -> tuple[int, dict[str, Any]]:
    """Verify content; exit code and the JSON."""
    done = host.doctor("layers", "verify", "--deep", "--format", "json", *words, timeout=120)
    return done.returncode, json.loads(done.stdout)


def places(host: EngineHost) -> dict[str, str]:
    """Give what $B, $T and $R stand for, as shell variables."""
    rows = json.loads(host.doctor("layers", "list", "--format", "json").stdout)["layers"]
    both = next(one for one in rows if {BASE, TOP} <= set(one["images"]))
    upper = next(one for one in rows if TOP in one["images"] and BASE not in one["images"] and one["bytes"])
    root = "/var/lib/docker/overlay2"
    return {
        "B": f"{root}/{both['directory']}/diff",
        "T": f"{root}/{upper['directory']}/diff",
        "R": f"/var/lib/docker/image/overlay2/layerdb/sha256/{both['layer'][7:]}",
        BASE: both["layer"],
        TOP: upper["layer"],
    }


def probe(host: EngineHost, command: str) -> str:
    """What a new container of the upper image says, or why there is none."""
    done = host.run("docker", "run", "--rm", "--pull", "never", TOP, "/bin/sh", "-c", command, check=False)
    return done.stdout + str(done.returncode)


def carry_out(host: EngineHost, remedy: dict[str, Any]) -> None:
    """Do what is printed; FILE is the archive from before, a note is for a person."""
    for step in remedy["steps"]:
        if step["type"] == "command":
            argv = ["/root/good.tar" if word == "FILE" else word for word in step["argv"]]
            if argv[:2] != ["doctor", "layers"]:
                host.run(*argv, stdin=step.get("stdin") or None, timeout=120)
            if argv[:2] == ["docker", "load"]:
                host.docker("load", "-i", "/root/lower.tar")


@pytest.mark.sampled("damage", by="code")
@pytest.mark.proves("LAY011", "LAY012", "LAY013", "LAY014", "LAY015", "LAY016")
@pytest.mark.parametrize("damage", TABLE, ids=lambda one: one.name)
def test_damage_is_named_and_healed(host: EngineHost, damage: Damage) -> None:
    """Whole at first; then this code and no other, this file, these owners; the cure heals, and nothing is left."""
    code, found = verify(host)
    assert (code, found["damages"]) == (0, []), found["damages"]
    where = places(host)
    healthy = probe(host, damage.probe)
    variables = "; ".join(f"{name}={shlex.quote(text)}" for name, text in where.items() if len(name) == 1)
    host.sh(f"{variables}\n{damage.make}\nsleep 0.2")

    code, found = verify(host, *(("--from", "/root/good.tar") if damage.source else ()))
    assert [(one["code"], one["subject"]) for one in found["findings"]] == [(damage.code, where[damage.layer][7:])]
    assert [(one["kind"], one["layer"]) for one in found["damages"]] == [(damage.kind, where[damage.layer])]
    if damage.path:
        assert found["damages"][0]["path"] == damage.path
    assert code == 1
    finding = found["findings"][0]
    hits = " ".join(one["text"] for one in finding["hits"])
    seen, _, hidden = hits.partition("hidden by a layer above")
    assert TOP in (hidden if damage.hidden else seen), hits
    assert ("jobs" in seen) is not damage.hidden
    assert damage.layer == TOP or "live" in seen

    carry_out(host, finding["remedy"])
    if "live" not in host.docker("ps", "-a", "--format", "{{.Names}}").split():
        host.docker("run", "-d", "--name", "live", BASE, "/bin/sleep", "1000")
    if "jobs" not in host.docker("ps", "-a", "--format", "{{.Names}}").split():
        host.docker("create", "--name", "jobs", TOP, "/bin/sleep", "1000")
    code, found = verify(host)
    assert (code, found["damages"]) == (0, []), found
    assert probe(host, damage.probe) == healthy


def test_pull_and_load_over_it_heal_nothing(host: EngineHost) -> None:
    """What is never printed as a cure: load takes a damaged layer for whole; docker save bears doctor out."""
    where = places(host)
    host.sh(f"B={where['B']}; cp -p $B/etc/c /root/c; echo z >$B/etc/c; sleep 0.2")
    host.docker("load", "-i", "/root/good.tar")
    code, found = verify(host, BASE)
    assert code == 1
    assert [one["path"] for one in found["damages"]] == ["/etc/c"]
    saved = host.run("sh", "-c", f"docker save {BASE} >/dev/null", check=False)
    assert "integrity" in saved.stderr, saved.stderr
    host.sh(f"B={where['B']}; cp -p /root/c $B/etc/c")
    assert verify(host)[0] == 0


REGISTRY = f"{OUTSIDE_IP}:5000"


@pytest.fixture
def registry(host: EngineHost, tmp_path: Path) -> Iterator[None]:
    """A registry in the network outside, without TLS; dockerd is told, and reads it while it runs."""
    if not shutil.which("docker-registry"):
        pytest.skip("no docker-registry")
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": REGISTRY},
    }
    (tmp_path / "config.yml").write_text(json.dumps(config))
    argv = ["nsenter", f"--net=/proc/{host.supervisor}/ns/net", "docker-registry", "serve", tmp_path / "config.yml"]
    before = host.read("/etc/docker/daemon.json") if host.exists("/etc/docker/daemon.json") else ""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            host.write("/etc/docker/daemon.json", json.dumps({"insecure-registries": [REGISTRY]}))
            host.sh(f"kill -HUP {host.dockerd_pid()}")
            for _ in range(100):
                if host.connect("host", OUTSIDE_IP, 5000) == "connected":
                    break
                time.sleep(0.1)
            yield
        finally:
            running.kill()
            host.write("/etc/docker/daemon.json", before or "{}\n")
            host.sh(f"kill -HUP {host.dockerd_pid()}")


def test_a_pull_by_digest_heals(host: EngineHost, registry: None) -> None:  # noqa: ARG001 - it serves
    """An image that a registry has: the cure removes what stands on it, and pulls the very same by its digest."""
    name = f"{REGISTRY}/shop/pulled:1"
    host.sh(f"cd /root; mkdir -p p; cp -a r/bin p/; echo right >p/file; tar -C p -c . | docker import - {name}")
    digest = host.docker("push", "-q", name)
    host.docker("rmi", name)
    host.docker("pull", name)
    host.docker("run", "-d", "--name", "standing", name, "/bin/sleep", "1000")
    try:
        row = next(
            one
            for one in json.loads(host.doctor("layers", "list", "--format", "json").stdout)["layers"]
            if name in one["images"]
        )
        host.sh(f"printf wrong >/var/lib/docker/overlay2/{row['directory']}/diff/file; sleep 0.2")
        code, found = verify(host, name)
        assert code == 1
        (finding,) = found["findings"]
        pulls = [step["argv"] for step in finding["remedy"]["steps"] if step.get("argv", [])[:2] == ["docker", "pull"]]
        assert len(pulls) == 1, finding["remedy"]
        assert "@sha256:" in pulls[0][2], digest
        assert finding["remedy"]["stops"] == ["standing"]
        carry_out(host, finding["remedy"])
        assert verify(host, name)[0] == 0
        assert host.docker("run", "--rm", "--pull", "never", name, "/bin/cat", "/file") == "right"
    finally:
        host.run("docker", "rm", "-f", "standing", check=False)
        host.run("docker", "rmi", "-f", name, check=False)
        host.run("docker", "image", "prune", "-f", check=False)


_BUILD = r"""
set -e
mkdir -p /root/context; cd /root/context; head -c 5000 /dev/urandom >copied
cat >Dockerfile <<'END'
FROM busybox:lab
COPY copied /srv/copied
RUN rm /www/cgi-bin/peer && ln -s /srv/copied /srv/link && chmod 4755 /srv/copied
END
DOCKER_BUILDKIT=1 /root/client build -q -t shop/built:1 .
"""


def test_what_buildkit_made_is_verified(suite: str) -> None:
    """Its layers have directories of their own kind of name. Clients after 20.10 need buildx: that one asks each engine.

    The host is its own: what is built stays in BuildKit's cache, damaged.
    """
    client = (build_root("bookworm") / "usr/bin/docker").read_bytes()
    with EngineHost.up(suite=suite) as host:
        host.write_bytes("/root/client", client, 0o755)
        host.sh(_BUILD, timeout=120)
        rows = json.loads(host.doctor("layers", "list", "--format", "json").stdout)["layers"]
        mine = [one for one in rows if "shop/built:1" in one["images"]]
        assert len(mine) == 3
        assert any(len(one["directory"]) == 25 for one in mine), mine
        assert verify(host, "shop/built:1")[0] == 0
        where = next(
            one["directory"] for one in mine if host.exists(f"/var/lib/docker/overlay2/{one['directory']}/diff/srv")
        )
        host.sh(f"chmod 755 /var/lib/docker/overlay2/{where}/diff/srv/copied; sleep 0.2")
        code, found = verify(host, "shop/built:1")
        assert code == 1
        assert {one["path"] for one in found["damages"]} == {"/srv/copied"}


def test_what_changes_while_it_is_read_is_in_use(host: EngineHost) -> None:
    """Images that come and go meanwhile are no damage, whatever the moment."""
    churn = "for i in 1 2 3 4 5 6; do docker import /root/base.tar churn:$i >/dev/null; docker rmi churn:$i >/dev/null; done"
    running = host.spawn("sh", "-c", churn)
    for _ in range(4):
        code, found = verify(host)
        assert found["damages"] == [], found["damages"]
        assert code in {0, 3}, found["findings"]
    running.wait(120)
    assert verify(host)[0] == 0


def test_a_snapshot_keeps_what_was_found(host: EngineHost) -> None:
    """`collect --deep` takes the findings along: a bundle says the same on any machine."""
    where = places(host)
    host.sh(f"B={where['B']}; chmod 700 $B/etc/b; sleep 0.2")
    host.doctor("collect", "--deep", "-o", "/root/h.tar.gz")
    done = host.doctor("check", "/root/h.tar.gz", "--only", "LAY015", "--format", "json")
    found = json.loads(done.stdout)
    assert [one["code"] for one in found["diagnoses"]] == ["LAY015"]
    assert done.returncode == 1
    carry_out(host, found["diagnoses"][0]["remedy"])
    assert verify(host)[0] == 0
