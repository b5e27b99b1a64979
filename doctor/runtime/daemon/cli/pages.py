"""What `docker --help` prints in a lab: what is there, in docker's words."""

from __future__ import annotations

TOP = """\
docker - of this lab's host: words, flags and columns as docker's

  docker run [-d] [-it] [--rm] [--name N] [-p 8080:80] [--network N] IMAGE [CMD]
  docker create|start|stop|restart|kill|rm|wait|rename CONTAINER
  docker exec [-it] CONTAINER CMD       docker attach CONTAINER
  docker ps [-a]   logs [-f]   port   top   inspect [-f TEMPLATE]   events
  docker images    version     info   volume ls|create|inspect|rm
  docker network ls|create|inspect|connect|disconnect|rm

`busybox` is there from the start; no registry can be reached.
"""

_LINES = {
    "run": "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "create": "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "exec": "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    "attach": "attach [OPTIONS] CONTAINER",
    "logs": "logs [OPTIONS] CONTAINER",
    "port": "port CONTAINER [PRIVATE_PORT[/PROTO]]",
    "ps": "ps [OPTIONS]",
    "top": "top CONTAINER [ps OPTIONS]",
    "inspect": "inspect [OPTIONS] NAME|ID [NAME|ID...]",
    "images": "images [OPTIONS] [REPOSITORY[:TAG]]",
    "network create": "network create [OPTIONS] NETWORK",
    "network connect": "network connect [OPTIONS] NETWORK CONTAINER",
    "network disconnect": "network disconnect [OPTIONS] NETWORK CONTAINER",
    "network rm": "network rm NETWORK [NETWORK...]",
    "rename": "rename CONTAINER NEW_NAME",
    "rmi": "rmi [OPTIONS] IMAGE [IMAGE...]",
    "tag": "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "pull": "pull [OPTIONS] NAME[:TAG|@DIGEST]",
}
_SEVERAL = frozenset({"start", "stop", "restart", "kill", "rm", "wait"})


def line(name: str) -> str:
    """Give the usage of a command, in one line."""
    if name in _SEVERAL:
        return f"{name} [OPTIONS] CONTAINER [CONTAINER...]"
    return _LINES.get(name, f"{name} [OPTIONS]")


def usage(name: str) -> str:
    """Give what `--help` prints of a command: its usage, and where the flags are told."""
    return f"Usage:  docker {line(name)}\n\nFlags are docker's; those that a lab has no use for are refused by name.\n"


def group(name: str) -> str:
    """Give what a word that needs another one prints."""
    of = {
        "network": "ls create inspect connect disconnect rm",
        "volume": "ls create inspect rm",
        "image": "ls inspect",
        "system": "info events",
    }
    words = of.get(name, "ls run create start stop restart kill rm exec logs port top wait inspect")
    return f"Usage:  docker {name} COMMAND\n\nCommands: {words}\n"
