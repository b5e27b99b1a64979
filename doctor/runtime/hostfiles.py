"""Files that a lab's host has from the start: its /etc, directories, and launchers of what runs in the holder. Texts only."""

from __future__ import annotations

import sys
from pathlib import Path

HOLDER = "/run/doctor/holder"
"""The socket of the holder, inside the lab."""

ADDRESS, OUTSIDE, FAR = "198.51.100.2", "198.51.100.1", "203.0.113.7"
ADDRESS6, OUTSIDE6 = "2001:db8:100::2", "2001:db8:100::1"
"""The host, the machine beside it, and one that is a hop further (RFC 5737, RFC 3849)."""

DIRECTORIES = (
    "boot",
    "dev",
    "etc",
    "etc/default",
    "etc/docker",
    "etc/init.d",
    "etc/iptables",
    "etc/modules-load.d",
    "etc/network",
    "etc/sysctl.d",
    "etc/systemd",
    "etc/systemd/system",
    "home",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "run/doctor",
    "run/lock",
    "run/netns",
    "srv",
    "sys",
    "tmp",
    "var",
    "var/cache",
    "var/lib",
    "var/log",
    "var/spool",
    "var/tmp",
)

DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = """\
root:x:0:
daemon:x:1:
tty:x:5:
docker:x:999:
nogroup:x:65534:
"""


def etc(hostname: str) -> dict[str, str]:
    """Give the files of /etc by path."""
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        release = 'ID=linux\nNAME="Linux"\nPRETTY_NAME="Linux"\n'
    return {
        "/etc/passwd": _USERS,
        "/etc/group": _GROUP,
        "/etc/hostname": f"{hostname}\n",
        "/etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{ADDRESS}\t{hostname}\n",
        "/etc/resolv.conf": f"nameserver {OUTSIDE}\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        "/etc/host.conf": "multi on\n",
        "/etc/os-release": release,
        "/etc/shells": "/bin/sh\n/bin/bash\n",
        "/etc/fstab": "",
        "/etc/sysctl.conf": "",
        "/etc/environment": "",
        "/etc/init.d/docker": _INIT,
    }


_INIT = """\
#!/bin/sh
# The daemon of this lab's host, kept by its holder.
case "$1" in
start|stop|restart|reload|status) exec /usr/bin/doctor-lab service docker "$1" ;;
*) echo "Usage: service docker {start|stop|restart|reload|status}"; exit 3 ;;
esac
"""

_SERVICE = """\
#!/bin/sh
[ -x "/etc/init.d/$1" ] || { echo "$1: unrecognized service" >&2; exit 1; }
exec "/etc/init.d/$1" "$2"
"""

_PROGRAM = """\
#!/bin/sh
exec /usr/bin/doctor-lab run {name} "$@"
"""


def programs(names: tuple[str, ...]) -> dict[str, str]:
    """Give launchers by path below /usr: of programs that the holder runs, of `service`, and what asks the holder."""
    # -I and -S: what a lab's environment says of Python is not ours, and sites need not be read for one socket.
    ask = f"#!{sys.executable} -ISB\n" + _ASK
    return {
        "bin/doctor-lab": ask,
        "sbin/service": _SERVICE,
        **{f"bin/{name}": _PROGRAM.format(name=name) for name in names},
    }


_ASK = f"""\
import array, json, os, signal, socket, sys

def main():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect("{HOLDER}")
    verb, name, *rest = sys.argv[1:]
    if verb == "service":
        question, handles = {{"do": "service", "name": name, "action": rest[0]}}, []
    else:
        question = {{"do": "builtin", "argv": [name, *rest], "env": dict(os.environ), "cwd": os.getcwd()}}
        handles = [0, 1, 2]
    # Descriptors are sent with the message: what runs there writes where this would have.
    sent = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))] if handles else []
    sock.sendmsg([json.dumps(question).encode()], sent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda n, _: sock.send(json.dumps({{"do": "kill", "signal": n}}).encode()))
    while True:
        data = sock.recv(1 << 16)
        if not data:
            return 125
        answer = json.loads(data)
        if answer.get("say"):
            print(answer["say"], flush=True)
        if "error" in answer:
            print(answer["error"], file=sys.stderr)
            return answer.get("code", 1)
        if "exit" in answer:
            return answer["exit"]

sys.exit(main())
"""
