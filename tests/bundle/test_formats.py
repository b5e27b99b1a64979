"""A committed bundle of every format is read as it was on the day it was made, for ever.

A file in `data/` is never made anew. A new format, or a writer that prints the same format in another way, adds one:
`.venv/bin/python -c 'from doctor.bundle import write; from tests.bundle.test_formats import ALL; write(ALL, PATH)'`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.bundle import read
from doctor.examples import path as example
from doctor.snapshot import Meta, Record, Snapshot

DATA = Path(__file__).parent / "data"

META = Meta("1.0", "us1", "6.1.0", "x86_64", 1795520335.25, 3600, 0, "root", 0.5)

FIRST = Snapshot(
    META,
    {
        "files/etc/docker/daemon.json": Record(
            "files/etc/docker/daemon.json",
            "file",
            "/etc/docker/daemon.json",
            data=b'{"debug": true}\n',
            size=16,
            sha256="0" * 64,
            mtime=1795520000.5,
        ),
        "net/nft": Record("net/nft", "command", "nft -j -t list ruleset", status="absent", why="nft is not installed"),
        "api/info": Record("api/info", "api", "/info", data=b'{"Driver": "overlay2"}', size=22, redactions=1),
    },
    {"environment": 2},
    bundle=True,
)
"""What `format-1.tar.gz` holds: by the first writer, without a digest of the manifest."""

ALL = Snapshot(
    Meta("1.0.0", "caf\xe9", "6.18.44", "aarch64", 1795520335.25, 20_700, 1000, "nobody", 0.4375),
    {
        one.name: one
        for one in (
            Record("net/rules", "command", "iptables-nft-save", data=b"*filter\nCOMMIT\n", ms=12.5, size=15),
            Record(
                "files/etc/docker/daemon.json",
                "file",
                "/etc/docker/daemon.json",
                data=b'{"http-proxy":"http://\xc2\xabsecret 1, 9\xe2\x80\x9316 chars\xc2\xbb@proxy:3128"}\n',
                size=64,
                sha256="a07d3dd5bbef4c0697a84fc04ae3034213c8db90e26a046a43d6466e82dd93cb",
                mtime=1795520000.5,
                redactions=1,
            ),
            Record("store/links", "tree", "/var/lib/docker/overlay2", data=b"a/link\tf\t1795520000.500\tJQHT\\n\n"),
            Record("api/version", "api", "/version", "timeout", why="no answer in 2.0 s", errno=110, ms=2000.125),
            Record("netns/4026532250/links", "netns", "links", "denied", why="operation not permitted", errno=1),
            Record("proc/modules", "kernel", "/proc/modules", "truncated", b"cut\xff\0", "after 1 MiB", size=1 << 21),
            Record("logs/dockerd", "command", "journalctl -u docker", "failed", b"No journal", "exit status 1"),
            Record("net/nft", "command", "nft -j -t list ruleset", "not-run", why="nf_tables is not loaded"),
            Record("files/etc/docker/key.json", "file", "/etc/docker/key.json", "absent", why="no such file", errno=2),
            Record("files/etc/hosts.empty", "file", "/etc/hosts.empty", size=0, mtime=-1.5),
            Record("files/../odd \u202e name", "file", "/odd\tname", data=b"odd"),
        )
    },
    {"environment": 5, "proxy password": 1},
    bundle=True,
)
"""What `format-1-digest.tar.gz` holds: every kind, every status, every field."""


@pytest.mark.parametrize(("name", "snapshot"), [("format-1", FIRST), ("format-1-digest", ALL)])
def test_every_format_for_ever(name: str, snapshot: Snapshot) -> None:
    """Nothing that a bundle said is lost or read in another way."""
    back = read(str(DATA / f"{name}.tar.gz"))
    assert back == snapshot
    assert list(back.records) == list(snapshot.records)


def test_each_is_tried() -> None:
    """No committed bundle is forgotten."""
    assert sorted(path.name for path in DATA.iterdir()) == ["format-1-digest.tar.gz", "format-1.tar.gz"]


@pytest.mark.parametrize("name", ["daemon-stopped", "forwarding-off", "rules-flushed"])
def test_what_ships(name: str) -> None:
    """The examples are bundles as well, and whole."""
    back = read(example(name))
    assert not back.damage
    assert len(back.records) > 100
