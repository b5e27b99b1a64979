"""The image of a machine without busybox: of its shell and programs, and of the Python that runs us."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from doctor.labs import catalogue
from doctor.labs.replaying import replay
from doctor.runtime.daemon import applets, images
from doctor.runtime_commands import bring_up
from tests.runtime.columns import become

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide busybox from whoever makes the image."""
    monkeypatch.setattr(images, "_FOLDERS", ())
    images.made.cache_clear()
    yield
    images.made.cache_clear()


def test_words_of_programs() -> None:
    """Letters may stand together, values behind or beside theirs; all words after the program of nc are that program's."""
    assert applets.options(["-qO-", "-T2", "http://web/"], "q", "OT") == (
        {"q": "q", "O": "-", "T": "2"},
        ["http://web/"],
    )
    assert applets.options(["-ll", "-p", "7", "-e", "cat", "-n"], "l", "pe") == (
        {"l": "ll", "p": "7", "e": "cat\0-n"},
        [],
    )
    with pytest.raises(Exception, match="invalid option -- 'x'"):
        applets.options(["-x"], "q", "")


def _used() -> int:
    """Do in a lab what labs and people do with the image; gives the number of what went wrong."""
    said = ""
    wrong = 0
    with bring_up(f"bare{os.getpid()}", "28", {}, detach=False) as lab:

        def docker(words: str, script: str = "") -> tuple[int, str]:
            nonlocal said
            done = lab.run(("docker", *words.split(), *([script] if script else [])))
            said += f"docker {words} {script}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}"
            return done.returncode, done.stdout.decode()

        docker("network create shop")
        docker("run -d --name web --network shop busybox serve")
        docker("run -d --name echo --network shop busybox echod 7")
        until = "for n in 1 2 3 4 5 6 7 8 9; do wget -qO- -T2 http://web/ && exit; sleep 0.2; done; exit 1"
        for words, script, code, text in (
            ("exec echo sh -c", until, 0, "it works"),
            ("exec web wget -q -O - http://127.0.0.1/cgi-bin/peer", "", 0, "127.0.0.1"),
            ("exec web wget -qO- http://127.0.0.1/../../etc/passwd", "", 1, ""),
            ("exec web wget -qO- -T1 http://nobody/", "", 1, ""),
            ("exec web nslookup echo", "", 0, "Address: 172."),
            ("exec web ping -c 1 -w 5 echo", "", 0, "1 packets received"),
            ("exec web sh -c", "echo to and fro | nc -w 5 echo 7", 0, "to and fro"),
            ("exec web ps -e", "", 0, "httpd"),
            ("exec web ip -4 addr show eth0", "", 0, "172."),
            ("inspect -f {{.Comment}} busybox", "", 0, "python"),
            ("stop -t 5 web echo", "", 0, "echo"),
            ("inspect -f {{.State.ExitCode}} web", "", 0, "0"),
        ):
            found = docker(words, script)
            wrong += found[0] != code or text not in found[1]
    if wrong:
        os.write(2, said.encode())
    return wrong


@pytest.mark.root
def test_it_serves_a_lab() -> None:
    """Pages, names, echoes: what containers are asked for in labs, as root."""
    assert _used() == 0


@pytest.mark.root
def test_it_serves_a_plain_user_s_lab() -> None:
    """A laptop without busybox, and without root, plays a scenario to its end."""
    assert become("plain user", partial(_proved, "embedded-dns-cut-off")) == 0


def _proved(name: str) -> int:
    outcome = replay(catalogue.scenario(name), "28")
    os.write(2, f"{outcome}\n".encode())
    return 0 if outcome.state == "proved" else 1
