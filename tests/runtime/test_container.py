"""Containers as an OCI runtime has them, in one process, without a lab around them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from doctor.runtime import oci
from doctor.runtime.container import Container, ContainerError
from doctor.runtime.mounts import Overlay

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root
replace = msgspec.structs.replace


def config(*args: str, **changes: object) -> oci.Config:
    """Give docker's defaults for a command; what is changed is of the process, or of the whole by its name."""
    made = oci.default(args, hostname="inside")
    whole = {key: changes.pop(key) for key in list(changes) if key in {"root", "linux", "mounts", "hostname"}}
    return replace(made, process=replace(made.process, **changes), **whole)


def run(rootfs: Path, made: oci.Config, *, init: bool = False, overlay: Overlay | None = None) -> tuple[int, str]:
    """Run a container to its end; gives exit code and output."""
    reading, writing = os.pipe()
    try:
        empty = os.open("/dev/null", os.O_RDONLY)
        one = Container.create(
            made, id="t", bundle=str(rootfs.parent), stdio=(empty, writing, writing), init=init, overlay=overlay
        )
        os.close(empty)
    finally:
        os.close(writing)
    one.start()
    with os.fdopen(reading) as file:
        text = file.read()
    code = one.wait(10)
    one.delete()
    return code, text


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 0), ("nope", 127)]
)
def test_exit_codes(rootfs: Path, command: str, code: int) -> None:
    """128+n for a signal; a first process has no default action for TERM (pid_namespaces(7))."""
    expected = 0 if code == 137 else code  # pid 1 cannot kill itself from inside
    assert run(rootfs, config("sh", "-c", command))[0] == expected


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/bin/nope", 127, 'exec: "/bin/nope": stat /bin/nope: no such file or directory'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_be_started_is_told_at_create(rootfs: Path, program: str, code: int, words: str) -> None:
    """In runc's words, with docker's exit code."""
    with pytest.raises(ContainerError) as told:
        run(rootfs, config(program))
    assert (str(told.value), told.value.code) == (words, code)


def test_what_is_no_program_ends_with_255(rootfs: Path) -> None:
    """It is the kernel that says so, after the start."""
    (rootfs / "bin/odd").write_bytes(b"\x01\x02\x03\x04")
    (rootfs / "bin/odd").chmod(0o755)
    assert run(rootfs, config("odd")) == (255, "exec /bin/odd: exec format error\n")


def test_states(rootfs: Path) -> None:
    """created, running, stopped; what a state does not allow is an error."""
    one = Container.create(config("sleep", "100"), id="t", bundle=str(rootfs.parent))
    assert one.state == "created"
    with pytest.raises(ContainerError, match="cannot exec in a created container"):
        one.exec(oci.Process(("true",)))
    one.start()
    assert one.state == "running"
    with pytest.raises(ContainerError, match="that is not stopped: running"):
        one.delete()
    with pytest.raises(ContainerError, match="cannot start a container in the running state"):
        one.start()
    one.kill(9)
    assert one.wait(5) == 137
    assert one.state == "stopped"
    one.delete()


def test_many_are_made_side_by_side(rootfs: Path) -> None:
    """Each stands at its barrier, with a network namespace to put links into."""
    made = [Container.create(config("true"), id=str(n), bundle=str(rootfs.parent), wait=False) for n in range(4)]
    spaces = {os.readlink(f"/proc/{one.created()}/ns/net") for one in made}  # noqa: PTH115 - no path
    assert len(spaces) == 4
    for one in made:
        one.start()
    assert [one.wait(10) for one in made] == [0] * 4
    for one in made:
        one.delete()


def test_the_default_is_what_docker_gives(rootfs: Path) -> None:
    """Capabilities, host name, devices, masked and read-only paths."""
    script = "grep Cap /proc/self/status; hostname; ls /dev; cat /proc/keys; echo 1 > /proc/sys/vm/swappiness; id -u"
    (rootfs / "bin/grep").symlink_to("busybox")
    _, text = run(rootfs, config("sh", "-c", script))
    assert "CapEff:\t00000000a80425fb" in text
    assert "CapBnd:\t00000000a80425fb" in text
    assert "inside\n" in text
    assert "Read-only file system" in text
    assert all(f"\n{name}\n" in text for name in ("full", "null", "ptmx", "pts", "random", "shm", "urandom", "zero"))


def test_no_other_device_works(rootfs: Path) -> None:
    """A node can be made, since docker's default lets it, and not be opened: no device group stands in between."""
    _, text = run(
        rootfs, config("sh", "-c", "mknod /tmp/disk b 254 0 && cat /tmp/disk; mknod /dev/m c 1 1 && cat /dev/m")
    )
    assert text.count("Permission denied") == 2


