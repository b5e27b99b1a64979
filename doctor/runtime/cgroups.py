"""Control groups: the hierarchies as a machine has them, seen from a namespace (cgroups(7), cgroup_namespaces(7))."""

from __future__ import annotations

from contextlib import suppress

from doctor.linux import mounting
from doctor.linux.mounting import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from doctor.runtime.process import small

ROOT = "/sys/fs/cgroup"


def prepared(*, readonly: bool, own_namespace: bool = True) -> list[tuple[str, int]]:
    """Prepare what is mounted at /sys/fs/cgroup: places and mounts that hang nowhere yet, in their order.

    With version 1 there is a mount for each hierarchy below a tmpfs. In a cgroup namespace of one's own they are mounted,
    else bound with the caller's own group in place of the root, and flags are set when they are there. Nothing where a
    machine has none, or lets no user mount them.
    """
    flags = MS_NOSUID | MS_NOEXEC | MS_NODEV | (MS_RDONLY if readonly else 0)
    lines = [line.split(":", 2) for line in small("/proc/self/cgroup").splitlines()]
    unified = [line[1] for line in lines] == [""]
    found: list[tuple[str, int]] = []
    with suppress(OSError):
        if not unified and not own_namespace:
            found.append((ROOT, mounting.tree(ROOT, recursive=True)))
        elif not unified:
            found.append((ROOT, mounting.prepared("tmpfs", ("mode=755",), flags & ~MS_RDONLY, "tmpfs")))
        for _, words, group in lines:
            name = words.removeprefix("name=") or "unified"
            place = ROOT if unified else f"{ROOT}/{name}"
            if not own_namespace:
                if unified or group != "/":
                    found.append((place, mounting.tree(f"{place}{group}")))
                continue
            kind = "cgroup" if words else "cgroup2"
            found.append((place, mounting.prepared(kind, words.split(",") if words else (), flags, kind)))
    return found
