"""Where the docker command goes of whoever runs doctor: another daemon than this host's explains much that seems gone.

docker(1) takes the first of DOCKER_HOST, DOCKER_CONTEXT and `currentContext` of ~/.docker/config.json (docker/cli
`cli/command/cli.go`, resolveContextName). The address of a context is in ~/.docker/contexts/meta/DIGEST/meta.json, where
DIGEST is the SHA-256 of its name (`cli/context/store`). Under sudo there are two who may type it: root, and who called.

Of these files only the names and addresses of contexts are kept: config.json holds logins of registries.
"""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from doctor.lines import tree_line
from doctor.linux.frames import status_of, why_of
from doctor.places import CALLER, DEFAULT_CONTEXT, OWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doctor.host import Host

VARIABLES = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "HOME",
    "SUDO_USER",
    "XDG_RUNTIME_DIR",
)
"""All that is ever read of our own environment."""

_LIMIT = 1 << 20
_LOGIN = re.compile(r"//[^/@]*@")


class Home(NamedTuple):
    """A directory that docker(1) keeps its things in: as it is shown, and where it is."""

    shown: str
    folder: str


def here() -> dict[str, str]:
    """Give the part of this process's environment that says where a daemon is."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def homes(environ: Mapping[str, str]) -> list[Home]:
    """Give the directories that hold contexts, of this process and of who called sudo."""
    own = environ.get("DOCKER_CONFIG", "") or (f"{environ['HOME']}/.docker" if environ.get("HOME") else "")
    found = [Home(f"{OWN}/.docker", own)] if own else []
    caller = environ.get("SUDO_USER", "")
    if caller:
        import pwd

        try:
            folder = f"{pwd.getpwnam(caller).pw_dir}/.docker"
        except KeyError:
            folder = own
        if folder != own:
            found.append(Home(f"{CALLER}/.docker", folder))
    return found


def certificates(environ: Mapping[str, str]) -> str:
    """Give the directory in which docker(1) looks for its certificate and key; empty where nothing says which."""
    return environ.get("DOCKER_CERT_PATH", "") or next((home.folder for home in homes(environ)), "")


def read(host: Host, environ: Mapping[str, str]) -> str:
    """Give the lines of the tree record `engine/client`: variables, current contexts, their addresses, and sockets.

        DOCKER_HOST                               f  0.000           ssh://build.example.org
        ~/.docker/config.json                     f  1795507200.000  staging
        ~/.docker/contexts/meta/DIGEST/meta.json  f  1795507200.000  staging tcp://10.0.0.5:2376
        /run/user/1000/docker.sock                -  0.000           no such file or directory

    What is not set, or not there, has no line; a file that cannot be read has one of type `!`.
    """
    variables = {
        name: _LOGIN.sub("//", environ[name]) for name in ("DOCKER_HOST", "DOCKER_CONTEXT") if environ.get(name)
    }
    lines = [tree_line(name, "f", 0.0, value) for name, value in variables.items()]
    addresses = [environ.get("DOCKER_HOST", "")]
    for home in homes(environ):
        name, line = _current(host, home)
        lines.append(line)
        if home.shown.startswith(f"{OWN}/"):
            name = environ.get("DOCKER_CONTEXT") or name
        if name and name != DEFAULT_CONTEXT:
            address, line = _context(host, home, name)
            lines.append(line)
            addresses.append(address)
    for path in dict.fromkeys(one.removeprefix("unix://") for one in addresses if one.startswith("unix:///")):
        try:
            host.stat(path)
        except OSError as error:
            lines.append(tree_line(path, "-" if status_of(error) == "absent" else "!", 0.0, why_of(error)))
    return "".join(lines)


def _current(host: Host, home: Home) -> tuple[str, str]:
    """Read the name of the current context; empty where none is set."""
    found, line, when = _object(host, home, "config.json")
    name = found.get("currentContext")
    if line or not isinstance(name, str) or not name:
        return "", line
    return name, tree_line(f"{home.shown}/config.json", "f", when, name)


def _context(host: Host, home: Home, name: str) -> tuple[str, str]:
    """Read the address of a context; where there is none of that name, the line says so."""
    path = f"contexts/meta/{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}/meta.json"
    found, line, when = _object(host, home, path)
    if line:
        return "", line
    if not found:
        return "", tree_line(f"{home.shown}/{path}", "-", 0.0, name)
    endpoints = found.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    address = docker.get("Host") if isinstance(docker, dict) else None
    address = _LOGIN.sub("//", address) if isinstance(address, str) else ""
    return address, tree_line(f"{home.shown}/{path}", "f", when, f"{name} {address}")


def _object(host: Host, home: Home, path: str) -> tuple[dict[str, object], str, float]:
    """Read a JSON object: empty where there is no such file; else with the line that says why it cannot be read."""
    try:
        data, about = host.read(f"{home.folder}/{path}", _LIMIT)
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}, tree_line(f"{home.shown}/{path}", "!", 0.0, "no JSON"), 0.0
    except OSError as error:
        gone = status_of(error) == "absent"
        return {}, "" if gone else tree_line(f"{home.shown}/{path}", "!", 0.0, why_of(error)), 0.0
    return (found if isinstance(found, dict) else {}), "", about.st_mtime
