"""Sysctls of the network as the kernel has them, and the files that set them at boot.

Parses the trees `net/sysctl/ipv4` and `net/sysctl/ipv6` (`docker0/forwarding f 0.000 1`) and sysctl.d(5) files.
"""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, tree_entries


class Value(Struct, frozen=True):
    """A value in force, and where it can be read."""

    value: str
    cited: Citation


class Setting(Struct, frozen=True):
    """A line of a sysctl.d file: the key with dots, the value, the line as it stands, the file's mtime (epoch)."""

    key: str
    value: str
    path: str
    line: int
    text: str
    mtime: float
    cited: Citation


class Sysctls(Struct, frozen=True):
    """Values by path below /proc/sys/net (`ipv4/conf/lo/forwarding`), and the files' settings in order of effect."""

    values: dict[str, Value]
    files: tuple[Setting, ...]

    def value(self, path: str) -> str:
        """Give a value as text, empty when it could not be read."""
        held = self.values.get(path)
        return held.value if held else ""

    def setting(self, *keys: str) -> Setting | None:
        """Give the line that takes effect last at boot for one of these keys."""
        return next((one for one in reversed(self.files) if one.key in keys), None)


_ORDER = ("/usr/lib/sysctl.d/", "/usr/local/lib/sysctl.d/", "/run/sysctl.d/", "/etc/sysctl.d/")


@fact
def sysctls(snapshot: Snapshot) -> Sysctls:
    """Read the trees and the files; files of one name hide each other as sysctl.d(5) says, /etc first."""
    values: dict[str, Value] = {}
    record = snapshot.get("files/proc/sys/net/ipv4/ip_forward")
    if record.readable:
        text = record.text.strip()
        values["ipv4/ip_forward"] = Value(text, Citation(record.name, 1, text, record.target))
    for family in ("ipv4", "ipv6"):
        tree = snapshot.get(f"net/sysctl/{family}")
        if not tree.readable:
            continue
        for entry in tree_entries(tree):
            if entry.type == "f":
                text = entry.content.strip()
                place = f"/proc/sys/net/{family}/conf/{entry.path}"
                values[f"{family}/conf/{entry.path}"] = Value(text, Citation(tree.name, entry.line, text, place))
    if not values:
        raise EvidenceMissing("sysctls", record.why or record.status)
    for family in ("ipv4", "ipv6"):
        bind = snapshot.get(f"files/proc/sys/net/{family}/ip_nonlocal_bind")
        if bind.readable:
            text = bind.text.strip()
            values[f"{family}/ip_nonlocal_bind"] = Value(text, Citation(bind.name, 1, text, bind.target))
    return Sysctls(values, _files(snapshot))


def _files(snapshot: Snapshot) -> tuple[Setting, ...]:
    by_name: dict[str, str] = {}
    for folder in _ORDER:
        prefix = "files" + folder
        for record in snapshot.under(prefix):
            if record.readable:
                by_name[record.name.removeprefix(prefix)] = record.name
    names = [by_name[name] for name in sorted(by_name)]
    # systemd-sysctl does not read /etc/sysctl.conf, procps reads it last; ufw loads its own with its rules.
    names += ["files/etc/sysctl.conf", "files/etc/ufw/sysctl.conf"]
    found = []
    for name in names:
        record = snapshot.get(name)
        if not record.readable:
            continue
        for number, raw in enumerate(record.text.split("\n"), 1):
            line = raw.strip()
            if not line or line[0] in "#;":
                continue
            key, equals, value = line.removeprefix("-").partition("=")
            if not equals:
                continue
            dotted = key.strip().replace("/", ".")
            place = f"{record.target}:{number}"
            cited = Citation(name, number, line, place)
            found.append(Setting(dotted, value.strip(), record.target, number, raw, record.mtime, cited))
    return tuple(found)
