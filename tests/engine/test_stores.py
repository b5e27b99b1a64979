"""What is said of stores, file systems, volumes and images on live engines, and that the cures as printed heal.

Each test breaks one thing of a host of its own kind, asks doctor, does what the cure says and asks again.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.enginehost import IMAGE, EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOBS = "/var/lib/docker/containerd/daemon/io.containerd.content.v1.content/blobs/sha256"
SNAPSHOTS = "/var/lib/docker/containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots"
CONTAINERD = {"features": {"containerd-snapshotter": True}}


def findings(host: EngineHost, code: str) -> list[dict[str, Any]]:
    """What one check says of the host."""
    report = json.loads(host.doctor("check", "--only", code, "--format", "json").stdout)
    return [one for one in report["findings"] if one["code"] == code]


def commands(finding: dict[str, Any]) -> list[list[str]]:
    """The commands of its cure, those of a person left out."""
    return [one["argv"] for one in finding["remedy"]["steps"] if one["type"] == "command"]


def clean(host: EngineHost, *codes: str) -> None:
    """None of these checks finds anything."""
    assert [one for code in codes for one in findings(host, code)] == []


@pytest.fixture(scope="module")
def containerd() -> Iterator[EngineHost]:
    """A host that keeps its images in containerd's store: of the three engines here only 28.5 can."""
    with EngineHost.up(suite="sid", daemon_json=CONTAINERD) as host:
        host.docker("save", "-o", "/root/image.tar", IMAGE)
        host.docker("run", "-d", "--name", "web", IMAGE, "idle")
        yield host


def _layer(host: EngineHost) -> str:
    """The largest blob, which is the layer."""
    return host.sh(f"ls -S {BLOBS} | head -1").strip()


@pytest.mark.proves("LAY027")
@pytest.mark.parametrize("how", ["gone", "cut", "config"])
def test_a_blob_is_missed_and_comes_again(containerd: EngineHost, how: str) -> None:
    """Gone, cut short, or with another content: named, and written anew by docker load after the cure."""
    clean(containerd, "LAY027", "LAY028", "LAY029", "LAY030")
    blob = _layer(containerd)
    if how == "config":
        blob = containerd.sh(f"cd {BLOBS}; grep -l rootfs * | head -1").strip()
        containerd.sh(f"sed -i s/layers/lexers/ {BLOBS}/{blob}")
    else:
        containerd.sh(f"rm {BLOBS}/{blob}" if how == "gone" else f"truncate -s 4096 {BLOBS}/{blob}")
    (found,) = findings(containerd, "LAY027")
    assert found["subject"] == f"sha256:{blob}"
    assert found["severity"] == "error"
    assert IMAGE in json.dumps(found["hits"])
    assert "docker load" in json.dumps(found["remedy"])
    for argv in commands(found):
        containerd.run(*argv)
    containerd.docker("load", "-i", "/root/image.tar")
    clean(containerd, "LAY027")
    assert containerd.sh(f"sha256sum {BLOBS}/{blob}").split()[0] == blob
    assert containerd.docker("run", "--rm", IMAGE, "echo", "runs").strip() == "runs"


@pytest.mark.proves("LAY028")
def test_a_snapshot_without_its_directory_is_told(containerd: EngineHost) -> None:
    """A cleaning script took it: the containers and images on it are named, and after them it is unpacked anew."""
    containerd.sh(f"mv {SNAPSHOTS}/1/fs {SNAPSHOTS}/1/away")
    assert containerd.run("docker", "run", "--rm", IMAGE, "true", check=False).returncode
    (found,) = findings(containerd, "LAY028")
    assert {"web"} == {name for hit in found["hits"] for name in hit["names"] if name == "web"}
    for argv in commands(found):
        containerd.run(*argv)
    containerd.docker("load", "-i", "/root/image.tar")
    clean(containerd, "LAY027", "LAY028")
    containerd.docker("run", "-d", "--name", "web", IMAGE, "idle")


