"""The image that is there from the start: `busybox:latest`, made of what this machine has, without a network.

Of the host's busybox, statically linked or with its libraries, or else of what `fallback` finds. It has commands that labs
need beside the usual ones, and that end at once when they are stopped: `idle`, `serve [[ADDRESS:]PORT]` and `echod PORT`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from doctor.runtime.daemon import fallback
from doctor.runtime.daemon.elf import needs
from doctor.runtime.daemon.tarsplit import Entry, Packed, pack

if TYPE_CHECKING:
    from doctor.runtime.daemon.store import Store
    from doctor.runtime.model import Image

NAMES = ("busybox:latest", "busybox:lab")
"""What it is called; the second is what the engines of the tests call theirs."""

_FOLDERS = ("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin")
_CREATED = "2023-11-14T22:13:20Z"
_APPLETS = (
    "[ arp arping ash awk base64 basename cat chgrp chmod chown clear cmp cp cut date dd df diff dirname dmesg du echo "
    "egrep env expr false fgrep find free grep gunzip gzip head hexdump hostname httpd id ifconfig ip kill killall "
    "ln ls md5sum mkdir mkfifo mknod mktemp more mount mv nc netstat nohup nproc nslookup od pgrep pidof ping ping6 "
    "pkill printf ps pwd readlink realpath rm rmdir route sed seq setsid sh sha256sum sleep sort stat stty sync sysctl "
    "tail tar tee telnet test time timeout top touch tr traceroute traceroute6 true truncate tty udhcpc umount uname "
    "uniq unshare uptime usleep vi watch wc wget which whoami xargs yes"
)
_ENDS = "#!/bin/sh\n# As the first process of a container, what sets no trap ignores SIGTERM.\ntrap 'exit 0' TERM INT\n"
_SCRIPTS = {
    "idle": _ENDS + "while :; do sleep 86400 & wait $!; done\n",
    "serve": _ENDS + 'httpd -f -p "${1:-80}" -h /www & wait $!\n',
    "echod": _ENDS + 'nc -ll -p "$1" -e cat & wait $!\n',
}
_PEER = '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n%s %s\\n" "$REMOTE_ADDR" "$(hostname)"\n'
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "hosts: files dns\n",
}


class Made(Struct, frozen=True):
    """The only layer of the image, and of what it was made: a path."""

    layer: Packed
    source: str


@lru_cache(maxsize=1)
def made() -> Made:
    """Make the layer of what this machine has, once in a process: labs are forks. Raises OSError where that cannot be read."""
    busybox = _busybox()
    if busybox is not None:
        return Made(pack(_whole(_of(busybox))), str(busybox))
    files, source = fallback.files()
    return Made(pack(_whole(files)), source)


def _busybox() -> Path | None:
    return next((path for folder in _FOLDERS if (path := Path(folder, "busybox")).is_file()), None)


def _of(busybox: Path) -> dict[str, Entry]:
    """Give busybox, under all its names, and its libraries."""
    files = {"bin/busybox": Entry("bin/busybox", 0o755, busybox.read_bytes())}
    for library in needs(busybox):
        path = str(library).lstrip("/")
        files[path] = Entry(path, 0o755, library.read_bytes())
    return files | {f"bin/{name}": Entry(f"bin/{name}", 0o777, link="busybox") for name in _APPLETS.split()}


def _whole(files: dict[str, Entry]) -> tuple[Entry, ...]:
    """Add what the image has beside programs: scripts, /etc, a page."""
    files |= {f"bin/{name}": Entry(f"bin/{name}", 0o755, text.encode()) for name, text in _SCRIPTS.items()}
    files |= {f"etc/{name}": Entry(f"etc/{name}", 0o644, text.encode()) for name, text in _ETC.items()}
    files["www/index.html"] = Entry("www/index.html", 0o644, b"it works\n")
    files["www/cgi-bin/peer"] = Entry("www/cgi-bin/peer", 0o755, _PEER.encode())
    return rooted(files)


def rooted(files: dict[str, Entry]) -> tuple[Entry, ...]:
    """Put the folders that files stand in before them, and those that every root has."""
    folders = {"tmp": 0o1777, "root": 0o700}
    for path in (*files, "dev/x", "proc/x", "sys/x", "etc/x", "var/x", "home/x", "usr/x"):
        for parent in Path(path).parents:
            if str(parent) != ".":
                folders.setdefault(str(parent), 0o755)
    entries = {path: Entry(path, mode) for path, mode in folders.items()} | files
    return tuple(entries[path] for path in sorted(entries))


def builtin(store: Store) -> Image:
    """Give the image of a data root, put there where it is missing. Raises OSError."""
    for image in store.images().values():
        if NAMES[0] in image.tags:
            return image
    layer = store.add_layer(made().layer)
    image = store.add_image(_config(), (layer,), NAMES)
    made.cache_clear()  # two megabytes that every shim would have a copy of
    return image


def _config() -> dict[str, Any]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return {
        "architecture": machine,
        "config": {"Cmd": ["sh"]},
        "created": _CREATED,
        "history": [{"created": _CREATED, "created_by": "doctor runtime", "comment": made().source}],
        "os": "linux",
    }
