"""Probes measure what is so, and forks bring back what they found."""

from __future__ import annotations

import os
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from doctor.labs.apart import ApartError, gather, stream
from doctor.labs.ground import GroundError, Names, Ran
from doctor.labs.probes import Flow, measure, meet
from doctor.labs.scenario import Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from doctor.model import Report


def _serve(answer: bytes) -> Iterator[int]:
    """A port of this machine whose clients get an answer, or are let in and left alone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    client, _ = listener.accept()
                    client.recv(100)
                    client.sendall(answer)
                    client.close()
            finally:
                os._exit(0)
        yield listener.getsockname()[1]
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.fixture
def answering() -> Iterator[int]:
    """A port behind which somebody answers."""
    yield from _serve(b"x")


@pytest.fixture
def closing() -> Iterator[int]:
    """A port behind which a connection is taken and closed, as docker-proxy does for whom nobody listens."""
    yield from _serve(b"")


def test_fates_on_this_machine(answering: int, closing: int) -> None:
    """Somebody answers, nobody listens, somebody lets in and closes: three connections side by side."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = held.getsockname()[1]
        flows = [Flow("127.0.0.1", port) for port in (answering, nobody, closing)]
        assert meet(flows) == ["open", "refused", "refused"]


def test_nothing_comes_back() -> None:
    """A listener whose queue is full drops what comes: that is told after the time, tried twice."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        held = [socket.socket() for _ in range(3)]
        for one in held:
            one.setblocking(False)  # noqa: FBT003 - the name says it
            one.connect_ex(listener.getsockname())
        began = time.monotonic()
        assert meet([Flow("127.0.0.1", listener.getsockname()[1])], 0.1, 2) == ["filtered"]
        assert 0.19 < time.monotonic() - began < 5
        for one in held:
            one.close()


def test_no_way_there() -> None:
    """What the kernel refuses at once is no time-out."""
    assert meet([Flow("255.255.255.255", 80)]) == ["unreachable"]


def test_what_forks_bring_back() -> None:
    """Answers come in the order that was asked for, however large, and side by side."""
    began = time.monotonic()

    def slow(number: int) -> bytes:
        time.sleep(0.2)
        return bytes([65 + number]) * 300_000

    got = gather([(lambda: None, partial(slow, number)) for number in range(4)], 10)
    assert [(one[:1], len(one)) for one in got] == [(b"A", 300_000), (b"B", 300_000), (b"C", 300_000), (b"D", 300_000)]
    assert time.monotonic() - began < 0.75 or (os.cpu_count() or 1) < 2


def test_what_a_fork_cannot_do_is_told() -> None:
    """One that raises, and one that hangs, are errors with the reason, and nothing stays behind."""
    with pytest.raises(ApartError, match="ZeroDivisionError: integer division"):
        gather([(lambda: None, lambda: bytes(1 // 0))], 5)
    with pytest.raises(ApartError, match=r"did not come back in 0.2 s"):
        gather([(lambda: None, lambda: (time.sleep(60), b"")[1])], 0.2)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_stream_of_forks() -> None:
    """Each answer comes once, failures too; not more run at a time than was said."""
    functions: list[Callable[[], bytes]] = [lambda: b"a", lambda: bytes(1 // 0), lambda: b"c"]
    got = dict(stream(functions, 2))
    assert (got[0], got[2]) == (b"a", b"c")
    assert isinstance(got[1], ApartError)


class _Here:
    """A ground that is this machine, for probes that need no network of its own."""

    log = ""

    def run(self, argv: Sequence[str], *, stdin: str = "", seconds: float = 30.0) -> Ran:
        from doctor.linux import spawn

        done = spawn.run(argv, deadline_seconds=seconds, limit_bytes=1 << 16, stdin=stdin.encode())
        return Ran(124 if done.status == "timeout" else done.returncode, done.stdout.decode(), done.stderr.decode())

    def read(self, path: str) -> str | None:
        return self.log if path.endswith(".log") else None

    def write(self, path: str, text: str) -> None:
        raise NotImplementedError

    def ask(self, path: str) -> Any:
        if path == "/containers/web/json":
            return {
                "Id": "ab" * 32,
                "State": {"Pid": 7},
                "NetworkSettings": {"Networks": {"shop": {"IPAddress": "127.0.0.1"}}},
            }
        if path.startswith("/networks/"):
            return {"Id": "cd" * 32, "Options": {}}
        self.log += "level=debug\n"
        raise GroundError("no such container")

    def answers(self) -> bool:
        return True

    def start_daemon(self, *, fails: bool) -> None:
        raise NotImplementedError

    def stop_daemon(self) -> None:
        raise NotImplementedError

    def within(self, jobs: Mapping[str, Callable[[], bytes]], seconds: float) -> dict[str, bytes]:
        return dict(zip(jobs, gather([(lambda: None, one) for one in jobs.values()], seconds), strict=True))

    def check(self, options: tuple[str, ...] = ()) -> Report:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("probe", "found"),
    [
        (Probe("works", "fails", run="true"), "works"),
        (Probe("works", "fails", run="exit 3"), "fails"),
        (Probe("works", "hangs", run="sleep 9", seconds=0.1), "hangs"),
        (Probe("works", "fails", run="echo {pid:web}; exit 3", says="^7$"), "works"),
        (Probe("works", "fails", run="echo 71", says="^7$"), "fails"),
        (Probe("there", "gone", file="/proc/self"), "there"),
        (Probe("there", "gone", file="/proc/nothing"), "gone"),
        (Probe("runs", "gone", process="[n]o such command line at all"), "gone"),
        (Probe("silent", "written", log="level=debug"), "written"),
        (Probe("silent", "written", log="level=trace", seconds=0.05), "silent"),
    ],
)
def test_what_is_no_connection(probe: Probe, found: str) -> None:
    """Commands, files, processes and the log are measured in the words of their kind."""
    ground = _Here()
    assert measure([probe], ground, Names(ground)) == [found]


def test_names_become_addresses(answering: int) -> None:
    """A container is reached at the address that its engine tells, and probes of several places come back in order."""
    ground = _Here()
    probes = [Probe("open", "filtered", target=f"web:{answering}"), Probe("works", "fails", run="true")]
    assert measure([*probes, probes[0]], ground, Names(ground)) == ["open", "works", "open"]


def test_words_are_filled_in() -> None:
    """Words in braces become what the engine tells; others stay."""
    names = Names(_Here())
    text = "{bridge:shop} {bridge:docker0} {ip:web} {ip:web@shop} {id:web} {x:web} ${PATH}"
    assert names.fill(text) == f"br-{'cd' * 6} docker0 127.0.0.1 127.0.0.1 {'ab' * 32} {{x:web}} ${{PATH}}"
