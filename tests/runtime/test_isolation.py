"""What a container must not see or reach, and ways out that runtimes have had. It is no sandbox all the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from doctor.runtime import oci
from doctor.runtime.container import Container, ContainerError
from tests.runtime.test_container import config, run

pytestmark = pytest.mark.root
replace = msgspec.structs.replace


def _bind(source: Path, target: str, *options: str) -> tuple[oci.Mount, ...]:
    return (*oci.DOCKER_MOUNTS, oci.Mount(target, "bind", str(source), ("rbind", *options)))


def test_it_sees_no_process_mount_or_link_of_the_machine(rootfs: Path) -> None:
    """Its own processes, its own mounts, its own loopback."""
    _, text = run(rootfs, config("sh", "-c", "echo /proc/[0-9]*; ls /sys/class/net; cat /proc/self/mountinfo"))
    processes, links, *mounts = text.splitlines()
    assert len(processes.split()) <= 2
    assert links == "lo"
    points = {line.split(" ")[4] for line in mounts}
    assert all(point == "/" or point.startswith(("/dev", "/proc", "/sys")) for point in points), points
    assert str(Path.home()) not in points


def test_its_root_has_no_parent(rootfs: Path) -> None:
    """By `..`, by /proc/1/root and by /proc/self/root one is where one was."""
    (rootfs / "mark").write_text("", encoding="utf-8")
    script = "cd /; cd ../../../..; ls; ls /proc/1/root/; ls /proc/self/root/../..; ls /proc/1/cwd/"
    _, text = run(rootfs, config("sh", "-c", script))
    assert text.split().count("mark") == 4


def test_no_descriptor_of_the_caller_is_left_open(rootfs: Path) -> None:
    """Not even one that is handed on over exec (CVE-2024-21626): neither in the first process nor in one that joins."""
    handle = os.open("/", os.O_RDONLY)
    os.set_inheritable(handle, True)  # noqa: FBT003 - the name says it
    try:
        _, text = run(rootfs, config("sh", "-c", "ls /proc/self/fd /proc/1/fd"))
        assert set(text.split()) <= {"0", "1", "2", "3", "/proc/self/fd:", "/proc/1/fd:"}
        one = Container.create(config("sleep", "100"), id="t", bundle=str(rootfs.parent))
        one.start()
        for number in range(3, 64):
            for process in (oci.Process(("true",), cwd=f"/proc/self/fd/{number}", env=("PATH=/bin",)),):
                with pytest.raises(ContainerError) as told:
                    one.exec(process)
                assert told.value.code == 126
        one.delete(force=True)
    finally:
        os.close(handle)


def test_a_working_directory_does_not_lead_out(rootfs: Path) -> None:
    """A WORKDIR of /proc/self/fd/N was runc's way out: the descriptor is gone, or what it leads to is refused."""
    handle = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for number in (*range(3, 16), handle):
        with pytest.raises(ContainerError):
            run(rootfs, config("ls", cwd=f"/proc/self/fd/{number}"))
    os.close(handle)


def test_a_link_in_the_image_does_not_lead_a_mount_out(rootfs: Path, tmp_path: Path) -> None:
    """Targets are looked up inside: through a link, absolute or relative, too."""
    secret = tmp_path / "secret"
    secret.mkdir()
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("of the volume\n", encoding="utf-8")
    (rootfs / "away").symlink_to(secret)
    (rootfs / "up").symlink_to("../" * 30 + str(secret).lstrip("/"))
    for name in ("away", "up"):
        made = replace(config("cat", f"/{name}/here/file"), mounts=_bind(volume, f"/{name}/here"))
        assert run(rootfs, made) == (0, "of the volume\n")
    assert list(secret.iterdir()) == []