def test_a_file_of_a_snapshot_is_named_to_the_bit_and_healed(containerd: EngineHost) -> None:
    """Deep: one flipped bit, put back from the layer's blob as is printed."""
    host = containerd
    assert host.doctor("layers", "verify", "--deep").returncode == 0
    file = f"{SNAPSHOTS}/{host.sh(f'ls {SNAPSHOTS}').split()[0]}/fs/bin/busybox"
    right = host.sh(f"sha256sum {file}").split()[0]
    flip = f"""python3 -c 'f = open("{file}", "r+b"); f.seek(1000); b = f.read(1)[0]; f.seek(1000); f.write(bytes([b ^ 4]))'"""
    host.docker("stop", "web")
    host.sh(flip)
    time.sleep(3)  # what was written a moment ago is in use
    done = host.doctor("layers", "verify", "--deep", "--format", "json")
    (found,) = json.loads(done.stdout)["findings"]
    assert (done.returncode, found["code"]) == (1, "LAY028")
    assert "one flipped bit: byte 1,000" in json.dumps(found["evidence"])
    for argv in commands(found):
        host.run(*argv)
    assert host.doctor("layers", "verify", "--deep").returncode == 0
    assert host.docker("run", "--rm", IMAGE, "sha256sum", "/bin/busybox").split()[0] == right
    host.docker("start", "web")


def test_a_snapshot_is_set_right_while_what_runs_on_it_is_stopped(containerd: EngineHost) -> None:
    """Rights by chmod and chown, lost and changed files from the blob; no container and no image is removed."""
    host = containerd
    root = f"{SNAPSHOTS}/{host.sh(f'ls {SNAPSHOTS}').split()[0]}/fs"
    look = (
        f"cd {root}; find . -type f -links 1 -o -type l | sort | xargs stat -c '%n %A %u:%g %s'; cat www/cgi-bin/peer"
    )
    before, identity = host.sh(look), host.docker("ps", "-q")
    host.sh(f"cd {root}; chmod u+s bin/busybox; chown 7:8 etc/passwd; rm etc/group; ln -sfn nowhere bin/sh")
    host.sh(f"cd {root}; echo X >>www/cgi-bin/peer; touch etc/new")
    time.sleep(3)  # what was written a moment ago is in use
    done = host.doctor("layers", "verify", "--deep", "--format", "json")
    (found,) = json.loads(done.stdout)["findings"]
    assert found["evidence"][0]["place"] == "/bin/busybox", found["evidence"]
    assert (found["remedy"]["risk"], found["remedy"]["stops"]) == ("disruptive", ["web"])
    for argv in commands(found):
        host.run(*argv)
    assert host.doctor("layers", "verify", "--deep").returncode == 0
    assert host.sh(look) == before
    assert host.docker("ps", "-q") == identity
    assert host.docker("exec", "web", "stat", "-c", "%a", "/bin/busybox") == "755"


def test_who_sees_a_file_is_told_and_it_comes_from_an_archive(containerd: EngineHost) -> None:
    """An image on top has deleted it: that one does not see it; what runs on it is stopped while the file is put back."""
    host, file = containerd, "/www/cgi-bin/peer"
    host.docker("run", "--name", "made", IMAGE, "rm", file)
    host.docker("commit", "made", "shop/top:1")
    host.docker("run", "-d", "--name", "upper", "shop/top:1", "idle")
    try:
        (place,) = host.sh(f"grep -lr REMOTE_ADDR {SNAPSHOTS}/*/fs/www").split()
        right = host.read(place)
        host.write(place, right.replace("REMOTE", "remove"))
        time.sleep(3)  # what was written a moment ago is in use
        done = host.doctor("layers", "verify", "--deep", "--from", "/root/image.tar", "--format", "json")
        (found,) = json.loads(done.stdout)["findings"]
        assert found["code"] == "LAY028"
        # An image that was loaded anew by the test before leaves one without a name, of the same layer.
        unnamed = re.compile(r"[0-9a-f]{12}")
        said = {hit["text"]: [name for name in hit["names"] if not unnamed.fullmatch(name)] for hit in found["hits"]}
        assert said == {
            "images that need it": [IMAGE],
            "containers that need it": ["web"],
            "hidden by a layer above from": ["shop/top:1", "made", "upper"],
        }
        assert set(found["remedy"]["stops"]) == {"web", "upper"}
        for argv in commands(found):
            host.run(*argv)
        assert host.doctor("layers", "verify", "--deep").returncode == 0
        assert host.read(place) == right
        assert host.docker("exec", "web", "cat", file) == right.rstrip("\n")
    finally:
        host.docker("rm", "-f", "made", "upper")
        host.docker("rmi", "-f", "shop/top:1")


