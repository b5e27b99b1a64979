"""The table of sources: names, bounds, and what a source would load is not run where it is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor import sources
from doctor.collect import collect
from doctor.host import LocalHost
from doctor.linux.spawn import Completed
from doctor.places import Places

if TYPE_CHECKING:
    from pathlib import Path

    from doctor.snapshot import Snapshot

NOWHERE = Places(
    pid=0,
    argv=(),
    binary="",
    config_file="/nowhere/daemon.json",
    data_root="/nowhere",
    exec_root="/nowhere",
    pidfile="/nowhere/pid",
    log="/nowhere/log",
    address="unix:///nowhere/docker.sock",
)


class FakeHost(LocalHost):
    """This machine, with the kernel modules that the test says, and no command really run."""

    def __init__(self, modules: set[str]) -> None:
        """Have these modules."""
        super().__init__()
        self.modules = modules
        self.commands: list[str] = []

    def has_module(self, name: str) -> bool:
        """Answer by the set."""
        return name in self.modules

    def run(self, argv: tuple[str, ...], seconds: float, limit: int) -> Completed:
        """Note the command, run nothing."""
        del seconds, limit
        self.commands.append(argv[0])
        return Completed(0, b"", b"", "ok", 0.0)


def gather(modules: set[str]) -> tuple[FakeHost, Snapshot]:
    """Collect from a fake host."""
    host = FakeHost(modules)
    return host, collect(host, places=NOWHERE, deadline=20.0)


def test_nothing_is_loaded() -> None:
    """Without the modules, no saver and no nft is run, and the record says which module it would have loaded."""
    host, snapshot = gather(set())
    assert host.commands == ["journalctl"]
    for name in ("net/iptables-nft", "net/iptables-legacy", "net/nft"):
        record = snapshot.get(name)
        assert record.status == "not-run"
        assert "kernel module" in record.why
    listeners = snapshot.get("netns/host/listeners")
    assert "inet_diag" in listeners.why


def test_what_is_there_is_used() -> None:
    """With a module, just the commands that use it are run."""
    host, _ = gather({"nf_tables"})
    assert set(host.commands) >= {"iptables-nft-save", "ip6tables-nft-save", "nft"}
    assert not {"iptables-legacy-save", "ip6tables-legacy-save"} & set(host.commands)


def test_the_table() -> None:
    """Every row has a name of its own, a bound, and a command that loads modules says so."""
    names = [source.name for source in sources.SOURCES]
    assert len(names) == len(set(names))
    for source in sources.SOURCES:
        assert 0 < source.limit <= 32 << 20
        assert 0 < source.seconds <= 5
        assert ".." not in source.name
        if source.kind == "command" and ("tables" in source.target or source.target.startswith("nft")):
            assert source.touches
        assert not source.target.startswith("docker ")


def test_absence_is_a_record() -> None:
    """What is not there is in the snapshot all the same, with its reason."""
    _, snapshot = gather(set())
    assert snapshot.get("engine/daemon.json").status == "absent"
    assert snapshot.get("store/overlay2").status == "absent"
    assert snapshot.get("api/ping").status == "absent"


def test_certificates_and_never_keys(tmp_path: Path) -> None:
    """Of a file of certificates the certificates are kept; a key that stands beside them, or is named, is not read."""
    block = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    key = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----"
    both, alone = tmp_path / "both.pem", tmp_path / "key.pem"
    both.write_text(f"# ours\n{key}\n{block}\n{block}\n")
    alone.write_text(key)
    named = {"tlscert": str(both), "tlscacert": str(tmp_path / "nothing.pem"), "tlskey": str(alone)}
    snapshot = collect(FakeHost(set()), places=replace(NOWHERE, tls=named, paths=tuple(named.values())), deadline=5.0)
    assert snapshot.get("engine/certificates/tlscert").text == f"{block}\n{block}\n"
    assert snapshot.get("engine/certificates/tlscacert").status == "absent"
    assert f"{alone}\tf" in snapshot.get("engine/paths").text
    assert f"{tmp_path}\td" in snapshot.get("engine/key-folders").text
    assert not [name for name, record in snapshot.records.items() if "c2VjcmV0" in record.text]
