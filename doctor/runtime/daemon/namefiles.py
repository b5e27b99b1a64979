"""The files of names that the engine writes and binds into a container: hosts, hostname, resolv.conf."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from doctor.runtime import names
from doctor.runtime.process import small

if TYPE_CHECKING:
    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.model import Container

_FILES = ("hosts", "hostname", "resolv.conf")


class NameFiles:
    """Those of one daemon's containers, as they were written last while each runs."""

    def __init__(self, engine: Engine) -> None:
        """Write none yet."""
        self._engine = engine
        self._texts: dict[tuple[str, str], str] = {}

    def write(self, one: Container) -> None:
        """Write hosts, hostname and resolv.conf in place: they are bound into the container. Raises OSError."""
        if one.spec.network_mode.startswith("container:"):
            other = self._engine.container(one.spec.network_mode.partition(":")[2])
            for name in _FILES:
                text = (self._engine.state.folder(other.id) / name).read_text()
                _write(f"{self._engine.state.folder(one.id)}/{name}", text)
            return
        world = self._engine.world
        texts = {
            "hosts": names.hosts(world, one),
            "hostname": names.hostname(one) + "\n",
            "resolv.conf": names.resolv_conf(world, one, _resolv()),
        }
        folder = self._engine.state.folder(one.id)
        for name, text in texts.items():
            if self._texts.get((one.id, name)) != text:
                _write(f"{folder}/{name}", text)
                self._texts[one.id, name] = text

    def forget(self, identity: str) -> None:
        """A container has ended: a person may edit its files while it does not run."""
        for name in _FILES:
            self._texts.pop((identity, name), None)


def _resolv() -> str:
    try:
        return small("/etc/resolv.conf")
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    """Write it in place, without what pathlib and text files cost: a start writes three, twice."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