def test_a_layer_is_explained_where_it_lies(containerd: EngineHost) -> None:
    """Its files and its blob are there, and what is told of overlay2 is not told of this store."""
    rows = json.loads(containerd.doctor("layers", "list", "--format", "json").stdout)["layers"]
    done = containerd.doctor("layers", "explain", rows[0]["layer"][7:19])
    assert done.stderr == ""
    places = [line.split()[1] for line in done.stdout.split("\n") if line.startswith((" files ", " blob "))]
    assert len(places) == 2
    assert all(containerd.exists(place) for place in places)
    containerd.docker("run", "--name", "made", IMAGE, "touch", "/etc/new")
    containerd.docker("commit", "made", "shop/committed:1")
    containerd.docker("rm", "made")
    try:
        rows = json.loads(containerd.doctor("layers", "list", "--format", "json").stdout)["layers"]
        (top,) = [one for one in rows if one["images"] == ["shop/committed:1"]]
        # containerd has it stand on a snapshot of the container, which is no layer.
        assert top["parent"] in {one["layer"] for one in rows}
        done = containerd.doctor("layers", "explain", top["layer"][7:19])
        assert top["parent"][7:19] in done.stdout
    finally:
        containerd.docker("rmi", "shop/committed:1")
    rows = json.loads(containerd.doctor("layers", "list", "--format", "json").stdout)["layers"]
    counted = containerd.doctor("layers", "verify").stdout
    assert counted.startswith(f"{len(rows)} layer"), counted


@pytest.mark.proves("LAY031")
def test_an_archive_is_proved_before_it_is_loaded(engine: EngineHost) -> None:
    """What docker save of each engine writes is whole; cut or changed it is told, and docker load refuses the cut one."""
    engine.docker("save", "-o", "/root/whole.tar", IMAGE)
    assert engine.doctor("layers", "verify", "/root/whole.tar").returncode == 0
    engine.sh("head -c 1000000 /root/whole.tar >/root/cut.tar")
    done = engine.doctor("layers", "verify", "/root/cut.tar")
    assert done.returncode == 1
    assert "LAY031" in done.stdout
    assert "ends within a file at byte 1,000,000" in " ".join(done.stdout.split())
    assert engine.run("docker", "load", "-i", "/root/cut.tar", check=False).returncode
    engine.sh("cp /root/whole.tar /root/other.tar; printf X | dd of=/root/other.tar bs=1 seek=700000 conv=notrunc 2>&1")
    done = engine.doctor("layers", "verify", "/root/other.tar")
    assert done.returncode == 1
    assert "LAY031" in done.stdout
    engine.sh("gzip -k /root/whole.tar")
    assert engine.doctor("layers", "verify", "/root/whole.tar.gz").returncode == 0


@pytest.mark.proves("LAY029")
def test_images_of_the_other_store_are_told() -> None:
    """The other store is turned on, and off again."""
    with EngineHost.up(suite="sid") as host:
        clean(host, "LAY029")
        host.write("/etc/docker/daemon.json", json.dumps(CONTAINERD))
        host.restart_dockerd()
        assert IMAGE not in host.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
        (found,) = findings(host, "LAY029")
        assert found["subject"] == "overlay2"
        host.write("/etc/docker/daemon.json", "{}\n")
        host.restart_dockerd()
        clean(host, "LAY029")
        assert IMAGE in host.docker("images", "--format", "{{.Repository}}:{{.Tag}}")


