"""`doctor runtime`: what a person types and reads."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from tests.typed import typed


def runtime(*words: str, stdin: str = "", host: str = "") -> tuple[int, str, str]:
    """Run it as a person would; gives exit code and both outputs."""
    argv = [sys.executable, "-m", "doctor", "runtime", *(("--host", host) if host else ()), *words]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, input=stdin)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "doctor runtime: what? up, enter, down, or a command of docker's: doctor runtime --help"),
        (("up", "--no"), "doctor runtime up: no such option: --no"),
        (("up", "a.json", "b.json"), "doctor runtime up: one FILE, not a.json and b.json"),
        (("up", "/no/such.json"), "/no/such.json: no such file or directory"),
        (("up", "--dialect", "17"), "--dialect 17: is none of 20.10, 26, 28, 29, 29-nftables"),
        (("--host",), "doctor runtime: --host needs a name"),
        (("--host", "no such", "enter"), "no such: is not up"),
        (("--host", "nobody", "ps"), "nobody: is not up"),
    ],
)
def test_mistakes_are_a_line_and_exit_2(words: tuple[str, ...], said: str) -> None:
    """What is wrong, and what there is instead."""
    done = typed("runtime", *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"doctor: {said}\n")


def test_help_stops_at_the_program_in_the_container() -> None:
    """`run busybox ls --help` asks ls; `up --help` says that it is no sandbox."""
    assert "no sandbox for hostile code" in typed("runtime", "up", "--help").stdout
    assert typed("runtime", "--host", "nobody", "run", "busybox", "ls", "--help").returncode == 2


@pytest.mark.root
def test_a_shell_on_a_terminal() -> None:
    """It has a terminal of the lab's own, of the size of ours, and its prompt says where one is."""
    name = f"tty{os.getpid()}"
    assert runtime("up", host=name)[0] == 0
    try:
        pid, master = pty.fork()
        if pid == 0:
            argv = [sys.executable, "-m", "doctor", "runtime", "--host", name, "enter"]
            os.execve(sys.executable, argv, os.environ | {"TERM": "dumb"})  # noqa: S606 - as a shell would
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        text = _until(master, f"{name}# ".encode())
        os.write(master, b"tty; stty size; hostname; exit 9\r")
        try:
            while data := os.read(master, 4096):
                text += data
        except OSError:  # EIO: it has ended
            pass
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        os.close(master)
    finally:
        runtime("down", name)
    lines = [line.strip() for line in text.decode(errors="replace").splitlines()]
    assert {"/dev/pts/0", "33 77", name} <= set(lines)


def _until(handle: int, word: bytes) -> bytes:
    text = b""
    while word not in text:
        text += os.read(handle, 4096)
    return text


@pytest.mark.root
def test_up_enter_down() -> None:
    """A host that outlives the command that made it, until it is taken down."""
    name = f"cli{os.getpid()}"
    code, said, wrong = runtime("up", host=name)
    assert (code, wrong) == (0, "")
    assert said.startswith(f"host {name} is up: ")
    try:
        assert runtime("up", host=name)[0] == 2
        assert runtime("enter", "hostname", host=name) == (0, f"{name}\n", "")
        assert runtime("enter", "sh", "-c", "cat; exit 7", stdin="typed\n", host=name) == (7, "typed\n", "")
        assert "203.0.113.7/32" in runtime("enter", "--outside", "ip", "-br", "addr", host=name)[1]
        assert runtime("enter", "no-such-program", host=name)[0] == 127
        assert f"doctor {__import__('doctor').__version__}" in runtime("enter", "doctor", "--version", host=name)[1]
    finally:
        code, said, _ = runtime("down", name)
    assert (code, said) == (0, f"host {name} is gone: nothing left\n")
    assert runtime("enter", host=name) == (2, "", f"doctor: {name}: is not up\n")
