"""The table of docs/runtime.md is the contract: each row is tried as root, as a user with a range of ids, as one without."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import msgspec
import pytest

from doctor.runtime import cgroups, control, oci, userns
from doctor.runtime.container import Container, ContainerError
from doctor.runtime.host import Lab, LabError
from doctor.runtime.mounts import Overlay
from doctor.runtime_commands import bring_up
from tests.meta.repository import ROOT
from tests.runtime.columns import COLUMNS, become, forget
from tests.runtime.conftest import make_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

replace = msgspec.structs.replace
_PLACE = Path("/srv/root")


def table() -> dict[str, tuple[str, ...]]:
    """Read the table: for each feature the words of its three columns."""
    text = (ROOT / "docs/runtime.md").read_text(encoding="utf-8").partition("## What works without root")[2]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    return {
        row[0].strip(): tuple(word.strip() for word in row[1:])
        for row in rows
        if row[0].strip() not in {"feature", "---"}
    }


def _sh(script: str) -> Callable[[Lab], bool]:
    return lambda lab: lab.run(("sh", "-c", script)).returncode == 0


def _inside(function: Callable[[], bool], lab: Lab) -> bool:
    pid = lab.fork(lambda: 0 if function() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _contained(*args: str, user: oci.User | None = None, overlay: bool = False, terminal: bool = False) -> bool:
    """Run a container in the lab; true when it ends with 0."""
    if not _PLACE.exists():
        make_root(_PLACE)
    layers = None
    made = oci.default(args, rootfs=str(_PLACE))
    made = replace(made, process=replace(made.process, user=user or oci.User(), terminal=terminal))
    if overlay:
        for name in ("upper", "work", "merged"):
            Path(f"/srv/{name}").mkdir()
        layers = Overlay((str(_PLACE),), "/srv/upper", "/srv/work")
        made = replace(made, root=oci.Root("/srv/merged"))
    try:
        one = Container.create(made, id="t", overlay=layers)
        one.start()
    except ContainerError as error:
        os.write(2, f"{error}\n".encode())
        return False
    return one.wait(20) == 0


def _trusted() -> bool:
    Path("/srv/file").write_text("", encoding="utf-8")
    try:
        os.setxattr("/srv/file", "trusted.x", b"y")
    except PermissionError:
        return False
    return True


def _low_port() -> bool:
    with socket.create_server(("198.51.100.2", 80)):
        return True


def _has_rules(lab: Lab) -> bool:
    script = "iptables -A FORWARD -j DROP && ip6tables -t nat -A POSTROUTING -j MASQUERADE && nft add table ip x"
    return _sh(script)(lab)


def _has_groups(_: Lab) -> bool:
    try:
        Lab.up(f"limits{os.getpid()}", groups=True).down()
    except LabError:
        return False
    return True


def _has_daemon(_: Lab) -> bool:
    """Whether a published port answers from outside, and doctor finds nothing wrong."""
    with bring_up(f"daemon{os.getpid()}", "28", {}, detach=False) as lab:
        page = "mkdir /tmp/www && echo works > /tmp/www/index.html && exec httpd -f -h /tmp/www"
        ran = lab.run(("docker", "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", page))
        asked = lab.fork(_asks, outside=True)
        answered = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]) == 0
        checked = lab.run(("doctor", "check"))
        os.write(2, ran.stderr + checked.stdout + checked.stderr)
        return (ran.returncode, answered, checked.returncode) == (0, True, 0)


def _asks() -> int:
    """Ask the published port, for as long as a server may take to start."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("198.51.100.2", 8080), timeout=2) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            text = b""
            while chunk := sock.recv(4096):
                text += chunk
            if b"works" in text:
                return 0
        time.sleep(0.05)
    return 1


_USER = oci.User(1000, 1000)
PROBES: dict[str, Callable[[Lab], bool]] = {
    "a host with a network of its own, and one beside it": _sh("ip link show eth0 && ip route get 203.0.113.7"),
    "bridges and veth pairs": _sh("ip link add br9 type bridge && ip link add v0 type veth peer name v1"),
    "firewall rules, with iptables and nft": _has_rules,
    "sysctls of the network": _sh("echo 1 > /proc/sys/net/ipv4/ip_forward"),
    "mounts: tmpfs, bind": _sh("mount -t tmpfs x /mnt && mount --bind /etc /mnt"),
    "containers, exec, terminals": partial(_inside, partial(_contained, "true", terminal=True)),
    "a daemon with its API, `docker run`, published ports; `doctor check` is clean": _has_daemon,
    "layers with copy on write (overlay)": partial(
        _inside,
        partial(_contained, "sh", "-c", "rm -r /etc && mkdir /etc && touch /etc/x && rm /bin/tty", overlay=True),
    ),
    "ports below 1024": partial(_inside, _low_port),
    "processes of another user (USER 1000)": partial(_inside, partial(_contained, "true", user=_USER)),
    "supplementary groups": partial(_inside, partial(_contained, "true", user=oci.User(0, 0, (7,)))),
    "files of other owners (chown)": _sh("touch /srv/f && chown 1000:1000 /srv/f"),
    "device nodes (mknod)": _sh("mknod /srv/null c 1 3"),
    "changing the machine's files in /usr (copied on write)": _sh("rm -r /usr/share/doc"),
    "limits of memory, processes and processors (control groups, opt-in)": _has_groups,
    "trusted.* attributes": partial(_inside, _trusted),
}


