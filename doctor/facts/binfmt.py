"""Emulators that the kernel starts programs of other architectures with (binfmt_misc)."""

from __future__ import annotations

from msgspec import Struct

from doctor.registry import fact
from doctor.snapshot import Snapshot, need, tree_entries

_QEMU = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "arm": "arm",
    "386": "i386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "mips64le": "mips64el",
    "loong64": "loongarch64",
}
"""What the entries of qemu are called, by what Go calls the architecture."""


class Binfmt(Struct, frozen=True):
    """Names of the entries, in lower case."""

    entries: frozenset[str]

    def runs(self, architecture: str) -> bool:
        """Whether some entry is for an architecture: `qemu-aarch64`, Rosetta, FEX and others."""
        name = _QEMU.get(architecture, architecture)
        return any(one.endswith(f"-{name}") or one in {name, "rosetta", "fex"} for one in self.entries)


@fact
def binfmt(snapshot: Snapshot) -> Binfmt:
    """Read the directory; one that is not mounted has none."""
    record = snapshot.get("host/binfmt")
    if record.status == "absent":
        return Binfmt(frozenset())
    return Binfmt(frozenset(one.path.lower() for one in tree_entries(need(snapshot, "host/binfmt", "files"))))
