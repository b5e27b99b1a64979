"""User namespaces: root for who is not root, which ids exist in one, and why a kernel refuses (user_namespaces(7)).

Three ways to be root of a lab: to be root; with a range of ids of one's own (/etc/subuid, given by newuidmap(1)); with the
one id that one is. With one id there is no other user: chown, setuid and setgroups to others fail, as they must.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOSPC, ENOSYS, EPERM, EUSERS
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from doctor.linux import spawn
from doctor.runtime.process import small

if TYPE_CHECKING:
    from collections.abc import Callable

Privilege = Literal["root", "subuid", "plain"]

_SECONDS = 5.0
_BYTES = 1 << 16
_ALL = 4294967295
_SMALLEST = 1000
"""Ids that a range must have to be of use: nobody (65534) need not exist, daemons of a distribution do."""


class Range(NamedTuple):
    """Ids from `first` on, `size` of them, that a user may give away (subuid(5))."""

    first: int
    size: int


class Ids(NamedTuple):
    """What a new user namespace is given: the ids of who makes it, and ranges (size 0: none)."""

    uid: int
    gid: int
    uids: Range = Range(0, 0)
    gids: Range = Range(0, 0)

    @property
    def privilege(self) -> Privilege:
        """The column of the table in docs/runtime.md."""
        return "subuid" if self.uids.size and self.gids.size else "plain"


def inside() -> bool:
    """Whether this process is in a user namespace that is not the first: trusted.* attributes and devices are not for it."""
    try:
        text = small("/proc/self/uid_map")
    except OSError:
        return False
    return text.split() != ["0", "0", str(_ALL)]


def is_mapped(number: int, kind: Literal["uid", "gid"] = "uid") -> bool:
    """Whether an id exists in this user namespace."""
    for line in small(f"/proc/self/{kind}_map").splitlines():
        first, _, count = (int(word) for word in line.split())
        if first <= number < first + count:
            return True
    return False


def available() -> Ids:
    """Give what the calling user can map: ranges where /etc/subuid and /etc/subgid have one and newuidmap is there."""
    uid, gid = os.geteuid(), os.getegid()
    uids, gids = _range("/etc/subuid", uid), _range("/etc/subgid", uid)
    tools = all(any(os.access(f"{folder}/{tool}", os.X_OK) for folder in spawn.PATH.split(":")) for tool in _TOOLS)
    if tools and uids.size >= _SMALLEST and gids.size >= _SMALLEST:
        return Ids(uid, gid, uids, gids)
    return Ids(uid, gid)


_TOOLS = ("newuidmap", "newgidmap")


def _range(path: str, uid: int) -> Range:
    """Find the widest range of a user in a file of subuid(5), by name or by number."""
    import pwd

    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Range(0, 0)
    return widest(text, {name, str(uid)})


def widest(text: str, names: set[str]) -> Range:
    r"""Give the widest range that lines `NAME:FIRST:COUNT` give one of these names.

    >>> widest("ann:100000:65536\nbob:165536:10\n", {"bob", "1001"})
    Range(first=165536, size=10)
    """
    found = Range(0, 0)
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if name in names and first.isdigit() and count.isdigit() and int(count) > found.size:
            found = Range(int(first), int(count))
    return found


def write_own_map(ids: Ids) -> None:
    """Map the one id that we are to 0, from within the new namespace. Raises OSError."""
    for name, text in (("setgroups", "deny"), ("gid_map", f"0 {ids.gid} 1"), ("uid_map", f"0 {ids.uid} 1")):
        Path(f"/proc/self/{name}").write_text(text, encoding="utf-8")


def write_range_maps(pid: int, ids: Ids) -> None:
    """Map our id to 0 and the ranges from 1 on, for a child in a new namespace. Raises OSError with what newuidmap says."""
    for tool, own, given in (("newuidmap", ids.uid, ids.uids), ("newgidmap", ids.gid, ids.gids)):
        words = (tool, str(pid), "0", str(own), "1", "1", str(given.first), str(given.size))
        done = spawn.run(words, deadline_seconds=_SECONDS, limit_bytes=_BYTES)
        if done.returncode or done.status != "ok":
            said = done.stderr.decode("utf-8", "replace").strip() or done.status
            raise OSError(EPERM, f"{tool}: {said}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def refusal(error: OSError, read: Callable[[str], str] = _read) -> str:
    """Say why this kernel lets no user namespace be made, and what to do: which sysctl, which profile.

    `error` is what unshare(2), the maps or the first mount gave. Debian's kernel had a sysctl of its own until 2021, Ubuntu
    since 23.10 leaves the namespace without rights, RHEL 7 and hardened hosts allow none, Docker's seccomp profile forbids
    the call.
    """
    or_root = "or run it as root"
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return f"kernel.unprivileged_userns_clone is 0: sysctl -w kernel.unprivileged_userns_clone=1, {or_root}"
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "kernel.apparmor_restrict_unprivileged_userns is 1: give the Python that runs this a profile with `userns,` "
            f"in /etc/apparmor.d, sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, {or_root}"
        )
    if read("/proc/sys/user/max_user_namespaces") == "0":
        return f"user.max_user_namespaces is 0: sysctl -w user.max_user_namespaces=15000, {or_root}"
    if error.errno in {ENOSPC, EUSERS}:
        return "user.max_user_namespaces is used up, or namespaces are nested 32 deep: end some, or raise the sysctl"
    if error.errno in {EINVAL, ENOSYS}:
        return f"this kernel has no user namespaces (CONFIG_USER_NS): {or_root}"
    if "2" in read("/proc/self/status").partition("Seccomp:")[2].split()[:1]:
        return (
            "a seccomp profile forbids it, as Docker's does in a container: start that with --security-opt "
            f"seccomp=unconfined, {or_root}"
        )
    if read("/sys/fs/selinux/enforce") == "1":
        return f"SELinux may forbid it (user_namespace create): ausearch -m avc tells, {or_root}"
    return f"{(error.strerror or 'not permitted').lower()}, and no sysctl says why: {or_root}"