def test_a_user_with_limits_and_a_directory(rootfs: Path) -> None:
    """Without capabilities, HOME from the image's passwd, a working directory that no layer has."""
    made = config(
        "sh",
        "-c",
        "id -u; id -g; id -G; pwd; echo $HOME; ulimit -n; cat /proc/self/status",
        user=oci.User(1000, 1000, (7,)),
        cwd="/srv/work",
        rlimits=(oci.Rlimit("RLIMIT_NOFILE", 64, 128),),
        no_new_privileges=True,
    )
    _, text = run(rootfs, made)
    assert text.startswith("1000\n1000\n1000 7\n/srv/work\n/home/ann\n64\n")
    assert "CapEff:\t0000000000000000" in text
    assert "NoNewPrivs:\t1" in text


def test_writes_go_to_the_upper_layer(rootfs: Path, tmp_path: Path) -> None:
    """Copied on write; the lower one is as it was. A read-only root takes none."""
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    overlay = Overlay((str(rootfs),), str(tmp_path / "upper"), str(tmp_path / "work"))
    made = config("sh", "-c", "echo x > /etc/new; rm /bin/tty; rm -r /root && mkdir /root", root=oci.Root("merged"))
    assert run(rootfs, made, overlay=overlay) == (0, "")
    assert (tmp_path / "upper/etc/new").read_text() == "x\n"
    assert (tmp_path / "upper/bin/tty").is_char_device()
    assert (rootfs / "bin/tty").exists()
    assert not (rootfs / "etc/new").exists()
    sealed = replace(made, root=oci.Root("rootfs", readonly=True))
    assert "Read-only file system" in run(rootfs, sealed)[1]


def test_exec_joins_all_namespaces(rootfs: Path) -> None:
    """And is a child of who asked; its exit code is its own."""
    one = Container.create(config("sleep", "100"), id="t", bundle=str(rootfs.parent))
    one.start()
    reading, writing = os.pipe()
    process = oci.Process(("sh", "-c", "hostname; ps | wc -l; readlink /proc/self/ns/net; exit 9"), env=("PATH=/bin",))
    (rootfs / "bin/wc").symlink_to("busybox")
    joined = one.exec(process, (0, writing, writing))
    os.close(writing)
    with os.fdopen(reading) as file:
        name, _, space = file.read().split()
    assert joined.wait(5) == 9
    assert name == "inside"
    assert space == os.readlink(f"/proc/{one.pid}/ns/net")  # noqa: PTH115 - no path
    for program, code in (("nope", 127), ("/etc", 126)):
        with pytest.raises(ContainerError) as told:
            one.exec(oci.Process((program,), env=("PATH=/bin",)))
        assert told.value.code == code
    one.delete(force=True)
    joined.close()


def test_a_terminal_is_the_container_s_own(rootfs: Path) -> None:
    """Its console, of the size that was asked for."""
    made = config(
        "sh", "-c", "tty; stty size; read x; echo got $x", terminal=True, console_size=oci.ConsoleSize(30, 90)
    )
    one = Container.create(made, id="t", bundle=str(rootfs.parent))
    one.start()
    text = b""
    while b"90" not in text:  # what is typed before is echoed in between
        text += os.read(one.console, 4096)
    os.write(one.console, b"abc\n")
    while b"got" not in text:
        text += os.read(one.console, 4096)
    assert b"/dev/pts/0\n30 90\n" in text.replace(b"\r", b"")
    assert one.wait(5) == 0
    one.delete()


def test_an_init_reaps_and_hands_signals_on(rootfs: Path) -> None:
    """The program is its child, and can be ended by TERM."""
    made = config("sh", "-c", "trap 'exit 3' TERM; (sleep 0.01 &); sleep 0.3; ps; kill -TERM 1; sleep 5 & wait")
    code, text = run(rootfs, made, init=True)
    assert code == 3
    assert "docker-init" in text
    assert "[sleep]" not in text


def test_namespaces_can_be_shared(rootfs: Path) -> None:
    """Another container's network and processes; the caller's own by leaving a kind out."""
    one = Container.create(config("sleep", "100"), id="a", bundle=str(rootfs.parent))
    one.start()
    shared = tuple(
        oci.Namespace(kind, f"/proc/{one.pid}/ns/{name}" if name else "")
        for kind, name in (("mount", ""), ("pid", "pid"), ("network", "net"), ("ipc", ""), ("cgroup", ""))
    )
    made = config("sh", "-c", "readlink /proc/self/ns/net; ps", hostname="", linux=oci.Linux(shared))
    _, text = run(rootfs, made)
    assert text.startswith(os.readlink(f"/proc/{one.pid}/ns/net"))  # noqa: PTH115 - no path
    assert "sleep 100" in text
    one.delete(force=True)
