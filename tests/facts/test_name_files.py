"""What `facts/name_files.py` derives of the files that it has read."""

from __future__ import annotations

from pathlib import Path

from doctor.examine import Facts
from doctor.facts.name_files import NameFiles
from doctor.registry import load
from tests.cases import casefile


def test_whom_the_host_asks() -> None:
    """Addresses without a zone, each once, of both files; comments and what is no address are left out."""
    path = Path(__file__).parent / "namefiles" / "host-only.toml"
    files: NameFiles = Facts(load(plugins=False), casefile.snapshot(path)).get(NameFiles)
    assert {address: (cited.place, cited.excerpt) for address, cited in files.asked.items()} == {
        "127.0.0.53": ("/etc/resolv.conf:2", "nameserver 127.0.0.53"),
        "fe80::1": ("/etc/resolv.conf:3", "nameserver fe80::1%eth0"),
        "10.8.0.1": ("/run/systemd/resolve/resolv.conf:1", "nameserver 10.8.0.1"),
    }
