"""A shell in a lab, on the caller's terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from doctor.runtime.relay import relay

if TYPE_CHECKING:
    from doctor.runtime.host import Lab

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START = "/root/.labrc"


def start_file(name: str) -> str:
    """Give what the shell of a lab reads first: its prompt, and the word by which it is left."""
    return f"PS1='lab:{name}# '\nleave() {{ exit 0; }}\n"


def attach(lab: Lab, name: str) -> int:
    """Run a shell in a lab until it ends; gives its exit code. Without a terminal it reads commands from standard input."""
    environment = {
        "PATH": PATH,
        "HOME": "/root",
        "USER": "root",
        "TERM": os.environ.get("TERM", "dumb"),
        "LANG": "C.UTF-8",
        "ENV": START,
        "BASH_ENV": START,
        "DOCTOR_LAB": name,
    }
    bash = shutil.which("bash", path=PATH)
    if not sys.stdin.isatty():
        argv: tuple[str, ...] = (bash,) if bash else ("sh", "-c", f'. {START}; eval "$(cat)"')
        running = lab.spawn(argv, stdin=0, stdout=1, stderr=2, env=environment, cwd="/root")
        try:
            return running.wait()
        finally:
            running.close()
    argv = (bash, "--noprofile", "--rcfile", START, "-i") if bash else ("sh", "-i")
    running = lab.spawn(argv, env=environment, cwd="/root", tty=True)
    try:
        return relay(running)
    finally:
        running.close()