def _remapped_layers_are_verified(host: EngineHost) -> None:
    """Owners on disk are shifted, which is right; one that is not is told as it is on disk, and set right."""
    host.docker("load", "-i", "/root/image.tar")
    host.docker("run", "--name", "job", IMAGE, "true")
    assert host.doctor("layers", "verify", "--deep").returncode == 0
    (file,) = host.sh("ls /var/lib/docker/100000.100000/overlay2/*/diff/bin/busybox").split()
    assert host.sh(f"stat -c %u:%g {file}").strip() == "100000:100000"
    host.sh(f"chown 0:0 {file}; sleep 0.2")
    done = host.doctor("layers", "verify", "--deep", "--format", "json")
    (found,) = [one for one in json.loads(done.stdout)["findings"] if one["code"] != "LAY030"]
    assert (found["code"], done.returncode) == ("LAY015", 1)
    for argv in commands(found):
        host.run(*argv)
    assert host.doctor("layers", "verify", "--deep").returncode == 0
    assert host.sh(f"stat -c %u:%g {file}").strip() == "100000:100000"


def _shifted_layers_come_back(host: EngineHost) -> None:
    """The store of remapped users in the place of the other, with a dockerd that remaps nobody: one finding, one cure."""
    host.stop_dockerd()
    host.write("/etc/docker/daemon.json", "{}\n")
    host.sh("cd /var/lib/docker; rm -rf image overlay2 containers; mv 100000.100000/image 100000.100000/overlay2 .")
    host.sh("mv /var/lib/docker/100000.100000/containers /var/lib/docker; sleep 0.2")
    host.start_dockerd()
    done = host.doctor("layers", "verify", "--deep", "--format", "json")
    (found,) = json.loads(done.stdout)["findings"]
    assert (found["code"], done.returncode) == ("LAY015", 1)
    assert "shifted by +100,000" in found["title"]
    assert "root is 100000 there" in found["likely"]
    for step in found["remedy"]["steps"]:
        if step["type"] == "command":
            host.run(*step["argv"], stdin=step.get("stdin"))
    assert host.doctor("layers", "verify", "--deep").returncode == 0
    assert host.docker("run", "--rm", IMAGE, "stat", "-c", "%u:%g", "/bin/busybox") == "0:0"


@pytest.mark.proves("LAY030")
def test_images_of_the_other_root_are_told(fresh_engine: EngineHost) -> None:
    """Users are remapped, and dockerd begins with an empty root."""
    host = fresh_engine
    clean(host, "LAY030")
    host.docker("save", "-o", "/root/image.tar", IMAGE)
    host.sh("echo dockremap:100000:65536 >>/etc/subuid; echo dockremap:100000:65536 >>/etc/subgid")
    host.sh("echo dockremap:x:999:999::/:/bin/false >>/etc/passwd; echo dockremap:x:999: >>/etc/group")
    host.write("/etc/docker/daemon.json", json.dumps({"userns-remap": "dockremap"}))
    host.restart_dockerd()
    assert IMAGE not in host.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
    (found,) = findings(host, "LAY030")
    assert found["subject"] == "/var/lib/docker"
    _remapped_layers_are_verified(host)
    _shifted_layers_come_back(host)
    clean(host, "LAY030")


@pytest.mark.proves("STO004")
def test_a_size_without_quota_keeps_dockerd_down(fresh_engine: EngineHost) -> None:
    """It says so in its log; the key goes, and dockerd starts."""
    host = fresh_engine
    clean(host, "STO004")
    host.write("/etc/docker/daemon.json", json.dumps({"storage-opts": ["overlay2.size=10G"]}))
    host.restart_dockerd(expect_failure=True)
    (found,) = findings(host, "STO004")
    assert found["severity"] == "error"
    (key,) = [one for one in found["remedy"]["steps"] if one["type"] == "edit-key"]
    assert (key["path"], key["pointer"], key["value"]) == ("/etc/docker/daemon.json", "/storage-opts", None)
    host.write("/etc/docker/daemon.json", "{}\n")
    for argv in commands(found):
        host.run(*argv)
    clean(host, "STO004")
    assert host.answers()


