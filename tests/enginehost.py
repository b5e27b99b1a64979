"""Real Docker hosts on one machine: the fixture of `tests/engine/`, and a small command line for developers.

A host is a real dockerd of one of three generations in its own network, mount, pid, uts, ipc and cgroup namespaces, on
a copy-on-write Debian root, with doctor installed as of the present checkout, and a network "outside" beside it:
outside is 198.51.100.1, the host's eth0 is 198.51.100.2. Needs root, overlayfs and (once a suite) mmdebstrap.

    with EngineHost.up(suite="sid") as host:
        host.docker("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "serve")
        assert host.connect("outside", HOST_IP, 8080) == "connected"
        assert host.doctor("check").returncode == 0

    python -m tests.enginehost up NAME [--suite SUITE] [-- dockerd arguments]   (then: in, out, doctor, down, list, build)

Roots are cached in `$DOCTOR_ENGINE_DIR`, else in `doctor-engines` in the user's cache folder. Three layers are stacked
below a host, each built once and named by a hash of what it is made of: the Debian root, doctor's dependencies in the
venv /opt/doctor, and doctor itself in /opt/src, byte-compiled.

Two processes run a host. The *supervisor* lives in the network outside and holds the end of a pipe of the process that
asked for the host: when that one goes, however it goes, the supervisor kills the host and removes every trace. *init*
is the host's pid 1: it reaps, and runs commands and opens files in the host for whoever speaks to its socket.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SUITES = {"bookworm": "20.10", "trixie": "26.1", "sid": "28.5"}
"""Debian suite → the Docker release that it has."""

IMAGE = "busybox:lab"
"""The image of every host. Its commands `idle`, `serve [PORT]` and `echod PORT` end at once when docker stops them."""

OUTSIDE_IP = "198.51.100.1"
HOST_IP = "198.51.100.2"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CHECKOUT = Path(__file__).resolve().parent.parent
_RECIPE = 1  # part of every key: raise it when a layer is built in another way
_PACKAGES = (
    "ca-certificates",
    "conntrack",
    "curl",
    "docker.io",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "iputils-ping",
    "busybox-static",
    "kmod",
    "mount",  # not in the essential variant, and /etc/init.d/docker calls it
    "nftables",
    "procps",
    "python3",
    "python3-venv",
    "tcpdump",
    "strace",
    "util-linux",
)
_APPLETS = (
    "[ arp arping ash awk base64 basename cat chgrp chmod chown clear cmp cp cut date dd df diff dirname dmesg du echo "
    "egrep env expr false fgrep find free grep gunzip gzip head hexdump hostname httpd id ifconfig ip kill killall "
    "ln ls md5sum mkdir mkfifo mknod mktemp more mount mv nc netstat nohup nproc nslookup od pgrep pidof ping ping6 "
    "pkill printf ps pwd readlink realpath rm rmdir route sed seq setsid sh sha256sum sleep sort stat stty sync sysctl "
    "tail tar tee telnet test time timeout top touch tr traceroute traceroute6 true truncate tty udhcpc umount uname "
    "uniq unshare uptime usleep vi watch wc wget which whoami xargs yes"
)
_SCRIPTS = {
    # Plain `sleep` as pid 1 ignores SIGTERM, and docker stop would wait ten seconds for it.
    "bin/idle": 'trap "exit 0" TERM INT\nwhile :; do sleep 86400 & wait $!; done\n',
    "bin/serve": 'trap "exit 0" TERM INT\nhttpd -f -p "${1:-80}" -h /www & wait $!\n',
    "bin/echod": 'trap "exit 0" TERM INT\nnc -ll -p "$1" -e cat & wait $!\n',
    "www/cgi-bin/peer": 'printf "Content-Type: text/plain\\r\\n\\r\\n%s %s\\n" "$REMOTE_ADDR" "$(hostname)"\n',
}

_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SHARED = 4096, 16384, 1 << 18, 1 << 20
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MNT_DETACH = 2, 4, 8, 2
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = 1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 29, 1 << 30
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


class EngineError(Exception):
    """A host or its root could not be made, or its dockerd did not do what was asked."""


class Unavailable(EngineError):  # noqa: N818 - a state of this machine, the reason of a skip
    """This machine cannot run engine hosts; the message says why."""


class CommandError(subprocess.CalledProcessError):
    """A command in a host failed; unlike its base it says what the command printed."""

    def __str__(self) -> str:
        """Status and output of the command."""
        return f"{super().__str__()}\n{self.stdout or ''}{self.stderr or ''}".rstrip()


def unavailable() -> str | None:
    """Why this machine cannot run engine hosts; None when it can."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        return "needs overlayfs"
    if re.search("[:,\\s]", str(cache_dir())):
        return f"needs a cache folder whose name fits into the options of a mount, not {cache_dir()}"
    place = next(path for path in (cache_dir(), *cache_dir().parents) if path.exists())
    kind = subprocess.run(["stat", "-f", "-c", "%T", place], check=False, capture_output=True, text=True).stdout.strip()
    if kind == "overlayfs":
        return f"needs DOCTOR_ENGINE_DIR on a file system of its own: {place} is on an overlay"
    if missing := [tool for tool in ("ip", "mount", "chroot", "unshare", "nsenter") if not shutil.which(tool)]:
        return f"needs {', '.join(missing)}"
    if subprocess.run(["unshare", "-nmpuiCf", "true"], check=False, capture_output=True).returncode:
        return "needs the right to unshare namespaces"
    if not shutil.which("mmdebstrap") and not shutil.which("apt-get") and not all(map(_root_is_built, SUITES)):
        return "needs mmdebstrap"
    return None


# --------------------------------------------------------------------------------------------------------------------
# Layers


