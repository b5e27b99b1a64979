"""Commands within bounds, and nothing left of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from errno import ENOSYS
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from doctor.linux import namespaces, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.linux.spaces import Space

LIMIT = 1 << 20


def run(*argv: str, seconds: float = 20.0, limit: int = LIMIT, stdin: bytes = b"") -> spawn.Completed:
    """Run a command with bounds that no test meets unless it means to."""
    return spawn.run(argv, deadline_seconds=seconds, limit_bytes=limit, stdin=stdin)


def shell(script: str, seconds: float = 20.0, limit: int = LIMIT, stdin: bytes = b"") -> spawn.Completed:
    """Run a script of sh."""
    return run("sh", "-c", script, seconds=seconds, limit=limit, stdin=stdin)


@pytest.fixture(params=["pidfd", "no pidfd"])
def pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test on this kernel, and as on one before 5.3."""

    def refuse(_: int) -> int:
        raise OSError(ENOSYS, "function not implemented")

    if request.param == "no pidfd":
        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Have no child, zombie, descriptor or thread more than before."""

    def count() -> tuple[set[int], int, int]:
        children = {child.pid for child in psutil.Process().children()}
        return children, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def more() -> list[str]:
        # Threads of tests before may end meanwhile, and close what they held: less is no leak.
        children, handles, threads = count()
        counts = (("descriptors", handles - before[1]), ("threads", threads - before[2]))
        return [f"child {pid}" for pid in children - before[0]] + [f"{one} {name}" for name, one in counts if one > 0]

    before = count()
    yield
    for _ in range(40):  # what was killed is reaped when it has gone, which takes its time on a busy machine
        spawn._reap_abandoned()
        if not more():
            break
        time.sleep(0.1)
    assert not more()
    assert not spawn._running


@pytest.mark.usefixtures("pidfd")
def test_outputs_and_code() -> None:
    """Both outputs are kept apart, and the exit status is told."""
    done = shell("echo out; echo err >&2; exit 3")
    assert done[:4] == (3, b"out\n", b"err\n", "ok")
    assert 0 < done.seconds < 20


@pytest.mark.usefixtures("pidfd")
def test_a_signal_is_negative() -> None:
    """A command that is killed by somebody else has ended."""
    assert shell("kill -TERM $$")[:4] == (-signal.SIGTERM, b"", b"", "ok")


@pytest.mark.usefixtures("pidfd")
def test_one_that_sleeps_for_ever_is_killed_at_the_deadline() -> None:
    """What it printed until then is kept."""
    done = shell("echo begun; exec sleep 1000", seconds=0.3)
    assert done[:4] == (-signal.SIGKILL, b"begun\n", b"", "timeout")
    assert 0.3 <= done.seconds < 10


@pytest.mark.usefixtures("pidfd")
def test_one_that_closes_its_outputs_is_waited_for() -> None:
    """The end of the output is not the end of the command."""
    done = shell("echo out; exec >&- 2>&-; sleep 0.2; exit 4")
    assert done[:4] == (4, b"out\n", b"", "ok")
    assert shell("exec >&- 2>&-; sleep 1000", seconds=0.2).status == "timeout"


@pytest.mark.usefixtures("pidfd")
@pytest.mark.parametrize("where", ["", ">&2"])
def test_a_flood_is_cut_at_the_limit(where: str) -> None:
    """No more than the limit is kept, of both outputs together."""
    done = shell(f"echo first; yes {where}", limit=100_000)
    assert (done.status, done.returncode) == ("truncated", -signal.SIGKILL)
    assert len(done.stdout) + len(done.stderr) == 100_000
    assert done.stdout.startswith(b"first\n")


def test_the_limit_itself_is_not_too_much() -> None:
    """Exactly as much as allowed is whole; one byte more is cut."""
    assert run("head", "-c", "5000", "/dev/zero", limit=5000)[:4] == (0, bytes(5000), b"", "ok")
    assert run("head", "-c", "5001", "/dev/zero", limit=5000)[1:4] == (bytes(5000), b"", "truncated")


@pytest.mark.usefixtures("pidfd")
def test_grandchildren_go_with_it() -> None:
    """Those in its group die with it, whether it ended or was killed, and hold nothing up."""
    for script, status in (("sleep 1000 & echo $!", "ok"), ("sleep 1000 & echo $!; sleep 1000", "timeout")):
        done = shell(script, seconds=1.0)
        assert done.status == status
        assert done.seconds < 10
        assert _gone(int(done.stdout))


@pytest.mark.usefixtures("pidfd")
def test_one_that_left_the_group_cannot_hold_us() -> None:
    """A daemon that kept the pipe open and left the group is not waited for."""
    done = shell("setsid sh -c 'echo $$; exec sleep 30' & sleep 0.3; echo end")
    left, end = done.stdout.split()
    try:
        assert (done.status, end) == ("ok", b"end")
        assert done.seconds < 5
    finally:
        os.kill(int(left), signal.SIGKILL)


def _gone(pid: int) -> bool:
    """Whether a process that is not ours ends in time; init reaps it when it comes to that."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_absent() -> None:
    """No such command: 127, as a shell has it."""
    for name in ("no-such-command", "/nowhere/command", "/etc/passwd/command"):
        assert run(name)[:2] == (127, b"")
        assert run(name).status == "absent"