def test_a_link_in_a_volume_leads_into_the_container(rootfs: Path, tmp_path: Path) -> None:
    """What a bind source holds is looked up by who is inside, not by us."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (tmp_path / "secret").write_text("of the machine\n", encoding="utf-8")
    (volume / "link").symlink_to(tmp_path / "secret")
    (volume / "passwd").symlink_to("/etc/passwd")
    made = replace(config("sh", "-c", "cat /v/link; cat /v/passwd"), mounts=_bind(volume, "/v", "ro"))
    _, text = run(rootfs, made)
    assert "of the machine" not in text
    assert "ann" in text
    assert "Read-only" in run(rootfs, replace(config("touch", "/v/x"), mounts=made.mounts))[1]


def test_proc_that_is_a_link_is_refused(rootfs: Path) -> None:
    """Else what is masked would be masked somewhere else (CVE-2019-19921)."""
    (rootfs / "proc").rmdir()
    (rootfs / "proc").symlink_to("etc")
    with pytest.raises(ContainerError, match="/proc: is a symbolic link in the image"):
        run(rootfs, config("true"))


def test_what_is_masked_stays_so(rootfs: Path) -> None:
    """An image cannot put its own /dev/null over it (CVE-2025-31133), and no sysctl can be written."""
    (rootfs / "dev").rmdir()
    (rootfs / "dev").mkdir()
    (rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    before = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8")
    _, text = run(rootfs, config("sh", "-c", "cat /proc/keys /proc/timer_list; echo x > /proc/sys/kernel/core_pattern"))
    assert text == "sh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n"
    assert Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("script", ["#!/proc/self/exe -h\n", "#!/proc/self/../self/exe\n", "#!/bin/link\n"])
def test_exec_runs_no_program_of_the_machine(rootfs: Path, script: str) -> None:
    """A program that is a script of /proc/self/exe would be the runtime's own (CVE-2019-5736): at create and at exec."""
    (rootfs / "bin/link").symlink_to("/proc/self/exe")
    (rootfs / "bin/evil").write_text(script, encoding="utf-8")
    (rootfs / "bin/evil").chmod(0o755)
    for program in ("/bin/evil", "/proc/self/exe", "/bin/link"):
        made = Container.create(config(program), id="t", bundle=str(rootfs.parent))
        with pytest.raises(ContainerError, match="leads through /proc to a program outside"):
            made.start()
        made.delete(force=True)
    one = Container.create(config("sleep", "100"), id="t", bundle=str(rootfs.parent))
    one.start()
    for program in ("/bin/evil", "/proc/self/exe", "/bin/link"):
        with pytest.raises(ContainerError) as told:
            one.exec(oci.Process((program,), env=("PATH=/bin",)))
        assert told.value.code == 126
    one.delete(force=True)


def test_who_joins_cannot_be_looked_into(rootfs: Path) -> None:
    """Somebody in the container who reads every exe, all the time, never sees the interpreter that joins."""
    reading, writing = os.pipe()
    script = "while :; do for p in /proc/[0-9]*; do readlink $p/exe; ls $p/fd $p/cwd/; done; done"
    one = Container.create(config("sh", "-c", script), id="t", bundle=str(rootfs.parent), stdio=(0, writing, 2))
    os.close(writing)
    seen = b""
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        one.start()
        for _ in range(20):
            one.exec(oci.Process(("true",), env=("PATH=/bin",)), (0, 1, 2)).wait()
        os._exit(0)
    until = time.monotonic() + 60
    while time.monotonic() < until and os.waitpid(pid, os.WNOHANG)[0] == 0:
        seen += os.read(reading, 1 << 16)
    one.kill(9)
    os.close(reading)
    one.delete(force=True)
    lines = set(seen.split())
    assert b"/bin/busybox" in lines
    assert not [line for line in lines if b"python" in line]


def test_a_process_that_is_only_created_cannot_be_joined(rootfs: Path) -> None:
    """What stands before its program is not ready for others."""
    one = Container.create(config("sleep", "100"), id="t", bundle=str(rootfs.parent))
    with pytest.raises(ContainerError, match="cannot exec in a created container"):
        one.exec(oci.Process(("true",), env=("PATH=/bin",)))
    one.delete(force=True)


def test_a_sysctl_of_the_machine_is_refused(rootfs: Path) -> None:
    """Those of its network are its own."""
    for name, allowed in (("net.ipv4.ip_forward", True), ("kernel.core_pattern", False), ("vm.swappiness", False)):
        made = config("cat", f"/proc/sys/{name.replace('.', '/')}")
        made = replace(made, linux=replace(made.linux, sysctl={name: "1"}))
        if allowed:
            assert run(rootfs, made) == (0, "1\n")
        else:
            with pytest.raises(ContainerError, match="is not in a namespace of the container's own"):
                run(rootfs, made)