def missing() -> set[str]:
    """Name the rows that this machine has not what is needed for."""
    found = set()
    if shutil.which("iptables") is None or shutil.which("nft") is None:
        found |= {name for name, probe in PROBES.items() if probe is _has_rules}
    if not any(one.controllers for one in cgroups.hierarchies()):
        found |= {name for name, probe in PROBES.items() if probe is _has_groups}
    return found


def test_every_row_has_a_probe() -> None:
    """And every probe a row; a word begins with yes or no."""
    rows = table()
    assert set(rows) == set(PROBES)
    assert all(word.startswith(("yes", "no")) for words in rows.values() for word in words)


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Take the user away again that was made for a column."""
    yield
    forget()


@pytest.mark.root
@pytest.mark.parametrize("column", COLUMNS)
def test_each_row_is_so(column: str) -> None:
    """What the table says can be done is done in a lab; what it says cannot, fails."""
    rows, number, without = table(), COLUMNS.index(column), missing()

    def tried() -> int:
        wrong = []
        with Lab.up(f"privileges-{number}") as lab:
            for name, probe in PROBES.items():
                if name not in without and probe(lab) != rows[name][number].startswith("yes"):
                    wrong.append(name)
        os.write(2, "".join(f"{column}: {name}\n" for name in wrong).encode())
        return len(wrong)

    assert become(column, tried) == 0


@pytest.mark.root
def test_the_columns_are_what_they_are_called() -> None:
    """A user with a range maps it, a plain one does not."""
    codes = {"plain": 3, "subuid": 4}
    for column, code in (("user with subuid", 4), ("plain user", 3)):
        assert become(column, lambda: codes[userns.available().privilege]) == code


@pytest.mark.root
@pytest.mark.parametrize("column", COLUMNS)
def test_what_may_not_be_looked_into_gives_its_network_away(column: str) -> None:
    """Whose Python is his own has containers among others' processes too: /proc/PID/ns is shut there, but to root."""

    def tried() -> int:
        access = os.access
        with (
            mock.patch("os.access", lambda path, mode: path == "/proc/self/exe" or access(path, mode)),
            bring_up(f"seen{os.getpid()}", "28", {}, detach=False) as lab,
        ):
            for words in ("-d --name web busybox sleep 100", "--rm --pid host busybox ip addr show eth0"):
                ran = lab.run(("docker", "run", *words.split()))
                os.write(2, ran.stderr)
                if ran.returncode:
                    return ran.returncode
            return lab.run(("docker", "run", "--rm", "--pid", "container:web", "busybox", "true")).returncode

    assert become(column, tried) == 0


@pytest.mark.root
def test_a_lab_is_its_user_s() -> None:
    """Another user neither asks it, nor takes its name to be asked instead."""
    name = f"mine{os.getpid()}"

    def stranger() -> int:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(control.address(name, 0))
        with suppress(BrokenPipeError):  # it is refused before it asks
            control.send(sock, {"do": "down"})
        refused = control.receive(sock) == ({}, [])
        squatter = control.listen(control.address(f"{name}-too", 0))
        pid = os.fork()
        if pid == 0:
            time.sleep(3)
            squatter.close()
            os._exit(0)
        return 0 if refused else 1

    with Lab.up(name) as lab:
        assert become("plain user", stranger) == 0
        assert lab.run(("true",)).returncode == 0
        with pytest.raises(LabError, match="its name is taken by another user"):
            Lab.attach(f"{name}-too")


@pytest.mark.root
def test_a_kernel_that_forbids_is_named() -> None:
    """Where no user namespace can be made, the message says which sysctl, and what to do."""

    def refused() -> int:
        try:
            Lab.up("never").down()
        except LabError as error:
            return 0 if "user.max_user_namespaces is 0: sysctl -w user.max_user_namespaces=15000" in str(error) else 2
        return 3

    def without() -> int:
        # The limit of a user namespace of our own is ours to set: the machine's stays as it is.
        from doctor.linux import syscalls

        syscalls.unshare(syscalls.CLONE_NEWUSER)
        userns.write_own_map(userns.Ids(65534, 65534))
        Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="utf-8")
        os.setresuid(0, 0, 0)
        return _as_a_user(refused)

    assert become("plain user", without) == 0


def _as_a_user(function: Callable[[], int]) -> int:
    """Call it with an effective uid that is not 0, as far as it can tell: there is no other in this namespace."""
    os.geteuid = lambda: 65534  # type: ignore[assignment]  # this process ends here
    return function()


@pytest.mark.parametrize(
    ("files", "number", "words"),
    [
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, 1, "kernel.unprivileged_userns_clone=1"),
        ({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, 13, "`userns,`"),
        ({"/proc/sys/user/max_user_namespaces": "0"}, 28, "user.max_user_namespaces=15000"),
        ({"/proc/sys/user/max_user_namespaces": "9"}, 28, "is used up"),
        ({}, 22, "CONFIG_USER_NS"),
        ({"/proc/self/status": "Name:\tx\nSeccomp:\t2\n"}, 1, "seccomp=unconfined"),
        ({"/sys/fs/selinux/enforce": "1"}, 1, "ausearch"),
        ({}, 1, "or run it as root"),
    ],
)
def test_why_a_kernel_refuses(files: dict[str, str], number: int, words: str) -> None:
    """Each reason that is known, from what the machine says of itself."""
    assert words in userns.refusal(OSError(number, os.strerror(number)), lambda path: files.get(path, ""))