def test_there_and_cannot_be_started(tmp_path: Path) -> None:
    """126, and why: not executable, a directory, no format that the kernel knows."""
    plain = tmp_path / "plain"
    plain.touch(mode=0o644)
    strange = tmp_path / "strange"
    strange.write_bytes(b"\x7fno format")
    strange.chmod(0o755)
    for path, why in ((plain, b"permission denied"), (tmp_path, b"permission denied"), (strange, b"exec format error")):
        assert run(str(path))[:4] == (126, b"", why, "denied")


def test_a_script_whose_interpreter_is_not_there(tmp_path: Path) -> None:
    """That is absent too: exec says ENOENT."""
    script = tmp_path / "script"
    script.write_text("#!/nowhere/sh\n", encoding="ascii")
    script.chmod(0o755)
    assert run(str(script)).status == "absent"


def test_the_environment_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's environment comes through: neither its PATH, nor its language, nor its secrets."""
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("PATH", "/nowhere")
    assert set(run("env").stdout.decode().split()) == {f"PATH={spawn.PATH}", "LC_ALL=C"}
    more = spawn.run(("env",), deadline_seconds=5, limit_bytes=LIMIT, env={"XTABLES_LOCKFILE": "/dev/null"})
    assert b"XTABLES_LOCKFILE=/dev/null" in more.stdout


def test_standard_input() -> None:
    """Empty is /dev/null; a megabyte arrives whole, though nobody reads the output meanwhile."""
    assert run("readlink", "/proc/self/fd/0").stdout == b"/dev/null\n"
    data = bytes(range(256)) * 4096
    assert run("cat", stdin=data, limit=2 * len(data)).stdout == data


def test_nothing_else_is_inherited() -> None:
    """Three descriptors, no blocked signal, none that Python ignores, and a group of its own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        done = run("cat", "/proc/self/status", "/proc/self/stat")
        handles = run("ls", "/proc/self/fd").stdout.split()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    ours = {int(path.name) for path in Path("/proc/self/fd").iterdir() if _inheritable(int(path.name))}
    assert {int(handle) for handle in handles} - ours <= {0, 1, 2, 3}  # the last is that of ls itself
    ignored = int(done.stdout.partition(b"SigIgn:\t")[2].split(b"\n")[0], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)  # which Python ignores
    assert b"SigBlk:\t0000000000000000\n" in done.stdout
    pid, *_, group = done.stdout.rpartition(b"Cpus_allowed")[2].split(b"\n")[-2].split()[:5]
    assert pid == group


def _inheritable(handle: int) -> bool:
    """Whether whoever started the tests left a descriptor open for all children; one that is closed by now is none."""
    try:
        return os.get_inheritable(handle)
    except OSError:
        return False


def test_one_in_the_kernel_is_abandoned_and_reaped_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that SIGKILL does not end holds us for a moment; once it is gone, the next call reaps it."""
    with monkeypatch.context() as patch:
        patch.setattr(spawn, "_kill", lambda _: None)
        patch.setattr(spawn, "_LAST", 0.1)
        done = run("sleep", "60", seconds=0.1)
    assert (done.status, done.returncode) == ("timeout", -signal.SIGKILL)
    assert done.seconds < 5
    (pid,) = spawn._abandoned
    run("true")
    assert list(spawn._abandoned) == [pid]
    os.kill(pid, signal.SIGKILL)
    assert _gone(pid)
    run("true")
    assert not spawn._abandoned


def test_kill_all_ends_what_another_thread_waits_for() -> None:
    """Who was given up comes back at once."""
    found = []
    thread = threading.Thread(target=lambda: found.append(run("sleep", "1000")))
    thread.start()
    while not spawn._running:
        time.sleep(0.01)
    spawn.kill_all()
    thread.join(5)
    assert found[0].returncode == -signal.SIGKILL
    assert found[0].seconds < 5


def test_many_at_once() -> None:
    """Threads that spawn side by side get their own output, and no pipe of another's child."""
    found: dict[int, bytes] = {}

    def work(number: int) -> None:
        found[number] = shell(f"echo {number}").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}\n".encode() for number in range(20)}


@pytest.mark.root
def test_a_child_lives_in_the_namespace_of_the_thread(bare: Space) -> None:
    """posix_spawn(3) inherits from the calling thread, not from the process."""
    done = namespaces.inside(bare.path, lambda: run("readlink", "/proc/self/ns/net"))
    assert done.stdout.decode() == f"net:[{namespaces.namespace_id(bare.path)}]\n"


def test_a_command_that_is_held_starts_at_once_and_reads_nothing_before() -> None:
    """The child runs while it is held; its stdin ends when that is over, and not before."""
    seen = []

    def held() -> None:
        time.sleep(0.3)
        seen.append(time.monotonic())

    code = "import os, time; a = time.monotonic(); os.read(0, 1); print(a, time.monotonic())"
    done = spawn.run((sys.executable, "-S", "-c", code), deadline_seconds=5, limit_bytes=1000, held=held)
    began, went_on = map(float, done.stdout.split())
    assert done.status == "ok"
    assert began < seen[0] <= went_on
