"""What outlives a daemon: which containers are found again at its start, which are started, and how all are stopped.

With live-restore what runs goes on. Without, a daemon that was killed leaves containers behind, and the next one ends them
before it looks at their restart policies (moby daemon/daemon.go restore; seen on 20.10.24, 26.1.5 and 28.5.2).
"""

from __future__ import annotations

import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from doctor.runtime import shim
from doctor.runtime.container import ContainerError
from doctor.runtime.daemon.log import stamp
from doctor.runtime.daemon.places import TASKS
from doctor.runtime.model import Bound, Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.runtime.daemon.running import Running
    from doctor.runtime.model import Container

_LOST = 255
"""The exit code of a container whose end nobody saw."""


class _Held(Struct):
    """Of a running container, what its file in the data root does not tell: names of links, ports in force."""

    endpoints: tuple[Endpoint, ...]
    ports: tuple[Bound, ...]


def remember(one: Container) -> None:
    """Write down how a container is connected, beside its shim; libnetwork keeps the same in its database."""
    with suppress(OSError), open(f"{TASKS}/{one.id}/endpoints.json", "wb", buffering=0) as file:  # noqa: PTH123 - fifty
        file.write(msgspec.json.encode(_Held(one.endpoints, one.ports)))


def _recalled(one: Container) -> Container:
    try:
        held = msgspec.json.decode(Path(TASKS, one.id, "endpoints.json").read_bytes(), type=_Held)
    except (OSError, msgspec.MsgspecError):
        return one
    return replace(one, endpoints=held.endpoints, ports=held.ports)


def restore(running: Running) -> list[str]:
    """Find again what ran when the daemon ended; give the ids of what has to be started now."""
    again = []
    for one in list(running.engine.world.containers.values()):
        left = _find(running, one) if one.state in {"running", "restarting", "paused"} else one
        if left is not None and _at_start(running, left):
            again.append(one.id)
    return again


def _at_start(running: Running, one: Container) -> bool:
    """Whether a start of the daemon starts a container: `always` even one that a person had stopped."""
    return one.state == "exited" and (one.spec.restart == "always" or running.policy(one))


def _find(running: Running, one: Container) -> Container | None:
    """Take a container over that ran, or end it; None when it runs on."""
    engine = running.engine
    held = _shim(one)
    if held is not None and engine.settings.values["live-restore"]:
        running.engine.world.containers[one.id] = _recalled(one)
        running.adopt(one.id, held)
        return None
    code, at = _LOST, stamp()
    if held is not None:
        held.kill(signal.SIGKILL)
        code, at = held.exit()
        running.shims[one.id] = held
    running.clean(one, cold=True)
    one = replace(
        engine.world.containers[one.id],
        state="exited",
        pid=0,
        shim=0,
        exit_code=code,
        finished=at,
        sandbox="",
        sandbox_id="",
    )
    return engine.put(one)


def _shim(one: Container) -> shim.Shim | None:
    try:
        return shim.reconnect(f"{TASKS}/{one.id}")
    except (OSError, ContainerError):
        return None


def stop_all(running: Running, done: Callable[[], None]) -> None:
    """Stop everything that runs, for the end of the daemon: each by its own signal, and by SIGKILL in the end."""
    running.stopping = True
    running.cancel_all()
    left = set(running.shims)
    if not left:
        done()

    def one_less(identity: str, _: int) -> None:
        left.discard(identity)
        if not left:
            done()

    for identity in list(left):
        one = running.engine.world.containers[identity]
        running.ended.setdefault(identity, []).append(partial(one_less, identity))
        running.shims[identity].kill(running.stop_signal(one))
        running.engine.loop.later(one.spec.stop_timeout, partial(running.end, identity))
