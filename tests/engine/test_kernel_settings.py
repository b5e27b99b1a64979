"""What the kernel below an engine does, made true for one host: its file systems, its control groups, its overlay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.enginehost import IMAGE, EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "/var/lib/docker"
REDIRECT = Path("/sys/module/overlay/parameters/redirect_dir")


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    """A host for what is the kernel's alone, whichever engine there is."""
    with EngineHost.up(suite="sid") as made:
        yield made


def findings(host: EngineHost, code: str) -> list[dict[str, Any]]:
    """Give the findings of a code."""
    found = json.loads(host.doctor("check", "--format", "json").stdout)["findings"]
    return [one for one in found if one["code"] == code]


def own_disk(host: EngineHost, *options: str) -> str:
    """Put Docker's data on an ext4 of its own, made with options; the loop device, which stays when it is unmounted."""
    host.stop_dockerd()
    host.sh(f"truncate -s 512M /root/disk; mkfs.ext4 -q {' '.join(options)} /root/disk")
    device = host.sh("losetup -f --show /root/disk").strip()
    host.sh(f"mount {device} /mnt; cp -a {ROOT}/. /mnt; umount /mnt; mount {device} {ROOT}")
    return device


def commands(remedy: dict[str, Any]) -> list[list[str]]:
    """Give the commands of a cure, in their order."""
    return [step["argv"] for step in remedy["steps"] if step["type"] == "command"]


@pytest.mark.proves("STO002")
@pytest.mark.parametrize("made_of", ["bookworm", "sid"])
def test_an_ext4_without_types_is_told_and_learns_them(made_of: str) -> None:
    """What a container deletes is seen again; from 26.1 on dockerd does not start at all. The cure keeps all data."""
    with EngineHost.up(suite=made_of) as host:
        host.docker("run", "--name", "job", IMAGE, "true")
        device = own_disk(host, "-O", "^filetype")
        delete = ("docker", "run", "--rm", IMAGE, "sh", "-c", "rm -r /www; ls /")
        try:
            refuses = made_of != "bookworm"
            host.start_dockerd(expect_failure=refuses)
            if not refuses:
                assert "www" in host.run(*delete, check=False).stdout.split(), "the fault changed nothing"
            (found,) = findings(host, "STO002")
            assert (found["severity"], found["subject"]) == ("error", ROOT)
            if not refuses:
                host.stop_dockerd()  # a step for a person: "stop Docker"
            steps = commands(found["remedy"])
            assert ["tune2fs", "-O", "filetype", device] in steps
            for argv in steps:
                if argv[0] == "mount":
                    host.run("e2fsck", "-f", "-y", device, check=False)  # the other one: its exit code is 1
                host.run(*argv)
            host.start_dockerd()
            assert findings(host, "STO002") == []
            assert "www" not in host.run(*delete).stdout.split()
            host.docker("start", "-a", "job")
        finally:
            host.stop_dockerd()
            host.sh(f"umount {ROOT}; losetup -d {device}", check=False)


def fail(host: EngineHost, device: str) -> None:
    """Let the kernel meet an error of an ext4: it is told in the kernel's log, and nothing can be written from then on."""
    host.sh(f"echo test >/sys/fs/ext4/{device.removeprefix('/dev/')}/trigger_fs_error")


@pytest.mark.proves("HST006")
def test_a_file_system_that_was_shut_down_is_told_until_it_is_mounted_again(host: EngineHost) -> None:
    """An error of its disk: the kernel writes no more. Repaired and mounted again it is no matter any more."""
    host.sh("truncate -s 64M /root/srv; mkfs.ext4 -q /root/srv; mkdir -p /srv/data")
    device = host.sh("losetup -f --show /root/srv").strip()
    try:
        host.sh(f"mount -o errors=remount-ro {device} /srv/data; touch /srv/data/x")
        assert findings(host, "HST006") == []
        fail(host, device)
        assert host.run("touch", "/srv/data/y", check=False).returncode, "the fault changed nothing"
        (found,) = findings(host, "HST006")
        assert (found["severity"], found["subject"]) == ("error", "file system")
        assert device.removeprefix("/dev/") in found["title"]
        assert findings(host, "STO009") == []
        host.sh(f"umount /srv/data; e2fsck -fy {device} || [ $? = 1 ]; mount {device} /srv/data; touch /srv/data/y")
        assert findings(host, "HST006") == []
    finally:
        host.sh(f"umount /srv/data; losetup -d {device}", check=False)


@pytest.mark.proves("STO009")
def test_a_data_root_that_was_shut_down_is_one_cause(host: EngineHost) -> None:
    """The same below Docker's data: one cause, whose cure is a repair, for a remount heals nothing."""
    device = own_disk(host, "-e", "remount-ro")
    try:
        host.start_dockerd()
        fail(host, device)
        assert host.run("docker", "create", IMAGE, check=False).returncode, "the fault changed nothing"
        report = json.loads(host.doctor("check", "--format", "json").stdout)
        assert [one["code"] for one in report["diagnoses"]] == ["STO009"], report["findings"]
        text = json.dumps(report["diagnoses"][0]["remedy"])
        assert f"e2fsck -f {device}" in text
        assert "remount" not in text
        host.run("mount", "-o", "remount,rw", ROOT, check=False)
        assert host.run("docker", "create", IMAGE, check=False).returncode, "a remount heals it after all"
        host.stop_dockerd()
        host.sh(f"umount {ROOT}; e2fsck -fy {device} || [ $? = 1 ]; mount {device} {ROOT}")
        host.start_dockerd()
        host.docker("run", "--rm", IMAGE, "true")
        report = json.loads(host.doctor("check", "--format", "json").stdout)
        assert report["diagnoses"] == []
    finally:
        host.stop_dockerd()
        host.sh(f"umount {ROOT}; losetup -d {device}", check=False)
        host.start_dockerd()


@pytest.mark.proves("STO008")
def test_a_kernel_that_redirects_directories_is_told(host: EngineHost) -> None:
    """A parameter of the kernel's overlay, which dockerd tries at its start: it is on for no longer than that."""
    assert findings(host, "STO008") == []
    before = REDIRECT.read_text()
    assert before == "N\n", "this machine redirects directories"
    host.stop_dockerd()
    try:
        host.sh(f"echo Y >{REDIRECT}")
        host.start_dockerd()
    finally:
        REDIRECT.write_text(before)
    assert host.docker("info", "-f", "{{.DriverStatus}}").count("Native Overlay Diff false") == 1
    (found,) = findings(host, "STO008")
    assert found["severity"] == "info"
    assert "CONFIG_OVERLAY_FS_REDIRECT_DIR" in found["message"]
    host.restart_dockerd()
    assert findings(host, "STO008") == []


@pytest.mark.proves("CGR001")
def test_control_groups_of_version_1_are_a_note() -> None:
    """Which version dockerd uses is a matter of what is mounted: version 1 as the machine has it, then version 2 alone."""
    with EngineHost.up(suite="sid") as host:
        assert host.docker("info", "-f", "{{.CgroupVersion}}") == "1", "this machine has no control groups of version 1"
        (found,) = findings(host, "CGR001")
        assert found["severity"] == "info"
        host.stop_dockerd()
        host.sh("umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        host.start_dockerd()
        assert host.docker("info", "-f", "{{.CgroupVersion}}") == "2"
        assert findings(host, "CGR001") == []
        assert host.docker("run", "--rm", IMAGE, "echo", "runs") == "runs"