def cache_dir() -> Path:
    """Where layers and the state of running hosts are kept; never in the checkout."""
    if chosen := os.environ.get("DOCTOR_ENGINE_DIR"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "doctor-engines"


def build_root(suite: str) -> Path:
    """The folder of the suite's Debian root with Docker in it; built (20-60 s) when it is not there."""
    if suite not in SUITES:
        raise ValueError(f"no suite {suite!r}; there are {', '.join(SUITES)}")
    return _layer(_root_name(suite), lambda top: _bootstrap(suite, top))


def install_dependencies(suite: str) -> Path:
    """The layer with the venv /opt/doctor and what pyproject.toml says that doctor needs."""
    wanted = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    root = build_root(suite)
    return _layer(f"deps-{suite}-{_key(root.parent.name, wanted)}", lambda top: _make_venv(root, wanted, top))


def install_source(suite: str) -> Path:
    """The layer with the checkout's `doctor/` in /opt/src, byte-compiled by the suite's Python (0.3 s a change)."""
    folder = _CHECKOUT / "doctor"
    files = {
        path.relative_to(_CHECKOUT): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    root = build_root(suite)
    key = _key(root.parent.name, [(str(path), hashlib.sha256(data).hexdigest()) for path, data in files.items()])

    def make(top: Path) -> None:
        for path, data in files.items():
            (top / "opt/src" / path).parent.mkdir(parents=True, exist_ok=True)
            (top / "opt/src" / path).write_bytes(data)
        # A file that does not compile is for a test to find, not for us.
        _run_in_root([root], top, ["python3", "-m", "compileall", "-q", "/opt/src"], check=False)

    return _layer(f"src-{suite}-{key}", make)


def _root_name(suite: str) -> str:
    extra = () if suite == "bookworm" else ("docker-cli",)  # split off docker.io after bookworm
    return f"root-{suite}-{_key(*_PACKAGES, *extra)}"


def _root_is_built(suite: str) -> bool:
    return (cache_dir() / _root_name(suite) / "complete").exists()


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([_RECIPE, *parts]).encode()).hexdigest()[:12]


def _layer(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of a layer; made under a lock, in a temporary folder, when no session has made it yet."""
    cache = cache_dir()
    layer = cache / name
    if not (layer / "complete").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "lock"):
            if not (layer / "complete").exists():
                _prune(cache)
                with (
                    _umask(0o022),
                    tempfile.TemporaryDirectory(prefix=".new-", dir=cache, ignore_cleanup_errors=True) as folder,
                ):
                    new = Path(folder) / name
                    (new / "top").mkdir(parents=True)
                    make(new / "top")
                    (new / "complete").touch()
                    new.rename(layer)
    os.utime(layer / "complete")  # last used
    return layer / "top"


def _prune(cache: Path, days: int = 7) -> None:
    """Remove layers that nobody used for a while, and what crashed sessions left half made. The lock is held."""
    for folder in (*cache.glob("src-*"), *cache.glob("deps-*"), *cache.glob("root-*")):
        with contextlib.suppress(OSError):
            if time.time() - (folder / "complete").stat().st_mtime > days * 86400:
                shutil.rmtree(folder)
    for folder in cache.glob(".new-*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bootstrap(suite: str, top: Path) -> None:
    """Make a minimal Debian with Docker in `top`."""
    if not shutil.which("mmdebstrap"):
        _install_mmdebstrap()
    extra = [] if suite == "bookworm" else ["docker-cli"]
    argv = [
        "mmdebstrap",
        "--variant=essential",
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f"--include={','.join([*_PACKAGES, *extra])}",
        suite,
        str(top),
    ]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise EngineError(f"mmdebstrap {suite} failed: {done.stderr[-2000:]}")
    # /etc/init.d/docker raises limits with `set -e`, and gives up where root may not raise them (a CI container).
    script = top / "etc/init.d/docker"
    text = script.read_text(encoding="utf-8")
    script.write_text(re.sub(r"(?m)^(\s+ulimit -\w \w+)$", r"\1 2>/dev/null || :", text), encoding="utf-8")
    # The init script leaves cgroups alone where fstab speaks of them; else it would try to mount more, at each start.
    with (top / "etc/fstab").open("a", encoding="utf-8") as fstab:
        fstab.write("cgroup /sys/fs/cgroup tmpfs defaults 0 0\n")


def _install_mmdebstrap() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable("needs mmdebstrap")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["update", "-q"], ["install", "-qy", "--no-install-recommends", "mmdebstrap"]):
        done = subprocess.run(["apt-get", *argv], check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise Unavailable(f"mmdebstrap cannot be installed: {done.stderr.strip()[-300:]}")


def _make_venv(root: Path, wanted: Sequence[str], top: Path) -> None:
    """Make /opt/doctor in `top`: a venv with the packages `wanted`, and a script `doctor` as pip would write it."""
    env, binds = _pip_settings()
    with tempfile.TemporaryDirectory(dir=top.parent, ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        for path in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
            if Path("/", path).exists():
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path("/", path), scratch / path)
        script = 'python3 -m venv /opt/doctor && exec /opt/doctor/bin/pip install -q "$@"'
        _run_in_root([root], scratch, ["sh", "-c", script, "sh", *wanted], env=env, binds=binds)
        (top / "opt").mkdir()
        (scratch / "opt/doctor").rename(top / "opt/doctor")
    (site,) = (top / "opt/doctor/lib").glob("python3.*/site-packages")
    (site / "doctor.pth").write_text("/opt/src\n", encoding="utf-8")
    script_file = top / "opt/doctor/bin/doctor"
    script_file.write_text(
        "#!/opt/doctor/bin/python\nimport sys\nfrom doctor.__main__ import main\nsys.exit(main())\n", encoding="utf-8"
    )
    script_file.chmod(0o755)
    (top / "usr/local/bin").mkdir(parents=True)
    (top / "usr/local/bin/doctor").symlink_to("/opt/doctor/bin/doctor")


def _pip_settings() -> tuple[dict[str, str], list[Path]]:
    """What this machine tells its pip, as environment, and the local files and folders that it names."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], check=False, capture_output=True).returncode:
        pip = ["pip"] if shutil.which("pip") else ["true"]
    listed = subprocess.run([*pip, "config", "list"], check=False, capture_output=True, text=True).stdout
    env: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in {"global", "install"}:
            env[f"PIP_{key.upper().replace('-', '_')}"] = str(ast.literal_eval(value))
    env = {name: value for name, value in (env | os.environ).items() if _PIP_VARIABLES.fullmatch(name)}
    env |= {
        name: value for name, value in os.environ.items() if name in _WEB_VARIABLES or name.lower() in _WEB_VARIABLES
    }
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = env["PIP_NO_CACHE_DIR"] = "1"
    env["PIP_ROOT_USER_ACTION"] = "ignore"
    binds = []
    for url, text in re.findall(r"(?<!\S)(file://)?(/[^\s'\"]+)", " ".join(env.values())):
        path = Path(text)
        # The pages of a folder that serves as an index link to files beside it.
        if path.exists():
            binds.append(path.parent if url and path.parent.parent != path.parent else path)
    return env, sorted(set(binds))


# What a machine may tell its pip about where packages come from; where they go is ours to say.
_PIP_VARIABLES = re.compile(
    "PIP_(CERT|CLIENT_CERT|CONSTRAINT|DEFAULT_TIMEOUT|EXTRA_INDEX_URL|FIND_LINKS|INDEX_URL|NO_INDEX|ONLY_BINARY"
    "|PREFER_BINARY|PROXY|RETRIES|TIMEOUT|TRUSTED_HOST)"
)
_WEB_VARIABLES = {"all_proxy", "http_proxy", "https_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"}
_IN_ROOT = """\
set -e
root=$1; options=$2; shift 2
mount -t overlay overlay "$root" -o "$options"
mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do mount --bind "$1" "$root$1"; shift; done; shift
exec chroot "$root" "$@"
"""


def _run_in_root(
    lower: Sequence[Path],
    upper: Path,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    binds: Sequence[Path] = (),
    check: bool = True,
) -> None:
    """Run a command in a root while it is built: on the layers `lower`, what it writes lands in `upper`."""
    with tempfile.TemporaryDirectory(dir=upper.parent, ignore_cleanup_errors=True) as folder:
        merged, work = Path(folder, "merged"), Path(folder, "work")
        merged.mkdir()
        work.mkdir()
        for path in binds:
            target = upper / path.relative_to("/")
            (target if path.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                target.touch()
        options = f"lowerdir={':'.join(map(str, lower))},upperdir={upper},workdir={work}"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", _IN_ROOT, "sh", str(merged), options, *map(str, binds), "--", *argv],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **(env or {})},
        )
    if check and done.returncode:
        raise EngineError(f"{' '.join(argv)[:200]} failed in {lower[-1]}: {(done.stderr or done.stdout)[-2000:]}")


# --------------------------------------------------------------------------------------------------------------------
# Supervisor and init


class _Kernel:
    """The system calls that Python 3.11 lacks."""

    _libc = ctypes.CDLL(None, use_errno=True)

    def __getattr__(self, name: str) -> Callable[..., None]:
        function = getattr(self._libc, name)

        def call(*arguments: str | int | None) -> None:
            if function(*[a.encode() if isinstance(a, str) else a for a in arguments]) == -1:
                code = ctypes.get_errno()
                raise OSError(code, f"{name}{arguments}: {os.strerror(code)}")

        return call


_kernel = _Kernel()


def _start_time(pid: int) -> str:
    """When the process started, in ticks since boot: with the pid, its identity. Empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _cgroup_mounts() -> list[tuple[Path, str]]:
    """Where cgroup hierarchies are mounted on this machine, each with its file system type."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        place, kind = left.split()[4], right.split()[0]
        if kind in {"cgroup", "cgroup2"} and (place + "/").startswith("/sys/fs/cgroup/"):
            found.append((Path(place), kind))
    return found


def _make_cgroups(name: str) -> None:
    """One group in every hierarchy: the root of the host's own view of cgroups."""
    for place, kind in _cgroup_mounts():
        group = place / name
        group.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if kind == "cgroup" and (group / file).exists():  # empty in a new group, which then can hold no process
                (group / file).write_bytes((place / file).read_bytes())
        if kind == "cgroup2":
            (group / "init").mkdir()


def _join_cgroups(name: str) -> None:
    """Move this process into its groups and make them the root of what it sees."""
    groups = [(place / name, kind) for place, kind in _cgroup_mounts()]
    for group, _ in groups:
        (group / "cgroup.procs").write_bytes(b"0")
    _kernel.unshare(_NEWCGROUP)
    for group, kind in groups:
        if kind == "cgroup2":  # a v2 group with processes in it cannot hand controllers down
            (group / "init/cgroup.procs").write_bytes(b"0")


def _remove_cgroups(name: str) -> None:
    """Kill what is left in the groups and remove them; a group stays busy for a moment after its processes are gone."""
    _thaw(name)
    for _ in range(200):
        groups = [place / name for place, _ in _cgroup_mounts() if (place / name).exists()]
        if not groups:
            return
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    for pid in _pids_in(Path(folder)):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _thaw(name: str) -> None:
    """Let go of paused containers: a process in a frozen v1 group does not die."""
    for place, kind in _cgroup_mounts():
        if kind == "cgroup":
            for state in (place / name).glob("**/freezer.state"):
                with contextlib.suppress(OSError):
                    state.write_text("THAWED", encoding="ascii")


def _pids_in(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text(encoding="ascii").split() if int(pid) > 0]
    except OSError:
        return []


def _sweep() -> None:
    """Remove what hosts left whose supervisor was killed too."""
    run = cache_dir() / "run"
    run.mkdir(parents=True, exist_ok=True)
    with _locked(run / ".sweep"):
        names = {path.name for path in run.glob("*.*.*")}
        names |= {
            path.name.removeprefix("doctor-engine.")
            for place, _ in _cgroup_mounts()
            for path in place.glob("doctor-engine.*")
        }
        for name in names:
            _, pid, started = name.rsplit(".", 2)
            if pid.isdecimal() and _start_time(int(pid)) != started:
                _remove_cgroups(f"doctor-engine.{name}")
                shutil.rmtree(run / name, ignore_errors=True)


def _supervise() -> None:
    """Make a host, say so on standard output, wait for its end or for the end of who asked for it; remove all of it."""
    os.umask(0o022)
    config = json.loads(sys.stdin.readline())
    name = f"{config['name']}.{os.getpid()}.{_start_time(os.getpid())}"
    state = Path(config["cache"], "run", name)
    woken, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    init = 0
    try:
        _make_state(state, config["name"])
        _make_cgroups(f"doctor-engine.{name}")
        init = _start_init(config, state, name)
        known = {"state": str(state), "init": init, "suite": config["suite"]}
        (state / "host.json").write_text(json.dumps(known), encoding="utf-8")
        sys.stdout.write(json.dumps(known) + "\n")
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        poller = select.poll()
        for fd in (woken, os.pidfd_open(init), *([0] if config["lifeline"] else [])):
            poller.register(fd, select.POLLIN | select.POLLHUP)
        poller.poll()
    finally:
        if init:
            os.kill(init, signal.SIGKILL)  # and with it every process of the host
            _thaw(f"doctor-engine.{name}")
            os.waitpid(init, 0)
        _kill_outside()
        _remove_cgroups(f"doctor-engine.{name}")
        for _ in range(20):
            shutil.rmtree(state, ignore_errors=True)
            if not state.exists():
                break
            time.sleep(0.05)


def _make_state(state: Path, name: str) -> None:
    """The folder of a host; `upper` is what it writes into its root, and begins with its names."""
    for folder in ("upper/etc/docker", "work", "root", "docker"):
        (state / folder).mkdir(parents=True)
    etc = state / "upper/etc"
    (etc / "hostname").write_text(f"{name}\n", encoding="utf-8")
    (etc / "hosts").write_text(
        f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n", encoding="utf-8"
    )
    (etc / "resolv.conf").write_text(f"nameserver {OUTSIDE_IP}\n", encoding="utf-8")


def _start_init(config: dict[str, Any], state: Path, name: str) -> int:
    """Go outside, start init in namespaces of its own, and lay the link between the two; its pid once it serves."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _short_path(state / "in") as path:
        listener.bind(path)
    listener.listen(64)
    ours, theirs = socket.socketpair()
    _kernel.unshare(_NEWNET)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    _kernel.unshare(_NEWPID)
    init = os.fork()
    if not init:
        ours.close()
        _become_init(config, state, name, listener, theirs)
    theirs.close()
    _kernel.setns(own, _NEWPID)  # only init is a child in the host
    serves = False
    try:
        if ours.recv(1):  # it has a network
            _ip(
                "link set lo up",
                # With both ends numbered alike the kernel would take up to a second to see that eth0 has a carrier.
                f"link add o0 index 100 type veth peer name eth0 netns {init}",
                f"addr add {OUTSIDE_IP}/24 dev o0",
                "link set o0 up",
            )
            ours.send(b".")
            serves = bool(ours.recv(1))
    finally:
        if not serves:
            os.kill(init, signal.SIGKILL)
            os.waitpid(init, 0)
    if not serves:
        raise EngineError("init failed, see above")
    return init


def _kill_outside() -> None:
    """Kill what was started in the network outside, ourselves excepted."""
    own = Path("/proc/self/ns/net").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.name != str(os.getpid()) and (entry / "ns/net").readlink() == own:
                os.kill(int(entry.name), signal.SIGKILL)


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A name for a socket that fits into the 107 bytes of a socket's address."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _ip(*lines: str) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=False, capture_output=True)
    if done.returncode:
        raise EngineError(f"ip: {done.stderr.strip()}")


def _become_init(
    config: dict[str, Any], state: Path, name: str, listener: socket.socket, parent: socket.socket
) -> NoReturn:
    """Pid 1 of the host: take on its namespaces and its root, then serve until killed."""
    try:
        _kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        groups = _cgroup_mounts()
        _join_cgroups(f"doctor-engine.{name}")
        _kernel.unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWNET)
        parent.send(b".")
        _mount_root(config["layers"], state, name, groups)
        socket.sethostname(config["name"])
        parent.recv(1)  # eth0 is there
        _ip(
            "link set lo up",
            f"addr add {HOST_IP}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {OUTSIDE_IP}",
        )
        os.chdir(state / "root")
        _kernel.pivot_root(".", ".")
        _kernel.umount2(".", _MNT_DETACH)
        os.chdir("/")
        _kernel.mount(None, "/", None, _MS_REC | _MS_SHARED, None)  # as systemd leaves it
        _kernel.prctl(_PR_SET_NAME, "init")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        parent.send(b".")
        _serve(listener)
    except BaseException:  # noqa: BLE001 - nothing may return into the supervisor's code
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def _mount_root(layers: Sequence[str], state: Path, name: str, groups: Sequence[tuple[Path, str]]) -> None:
    """Mount the host's root and everything below it that a running Debian has."""
    mount = _kernel.mount
    mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    os.chdir(state.parent.parent)  # relative names, for a mount's options end after one page
    here = state.relative_to(state.parent.parent)
    options = f"lowerdir={':'.join(layers)},upperdir={here}/upper,workdir={here}/work,volatile"
    mount("overlay", f"{state}/root", "overlay", 0, options)
    os.chdir(state / "root")
    quiet = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    mount("proc", "proc", "proc", quiet, None)
    mount("sysfs", "sys", "sysfs", quiet, None)
    mount("/dev", "dev", None, _MS_BIND, None)
    mount("devpts", "dev/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,mode=0620,ptmxmode=0666")
    mount("tmpfs", "dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, None)
    mount("tmpfs", "run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    mount("tmpfs", "tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    Path("var/lib/docker").mkdir(exist_ok=True)
    mount(f"{state}/docker", "var/lib/docker", None, _MS_BIND, None)
    top = Path("/sys/fs/cgroup")
    if groups and groups[0][0] != top:
        mount("tmpfs", "sys/fs/cgroup", "tmpfs", quiet, "mode=0755")
        for link in top.iterdir():
            if link.is_symlink():
                Path("sys/fs/cgroup", link.name).symlink_to(link.readlink())
    for place, _ in groups:
        Path(str(place)[1:]).mkdir(exist_ok=True)
        mount(f"{place}/doctor-engine.{name}", str(place)[1:], None, _MS_BIND, None)


def _serve(listener: socket.socket) -> NoReturn:
    """Reap, and do what is asked for on the socket: one connection per request, which for a command lives as long as it."""
    woken, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    poller.register(woken, select.EPOLLIN)
    callers: dict[int, int] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == woken:
                os.read(woken, 4096)
                _reap(running, callers)
            elif fd == listener.fileno():
                caller = listener.accept()[0]
                caller.settimeout(5)
                with contextlib.suppress(OSError, ValueError, KeyError):
                    pid = _answer(caller)
                    if pid:
                        running[pid] = caller
                        callers[caller.fileno()] = pid
                        poller.register(caller, select.EPOLLIN)
                        continue
                caller.close()
            elif pid := callers.pop(fd, 0):  # it hung up
                running.pop(pid).close()
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)


def _reap(running: dict[int, socket.socket], callers: dict[int, int]) -> None:
    """Take in every child that ended, and tell who asked for it."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if caller := running.pop(pid, None):
            callers.pop(caller.fileno())
            with contextlib.suppress(OSError):
                caller.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())
            caller.close()


def _answer(caller: socket.socket) -> int:
    """Do one request; the pid of the command when it was one."""
    data, fds, _, _ = socket.recv_fds(caller, 1 << 18, 3)
    request = json.loads(data)
    try:
        match request["do"]:
            case "run":
                pid = os.fork() or _exec(request, fds)
                caller.send(json.dumps({"pid": pid}).encode())
                return pid
            case "open":
                if request["flags"] & os.O_CREAT:
                    Path(request["path"]).parent.mkdir(parents=True, exist_ok=True)
                flags = request["flags"] | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
                fds.append(os.open(request["path"], flags, request["mode"]))
            case "read":  # here, for what /proc says depends on who reads
                fds.append(_copy(request["path"]))
            case "connect":
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(0)
                    sock.connect(request["path"])
                    fds.append(os.dup(sock.fileno()))
        socket.send_fds(caller, [b"{}"], fds)
    except OSError as error:
        caller.send(json.dumps({"errno": error.errno}).encode())
    finally:
        for fd in fds:
            os.close(fd)
    return 0


def _copy(path: str) -> int:
    source, copy = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK), os.memfd_create("copy")
    try:
        while data := os.read(source, 1 << 20):
            os.write(copy, data)
    except OSError:
        os.close(copy)
        raise
    finally:
        os.close(source)
    return copy


def _exec(request: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.chdir(request["cwd"])
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - as was asked
    except OSError as error:
        os.write(2, f"{request['argv'][0]}: {error.strerror}\n".encode())
    os._exit(127)


# --------------------------------------------------------------------------------------------------------------------
# Hosts


class Flow(NamedTuple):
    """A TCP connection to try: from "host", "outside" or a container's name, to an address and port."""

    frm: str
    ip: str
    port: int


class HttpAnswer(NamedTuple):
    """What a GET met: how the connection went, the answer, and for `/cgi-bin/peer` who answered and whom it saw."""

    outcome: str
    status: int = 0
    body: str = ""
    peer: str = ""
    server: str = ""


class Command:
    """A command that runs in a host. What it printed can be read at any time; a daemon that it leaves blocks nobody."""

    def __init__(self, argv: Sequence[str], pid: int, caller: socket.socket, outputs: tuple[int, int]) -> None:
        """Take over the connection to init and the files that the output goes to."""
        self.argv, self.pid, self.returncode = list(argv), pid, None
        self._caller, self._outputs = caller, outputs

    returncode: int | None

    def wait(self, timeout: float = 60) -> int:
        """The exit status (negative: the signal that killed it); the command is killed when `timeout` has passed."""
        if self.returncode is None:
            self._caller.settimeout(timeout)
            try:
                data = self._caller.recv(4096)
            except TimeoutError:
                self.kill()
                raise subprocess.TimeoutExpired(self.argv, timeout, self.stdout, self.stderr) from None
            if not data:
                raise EngineError(f"the host of {self.argv} is gone")
            self.returncode = json.loads(data)["status"]
            self._caller.close()
        return self.returncode

    def kill(self) -> None:
        """Kill it with all that it started in its session."""
        self._caller.close()
        self.returncode = -signal.SIGKILL if self.returncode is None else self.returncode

    @property
    def stdout(self) -> str:
        """What it wrote to standard output so far."""
        return self._output(0)

    @property
    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return self._output(1)

    def _output(self, which: int) -> str:
        size = os.fstat(self._outputs[which]).st_size
        return os.pread(self._outputs[which], size, 0).decode(errors="replace")

    def __del__(self) -> None:
        """Close the files of the output."""
        for fd in self._outputs:
            os.close(fd)


class Held:
    """A TCP connection to an echo service that is kept open."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        self.socket = sock
        self._sent = 0

    def alive(self, timeout: float = 1.0) -> bool:
        """Whether a new token comes back over the connection in time."""
        self._sent += 1
        token = f"<{self._sent}>".encode()
        self.socket.settimeout(timeout)
        try:
            self.socket.sendall(token)
            got = b""
            while token not in got:
                data = self.socket.recv(4096)
                if not data:
                    return False
                got += data
        except OSError:
            return False
        return True


class Listener:
    """An echo service in a network; `peers` are the addresses that its clients were seen with, oldest first."""

    def __init__(self, sock: socket.socket) -> None:
        """Serve on a listening socket until it is closed."""
        self.peers: list[str] = []
        self._socket, self._clients = sock, []
        threading.Thread(target=self._accept, daemon=True).start()

    _clients: list[socket.socket]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, address = self._socket.accept()
                self.peers.append(address[0])
                self._clients.append(client)
                threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    @staticmethod
    def _echo(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(4096):
                client.sendall(data)

    def close(self) -> None:
        """Stop listening and drop every client."""
        for sock in (self._socket, *self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


_LEFT = 3
"""Hosts that may be on their way down while others are at work."""


class EngineHost:
    """A running host; see the module. Made by `up` (lives as long as this process or until `down`) or `attach`."""

    _live: set[EngineHost] = set()  # noqa: RUF012 - the hosts of this process
    _leaving: list[EngineHost] = []  # noqa: RUF012 - those that are being taken down
    _count = 0

    def __init__(self, state: Path, init: int, suite: str) -> None:
        """Describe a host that runs: `state` is its folder, `init` the pid of its pid 1 as this machine sees it."""
        self.state, self.init, self.suite = state, init, suite
        self.name, supervisor, self._started = state.name.rsplit(".", 2)
        self.supervisor = int(supervisor)
        self.owner = os.getpid()
        self.log_path = "/var/log/docker.log"
        self._process: subprocess.Popen[str] | None = None
        self._version = ""
        self._args: tuple[str, ...] = ()

    @classmethod
    def up(
        cls,
        name: str | None = None,
        suite: str = "sid",
        daemon_args: Sequence[str] = (),
        daemon_json: Mapping[str, Any] | str | None = None,
        *,
        dockerd: bool = True,
        by_hand: bool = False,
        files: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> Self:
        """Start a host, with `files` (path → text) in it before its dockerd starts. Use it in a `with` statement.

        A `detached` host outlives this process, until `down`.
        """
        EngineHost._count += 1
        name = name or f"{suite}-{EngineHost._count}"
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,50}", name):
            raise ValueError(f"not a host's name: {name!r}")
        layers = [install_source(suite), install_dependencies(suite), build_root(suite)]
        _sweep()
        config = {
            "name": name,
            "suite": suite,
            "cache": str(cache_dir()),
            "layers": [str(layer.relative_to(cache_dir())) for layer in layers],
            "lifeline": not detached,
        }
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", __file__, "_supervise"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={"PATH": PATH},  # anyone in the host can read it
                start_new_session=True,
            )
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(config) + "\n")
            process.stdin.flush()
            with process.stdout:
                answer = process.stdout.readline()
            if not answer:
                process.wait()
                errors.seek(0)
                raise EngineError(f"host {name} did not come up: {errors.read()[-2000:]}")
        host = cls(Path(json.loads(answer)["state"]), json.loads(answer)["init"], suite)
        host._process = process
        if not detached:
            EngineHost._live.add(host)
        try:
            host._settle(daemon_args, daemon_json, files or {}, dockerd=dockerd, by_hand=by_hand)
        except BaseException:
            host.down()
            raise
        return host

    def _settle(
        self,
        daemon_args: Sequence[str],
        daemon_json: Mapping[str, Any] | str | None,
        files: Mapping[str, str],
        *,
        dockerd: bool,
        by_hand: bool,
    ) -> None:
        for path, text in files.items():
            self.write(path, text)
        if daemon_json is not None:
            text = daemon_json if isinstance(daemon_json, str) else json.dumps(daemon_json, indent=2) + "\n"
            self.write("/etc/docker/daemon.json", text)
        if dockerd:
            self.start_dockerd(*daemon_args, by_hand=by_hand)
            self.import_image()

    @classmethod
    def attach(cls, name: str) -> Self:
        """A running host of this machine, by its name."""
        for file in (cache_dir() / "run").glob(f"{name}.*.*/host.json"):
            _, supervisor, started = file.parent.name.rsplit(".", 2)
            if _start_time(int(supervisor)) == started:
                known = json.loads(file.read_bytes())
                return cls(file.parent, known["init"], known["suite"])
        raise LookupError(f"no host {name} is up")

    def down(self) -> None:
        """Stop everything and remove every trace; nothing happens the second time."""
        EngineHost._live.discard(self)
        if self._process and self._process.stdin:
            self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            if self._is_up():
                os.kill(self.supervisor, signal.SIGTERM)
            if not self._ends_within(20):
                os.kill(self.supervisor, signal.SIGKILL)
                self._ends_within(5)
        if self.state.exists():
            _sweep()

    def leave(self) -> None:
        """Have it taken down and go on, for that takes a second of waiting: its supervisor needs nobody's help.

        Three are left to themselves at the most; at exit all are waited for.
        """
        with contextlib.suppress(ProcessLookupError):
            if self._is_up():
                os.kill(self.supervisor, signal.SIGTERM)
        EngineHost._leaving.append(self)
        if len(EngineHost._leaving) > _LEFT:
            EngineHost._leaving.pop(0).down()

    def _is_up(self) -> bool:
        if self._process:
            self._process.poll()  # else it stays a zombie
        return _start_time(self.supervisor) == self._started

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._is_up():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def __enter__(self) -> Self:
        """Leave the host to a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the host down; nobody waits for it."""
        self.leave()

    # ---- commands and files

    def spawn(
        self,
        *argv: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        stdio: tuple[int, int, int] | None = None,
    ) -> Command:
        """Start a command in the host and do not wait for it. `stdio` hands it three open files instead of ours."""
        outputs = (os.memfd_create("stdout"), os.memfd_create("stderr"))
        source = os.memfd_create("stdin")
        try:
            os.write(source, (stdin or "").encode())
            os.lseek(source, 0, os.SEEK_SET)
            full = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", **(env or {})}
            request = {"do": "run", "argv": argv, "env": full, "cwd": cwd}
            caller, reply, _ = self._ask(request, *(stdio or (source, *outputs)))
        finally:
            os.close(source)
        return Command(argv, reply["pid"], caller, outputs)

    def run(
        self,
        *argv: str,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host, as root with a plain environment."""
        command = self.spawn(*argv, stdin=stdin, env=env, cwd=cwd)
        status = command.wait(timeout)
        if check and status:
            raise CommandError(status, argv, command.stdout, command.stderr)
        return subprocess.CompletedProcess(argv, status, command.stdout, command.stderr)

    def sh(self, script: str, *, check: bool = True, timeout: float = 60) -> str:
        """What a shell script in the host prints; it ends at its first failing command."""
        return self.run("sh", "-ec", script, check=check, timeout=timeout).stdout

    def docker(self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 60) -> str:
        """What `docker ARGS` prints, without the last newline."""
        return self.run("docker", *args, check=check, stdin=stdin, timeout=timeout).stdout.rstrip("\n")

    def doctor(
        self, *args: str, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `doctor ARGS` as a user of this host would; any exit status is an answer."""
        return self.run("doctor", *args, check=False, timeout=timeout, env=env)

    def outside(self, *argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine in the network outside."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.supervisor}/ns/net", *argv],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise CommandError(done.returncode, argv, done.stdout, done.stderr)
        return done

    def read(self, path: str) -> str:
        """The text of a file in the host."""
        caller, _, fds = self._ask({"do": "read", "path": path})
        caller.close()
        with os.fdopen(fds[0], "rb") as file:
            file.seek(0)
            return file.read().decode(errors="replace")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the host, with its folders; `mode` holds for a new one."""
        self.write_bytes(path, text.encode(), mode)

    def write_bytes(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file that is no text."""
        with os.fdopen(self._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)

    def exists(self, path: str) -> bool:
        """Whether a path in the host leads to something."""
        try:
            os.close(self._open(path, os.O_PATH))
        except FileNotFoundError:
            return False
        return True

    def _open(self, path: str, flags: int, mode: int = 0) -> int:
        caller, _, fds = self._ask({"do": "open", "path": path, "flags": flags, "mode": mode})
        caller.close()
        return fds[0]

    def _ask(self, request: Mapping[str, Any], *fds: int) -> tuple[socket.socket, dict[str, Any], list[int]]:
        """Send init a request; its socket, for more answers to come, the first answer, and files that came with it."""
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short_path(self.state / "in") as path:
                caller.connect(path)
            caller.settimeout(30)
            socket.send_fds(caller, [json.dumps(request).encode()], fds)
            data, got, _, _ = socket.recv_fds(caller, 4096, 1)
        except OSError as error:
            caller.close()
            raise EngineError(f"host {self.name} does not answer: {error}") from error
        reply = json.loads(data or b'{"errno": 108}')
        if code := reply.get("errno"):
            caller.close()
            raise OSError(code, os.strerror(code), request.get("path", self.name))
        return caller, reply, got

    # ---- the daemon

    @property
    def version(self) -> str:
        """Docker's version: "28.5.2"."""
        if not self._version:
            found = re.search(r"version (\d+\.\d+\.\d+)", self.run("dockerd", "--version").stdout)
            assert found
            self._version = found[1]
        return self._version

    def api(self, method: str, path: str, body: bytes | None = None, timeout: float = 10) -> Any:
        """Ask the daemon on its default socket; the decoded JSON, or text that is none. OSError when it does not answer."""
        import http.client

        caller, _, fds = self._ask({"do": "connect", "path": "/run/docker.sock"})
        caller.close()
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(fileno=fds[0])
        connection.sock.settimeout(timeout)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body)
                answer = connection.getresponse()
                text = answer.read().decode()
            except http.client.HTTPException as error:
                raise ConnectionError(f"{method} {path}: {error}") from error
        if answer.status >= 400:
            raise EngineError(f"{method} {path}: {answer.status} {text.strip()}")
        try:
            return json.loads(text)
        except ValueError:
            return text

    def answers(self) -> bool:
        """Whether the daemon answers on its default socket within two seconds."""
        try:
            return bool(self.api("GET", "/_ping", timeout=2) == "OK")
        except OSError:
            return False

    def dockerd_pid(self) -> int | None:
        """The daemon's pid in the host; None while there is none."""
        for file in ("/run/docker.pid", "/run/docker-ssd.pid", "/run/dockerd.bg"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(self.read(file))
                if self.read(f"/proc/{pid}/comm") == "dockerd\n" and " (dockerd) Z " not in self.read(
                    f"/proc/{pid}/stat"
                ):
                    return pid
        return None

    def log(self) -> str:
        """What dockerd wrote to its log."""
        try:
            return self.read(self.log_path)
        except FileNotFoundError:
            return ""

    def start_dockerd(
        self, *args: str, by_hand: bool = False, expect_failure: bool = False, timeout: float = 30
    ) -> str:
        """Start dockerd and wait until it serves, or until it gave up if that is expected; what it logged meanwhile.

        Debian's init script starts it, with `args` as DOCKER_OPTS in /etc/default/docker, so that `service docker
        restart` does what it does on a user's host; the log is /var/log/docker.log. `by_hand` leaves the script out,
        for arguments with spaces in them; the log is /var/log/dockerd.log. Without `args` the last ones hold.
        """
        self._args = args or self._args
        self.log_path = "/var/log/dockerd.log" if by_hand else "/var/log/docker.log"
        before = len(self.log())
        if by_hand:
            script = 'nohup dockerd "$@" >>/var/log/dockerd.log 2>&1 </dev/null & echo $! >/run/dockerd.bg'
            self.run("sh", "-c", script, "sh", *self._args)
        else:
            self._set_options(args)
            self.run("service", "docker", "start")
        return self._await_dockerd(before, timeout, expect_failure=expect_failure)

    def stop_dockerd(self, signum: int | None = None, timeout: float = 30) -> None:
        """Stop dockerd with a signal, or as it was started (init script or SIGTERM), and wait until it is gone.

        The init script kills it after ten seconds, as long as docker waits for a container that ignores SIGTERM.
        """
        pid = self.dockerd_pid()
        if signum is None and self._init_script_knows(pid):
            self.run("service", "docker", "stop")
        elif pid:
            self.run("kill", f"-{signum or signal.SIGTERM:d}", str(pid))
        deadline = time.monotonic() + timeout
        while self.dockerd_pid():
            if time.monotonic() > deadline:
                raise EngineError(f"dockerd did not stop in {timeout} s: {self.log()[-1000:]}")
            time.sleep(0.01)

    def restart_dockerd(self, *args: str, expect_failure: bool = False, timeout: float = 30) -> str:
        """Stop dockerd and start it again as it was started; without `args` the last ones hold."""
        if not self._init_script_knows(self.dockerd_pid()):
            by_hand = self.log_path == "/var/log/dockerd.log"
            self.stop_dockerd()
            return self.start_dockerd(*args, by_hand=by_hand, expect_failure=expect_failure, timeout=timeout)
        before = len(self.log())
        self._args = args or self._args
        self._set_options(args)
        self.run("service", "docker", "restart")
        return self._await_dockerd(before, timeout, expect_failure=expect_failure)

    def _init_script_knows(self, pid: int | None) -> bool:
        """Whether the init script started the daemon that runs; it fails on one that is gone, and ignores another."""
        try:
            return int(self.read("/run/docker-ssd.pid")) == pid
        except (FileNotFoundError, ValueError):
            return False

    def _set_options(self, args: Sequence[str]) -> None:
        if unfit := [arg for arg in args if re.search(r"[\s\"'`$\\*?\[]", arg)]:
            raise ValueError(f"the init script would split or expand {unfit}; start dockerd by hand")
        if args:
            text = re.sub(r"(?m)^DOCKER_OPTS=.*\n?", "", self.read("/etc/default/docker"))
            self.write("/etc/default/docker", f'{text}DOCKER_OPTS="{" ".join(args)}"\n')

    def _await_dockerd(self, before: int, timeout: float, *, expect_failure: bool) -> str:
        """Wait for one of: it serves, it is gone, the time is up."""
        deadline = time.monotonic() + timeout
        seen, gone = False, 0
        while time.monotonic() < deadline:
            # The log tells of daemons that serve elsewhere than on the default socket.
            log = self.log()[before:]
            if self.answers() or "API listen on" in log:
                if expect_failure:
                    raise EngineError("dockerd came up")
                return self.log()[before:]
            pid = self.dockerd_pid()
            seen = seen or bool(pid) or bool(log)
            gone = gone + 1 if seen and not pid else 0
            if gone > 5:  # a restart has a moment without a daemon
                if expect_failure:
                    return self.log()[before:]
                raise EngineError(f"dockerd did not start:\n{log[-2000:]}")
            time.sleep(0.01)
        raise EngineError(f"dockerd neither serves nor ends after {timeout} s:\n{self.log()[before:][-2000:]}")

    def import_image(self) -> None:
        """Import the image busybox:lab."""
        query = "fromSrc=-&repo=busybox&tag=lab&changes=CMD%20%5B%22idle%22%5D"
        self.api("POST", f"/images/create?{query}", _image(build_root(self.suite)), timeout=30)

    # ---- containers

    def containers(self) -> list[dict[str, Any]]:
        """Every container as `config.v2.json` has it, also while no daemon answers (default data-root only)."""
        found = []
        for path in sorted((self.state / "docker/containers").glob("*/config.v2.json")):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_bytes()))
        return found

    def container_pid(self, name: str) -> int:
        """The pid in the host of a running container's first process; asks the files where no daemon answers."""
        try:
            pid = self.api("GET", f"/containers/{name}/json", timeout=2)["State"]["Pid"]
        except (OSError, EngineError):  # without a layer's short link an engine answers this with an error
            pid = next((c["State"]["Pid"] for c in self.containers() if c["Name"] == f"/{name}"), 0)
        if not pid:
            raise LookupError(f"no running container {name}")
        return int(pid)

    def container_ip(self, name: str, network: str | None = None) -> str:
        """A container's IPv4 address on a network, or on the first that it has one on."""
        networks = self.api("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]
        chosen = networks if network is None else {network: networks[network]}
        for _, endpoint in sorted(chosen.items()):
            if endpoint["IPAddress"]:
                return str(endpoint["IPAddress"])
        raise LookupError(f"container {name} has no address")

    @contextlib.contextmanager
    def container(self, name: str, *options: str, command: Sequence[str] = ("idle",)) -> Iterator[str]:
        """A container of busybox:lab that runs, and serves if that is its command, as long as the context lasts."""
        self.docker("run", "-d", "--name", name, "--hostname", name, *options, IMAGE, *command)
        try:
            if command[0] in {"serve", "echod"}:
                self.await_listening(name, int(command[1]) if command[1:] else 80)
            yield name
        finally:
            self.docker("rm", "-fv", name)

    @contextlib.contextmanager
    def network(self, name: str, *options: str) -> Iterator[str]:
        """A network of Docker's, as long as the context lasts."""
        self.docker("network", "create", *options, name)
        try:
            yield name
        finally:
            self.docker("network", "rm", name)

    def await_listening(self, frm: str, port: int, timeout: float = 5) -> None:
        """Wait until something listens on a port of "host", "outside" or a container."""
        deadline = time.monotonic() + timeout
        while self.connect(frm, "127.0.0.1", port) != "connected":
            if time.monotonic() > deadline:
                raise EngineError(f"nothing listens on {frm}'s port {port}")
            time.sleep(0.01)

    def running(self) -> set[str]:
        """The names of the containers that run; without a daemon, of those whose process is there."""
        try:
            return {c["Names"][0].removeprefix("/") for c in self.api("GET", "/containers/json", timeout=2)}
        except OSError:
            known = [(c["Name"].removeprefix("/"), c["State"]["Pid"]) for c in self.containers()]
            return {name for name, pid in known if pid and self.exists(f"/proc/{pid}/exe")}

    # ---- connections

    def open_socket(self, frm: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A new socket in the network of "host", "outside" or a container, usable from anywhere in this process."""
        namespace = self._network(frm)
        try:
            return _socket_in(namespace, family, kind)
        finally:
            os.close(namespace)

    def _network(self, frm: str) -> int:
        if frm == "outside":
            return os.open(f"/proc/{self.supervisor}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        pid = 1 if frm == "host" else self.container_pid(frm)
        return self._open(f"/proc/{pid}/ns/net", os.O_RDONLY)

    def connect(self, frm: str, ip: str, port: int, timeout: float = 1.0) -> str:
        """What a TCP connection meets: one try, one packet unless `timeout` is above a second.

        "connected", "refused" (a reset or a port unreachable), "timeout" (nothing came back), "no-route" (the sender's
        own routing says no), "unreachable" (another's ICMP or no neighbour says no), "reset" (right after connecting).
        """
        return self.probe([Flow(frm, ip, port)], timeout=timeout, retries=0)[Flow(frm, ip, port)]

    def probe(
        self, flows: Iterable[tuple[str, str, int]], timeout: float = 0.5, retries: int = 1
    ) -> dict[tuple[str, str, int], str]:
        """`connect` for many flows at once; those that time out are tried again, so one lost packet is no verdict."""
        wanted = [Flow(*flow) for flow in flows]
        results: dict[tuple[str, str, int], str] = {}
        for _ in range(1 + retries):
            results |= self._probe([flow for flow in wanted if results.get(flow, "timeout") == "timeout"], timeout)
        return results

    def _probe(self, flows: Sequence[Flow], timeout: float) -> dict[tuple[str, str, int], str]:
        results: dict[tuple[str, str, int], str] = {}
        pending: dict[int, tuple[Flow, socket.socket]] = {}
        poller = select.poll()
        with contextlib.ExitStack() as stack:
            namespaces = {frm: self._network(frm) for frm in {flow.frm for flow in flows}}
            for namespace in namespaces.values():
                stack.callback(os.close, namespace)
            for flow in flows:
                family = socket.AF_INET6 if ":" in flow.ip else socket.AF_INET
                sock = stack.enter_context(_socket_in(namespaces[flow.frm], family, socket.SOCK_STREAM))
                sock.settimeout(0)
                code = sock.connect_ex((flow.ip, flow.port))
                if code == errno.EINPROGRESS:
                    pending[sock.fileno()] = flow, sock
                    poller.register(sock, select.POLLOUT)
                else:
                    results[flow] = _outcome(code, sock, at_once=True)
            deadline = time.monotonic() + timeout
            while pending and (left := deadline - time.monotonic()) > 0:
                for fd, _ in poller.poll(left * 1000):
                    flow, sock = pending.pop(fd)
                    poller.unregister(fd)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    results[flow] = _outcome(code, sock, at_once=False)
        return results | {flow: "timeout" for flow, _ in pending.values()}

    def http_get(self, frm: str, ip: str, port: int, path: str = "/cgi-bin/peer", timeout: float = 2.0) -> HttpAnswer:
        """GET from a container that runs `serve`: who answered, and as whom it saw the client."""
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        data = b""
        with self.open_socket(frm, family) as sock:
            sock.settimeout(timeout)
            try:
                sock.connect((ip, port))
                sock.sendall(f"GET {path} HTTP/1.0\r\nHost: {ip}\r\n\r\n".encode())
                while more := sock.recv(65536):
                    data += more
            except TimeoutError:
                return HttpAnswer("timeout")
            except OSError as error:
                return HttpAnswer(_outcome(error.errno or 0, sock, at_once=False))
        head, _, body = data.decode(errors="replace").partition("\r\n\r\n")
        status = re.match(r"HTTP/\S+ (\d+)", head)
        seen = re.fullmatch(r"\[?(?:::ffff:)?([\w.:]+)\]? (\S+)\n", body)
        return HttpAnswer("connected", int(status[1]) if status else 0, body, *(seen.groups() if seen else ()))

    @contextlib.contextmanager
    def hold_connection(self, frm: str, ip: str, port: int, timeout: float = 2.0) -> Iterator[Held]:
        """Keep a TCP connection open to an echo service (a container that runs `echod PORT`, or `listen`)."""
        with self.open_socket(frm, socket.AF_INET6 if ":" in ip else socket.AF_INET) as sock:
            sock.settimeout(timeout)
            sock.connect((ip, port))
            yield Held(sock)

    @contextlib.contextmanager
    def listen(self, frm: str, port: int, ip: str = "") -> Iterator[Listener]:
        """An echo service in the network of `frm`, as long as the context lasts."""
        sock = self.open_socket(frm, socket.AF_INET6 if ":" in ip else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
        sock.listen(64)
        listener = Listener(sock)
        try:
            yield listener
        finally:
            listener.close()


def _socket_in(namespace: int, family: int, kind: int) -> socket.socket:
    """A socket belongs to the network namespace of the thread that makes it: a thread of its own goes there."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            _kernel.setns(namespace, _NEWNET)
            made.append(socket.socket(family, kind))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _outcome(code: int, sock: socket.socket, *, at_once: bool) -> str:
    """One word for what became of a connect; `at_once`: the kernel of the sender said so without waiting."""
    match code:
        case 0:
            with contextlib.suppress(BlockingIOError):
                try:
                    sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                except ConnectionResetError:
                    return "reset"
            return "connected"
        case errno.ECONNREFUSED:
            return "refused"
        case errno.ECONNRESET | errno.EPIPE:
            return "reset"
        case errno.ETIMEDOUT:
            return "timeout"
        case (
            errno.ENETUNREACH | errno.EHOSTUNREACH | errno.EACCES | errno.EINVAL | errno.EADDRNOTAVAIL
        ):  # EINVAL: blackhole
            return "no-route" if at_once else "unreachable"
        case _:
            raise OSError(code, os.strerror(code))


def _image(root: Path) -> bytes:
    """The tar of the image: a static busybox, its applets, a few scripts; the same bytes whenever it is made."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(
            path: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "", mode: int = 0o755
        ) -> None:
            info = tarfile.TarInfo(path)
            info.type, info.size, info.linkname, info.mode = kind, len(content), link, mode
            tar.addfile(info, io.BytesIO(content))

        for folder in ("bin", "etc", "proc", "root", "sys", "dev", "tmp", "www", "www/cgi-bin"):
            add(folder, tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755)
        add("bin/busybox", content=(root / "usr/bin/busybox").read_bytes())
        for applet in _APPLETS.split():
            add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        for path, text in _SCRIPTS.items():
            add(path, content=f"#!/bin/sh\n{text}".encode())
        add("etc/passwd", content=b"root:x:0:0:root:/root:/bin/sh\n", mode=0o644)
        add("etc/group", content=b"root:x:0:\n", mode=0o644)
    return data.getvalue()


@atexit.register
def _down_all() -> None:
    for host in (*EngineHost._live, *EngineHost._leaving):
        if host.owner == os.getpid():  # a fork of ours ends too
            host.down()


# --------------------------------------------------------------------------------------------------------------------
# Command line


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of developers; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.enginehost", description="Real Docker hosts on this machine."
    )
    commands = parser.add_subparsers(dest="verb", required=True)
    build = commands.add_parser("build", help="make the roots of all suites, or of some, and install doctor in them")
    build.add_argument("suites", nargs="*", metavar="SUITE")
    up = commands.add_parser("up", help="start a host that stays")
    up.add_argument("name")
    up.add_argument("--suite", default="sid", choices=SUITES)
    up.add_argument("--daemon-json", type=Path, metavar="FILE")
    up.add_argument("--no-dockerd", action="store_true")
    up.add_argument("--by-hand", action="store_true", help="start dockerd without the init script")
    up.epilog = "What follows -- is given to dockerd."
    for verb, text in (
        ("in", "run a command in the host"),
        ("out", "run a command outside it"),
        ("doctor", "run this checkout's doctor in it, as of `up`"),
    ):
        sub = commands.add_parser(verb, help=text)
        sub.add_argument("name")
        sub.add_argument("args", nargs=argparse.REMAINDER)
    down = commands.add_parser("down", help="stop hosts and remove every trace")
    down.add_argument("names", nargs="+", metavar="NAME")
    commands.add_parser("list", help="the hosts that are up")
    words = list(sys.argv[1:] if argv is None else argv)
    rest = words.index("--") if words[:1] == ["up"] and "--" in words else len(words)
    options = parser.parse_args(words[:rest])
    options.dockerd_args = words[rest + 1 :]
    try:
        if reason := unavailable():
            raise Unavailable(reason)
        return _do(options)
    except (EngineError, LookupError, ValueError) as error:
        sys.stderr.write(f"enginehost: {error}\n")
        return 1


def _do(options: argparse.Namespace) -> int:
    match options.verb:
        case "build":
            for suite in options.suites or SUITES:
                began = time.monotonic()
                for step in (build_root, install_dependencies, install_source):
                    step(suite)
                sys.stdout.write(f"{suite}: Docker {SUITES[suite]}, {time.monotonic() - began:.1f} s\n")
        case "up":
            with contextlib.suppress(LookupError):
                EngineHost.attach(options.name)
                raise ValueError(f"a host {options.name} is up")
            host = EngineHost.up(
                options.name,
                options.suite,
                options.dockerd_args,
                options.daemon_json.read_text(encoding="utf-8") if options.daemon_json else None,
                dockerd=not options.no_dockerd,
                by_hand=options.by_hand,
                detached=True,
            )
            sys.stdout.write(f"{host.version}\n")
        case "in" | "doctor":
            argv = [*(["doctor"] if options.verb == "doctor" else []), *options.args]
            env = {name: os.environ[name] for name in ("TERM", "COLUMNS", "LINES") if name in os.environ}
            status = EngineHost.attach(options.name).spawn(*argv, env=env, stdio=(0, 1, 2)).wait(1e6)
            return status if status >= 0 else 128 - status
        case "out":
            supervisor = EngineHost.attach(options.name).supervisor
            os.execvp("nsenter", ["nsenter", f"--net=/proc/{supervisor}/ns/net", *options.args])  # noqa: S606
        case "down":
            for name in options.names:
                EngineHost.attach(name).down()
        case "list":
            for file in sorted((cache_dir() / "run").glob("*.*.*/host.json")):
                name = file.parent.name.rsplit(".", 2)[0]
                sys.stdout.write(f"{name}\t{SUITES[json.loads(file.read_bytes())['suite']]}\n")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["_supervise"]:
        _supervise()
    else:
        sys.exit(main())