@pytest.mark.proves("STO003")
def test_a_data_root_in_memory_is_a_note() -> None:
    """Docker works there, until the next boot."""
    with EngineHost.up(suite="sid", daemon_args=("--data-root", "/run/docker-data")) as host:
        (found,) = findings(host, "STO003")
        assert found["severity"] == "info"
        assert found["subject"] == "/run/docker-data"


@pytest.mark.proves("STO009")
def test_a_file_system_that_is_read_only_is_told(fresh_engine: EngineHost) -> None:
    """As after an error of the disk: nothing is written any more; the cure makes it writable, dockerd runs on.

    Of a dockerd that is down DMN019 says it (tests/engine/faults/daemon_start.py).
    """
    host = fresh_engine
    clean(host, "STO009")
    # A mount on top: the one below has files that dockerd writes, and only an error of the disk takes those.
    host.sh("mount --bind /var/lib/docker /var/lib/docker; mount -o remount,ro,bind /var/lib/docker")
    assert "read-only file system" in host.run("docker", "create", IMAGE, check=False).stderr.lower()
    (found,) = findings(host, "STO009")
    assert found["severity"] == "error"
    for argv in commands(found):
        host.run(*argv)
    clean(host, "STO009")
    host.docker("run", "--rm", IMAGE, "true")


@pytest.mark.proves("VOL001", "VOL002")
def test_data_that_is_gone_is_told(engine: EngineHost) -> None:
    """A volume's directory, and a path that is bound: the container that needs them is named."""
    engine.sh("mkdir -p /srv/data")
    engine.docker("run", "--name", "job", "-v", "kept:/kept", "-v", "/srv/data:/data", IMAGE, "true")
    try:
        clean(engine, "VOL001", "VOL002")
        engine.sh("rm -r /var/lib/docker/volumes/kept/_data /srv/data")
        (volume,), (path,) = findings(engine, "VOL001"), findings(engine, "VOL002")
        assert (volume["subject"], path["subject"]) == ("kept", "/srv/data")
        assert volume["severity"] == "error"
        for argv in commands(volume):
            engine.run(*argv)
        engine.sh("mkdir -p /srv/data")
        clean(engine, "VOL001", "VOL002")
        engine.docker("start", "-a", "job")
    finally:
        engine.docker("rm", "-fv", "job")
        engine.docker("volume", "rm", "-f", "kept")


@pytest.mark.proves("IMG003")
def test_a_name_that_has_moved_on_is_a_note(engine: EngineHost) -> None:
    """The name leads to another image; the container goes on with the old one."""
    engine.docker("tag", IMAGE, "shop/web:1")
    engine.docker("run", "-d", "--name", "web", "shop/web:1", "idle")
    try:
        clean(engine, "IMG003")
        engine.docker("commit", "web", "shop/web:1")
        (found,) = findings(engine, "IMG003")
        assert found["subject"] == "shop/web:1"
        assert found["severity"] == "info"
        engine.docker("tag", IMAGE, "shop/web:1")
        clean(engine, "IMG003")
    finally:
        engine.docker("rm", "-f", "web")
        engine.docker("rmi", "shop/web:1")
        engine.docker("image", "prune", "-f")


@pytest.mark.proves("IMG002")
def test_an_image_of_another_machine_is_told(engine: EngineHost) -> None:
    """Imported as one for s390x, which nothing here runs."""
    engine.sh(
        f"docker save {IMAGE} >/dev/null; tar -c /etc/hostname | docker import --platform linux/s390x - far:1",
        check=False,
    )
    made = engine.run("docker", "inspect", "-f", "{{.Architecture}}", "far:1", check=False).stdout.strip()
    if made != "s390x":
        engine.run("docker", "rmi", "far:1", check=False)
        pytest.skip("this engine imports for its own platform alone")
    try:
        engine.docker("create", "--platform", "linux/s390x", "--name", "job", "far:1", "/bin/true", check=False)
        (found,) = findings(engine, "IMG002")
        assert found["subject"] == "far:1"
        assert "s390x" in found["title"]
    finally:
        engine.docker("rm", "-f", "job", check=False)
        engine.docker("rmi", "far:1")
