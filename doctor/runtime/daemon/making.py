"""What a container has before it starts: layers, namespaces that it shares; and what the engine says of a failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from doctor.linux import mounting
from doctor.runtime import mounts
from doctor.runtime.container import ContainerError
from doctor.runtime.daemon import bundle
from doctor.runtime.daemon.fault import Fault, bad, broken, conflict

if TYPE_CHECKING:
    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.store import Mounted
    from doctor.runtime.model import Container


def mounted(engine: Engine, one: Container) -> Mounted:
    """Mount a container's layers, and say it in the engine's words when that fails. Raises Fault, OSError."""
    store = engine.store
    if not one.mount_id:
        raise broken(f"RWLayer of container {one.id} is unexpectedly nil")
    held = store.mounted(one.mount_id)
    if held.lowers == (f"{store.overlay}/",):
        raise broken(f"readlink {store.overlay}: invalid argument")
    os.makedirs(held.merged, 0o710, exist_ok=True)  # noqa: PTH103 - a text
    if not os.path.ismount(held.merged):
        try:
            mounts.mount_overlay(mounts.Overlay(held.lowers, held.upper, held.work), held.merged)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise broken(f"error creating overlay mount to {held.merged}: {why}") from error
    return held


def shared(engine: Engine, one: Container) -> bundle.Shared:
    """Give the namespaces that a container has with others. Raises Fault."""
    mode = one.spec.network_mode
    network = "host" if mode == "host" else _of(engine, mode, "net")
    return bundle.Shared(network, _of(engine, one.spec.pid_mode, "pid"), _of(engine, one.spec.ipc_mode, "ipc"))


def _of(engine: Engine, mode: str, kind: str) -> str:
    if mode == "host":
        return "host"
    if not mode.startswith("container:"):
        return ""
    other = engine.container(mode.partition(":")[2])
    if other.state != "running":
        what = (
            "cannot join network of a non running container" if kind == "net" else "cannot join a non running container"
        )
        raise conflict(f"{what}: {other.id}")
    return f"/proc/{other.pid}/ns/{kind}"


def in_words(release: tuple[int, int], error: Exception) -> Fault:
    """Put the runtime's words behind the engine's."""
    head = "" if release < (23, 0) else "failed to create task for container: "
    tail = ": unknown" if release < (28, 0) else ""
    init = "error during container init: " if release >= (28, 0) and isinstance(error, ContainerError) else ""
    said = f"runc create failed: unable to start container process: {init}{error}"
    fault = bad(f"{head}failed to create shim task: OCI runtime create failed: {said}{tail}")
    fault.code = getattr(error, "code", 125)  # type: ignore[attr-defined]  # told to who starts it
    return fault


def keep_namespace(run: str, name: str, namespace: str) -> str:
    """Bind a network namespace to a file, as libnetwork does, so that readers find it. Raises Fault."""
    path = f"{run}/netns/{name}"
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120 - a text
        if not os.path.exists(path):  # noqa: PTH110 - as above
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o444))
            mounting.bind(namespace, path)
    except OSError as error:
        raise broken(f"failed to keep network namespace {path}: {(error.strerror or '').lower()}") from error
    return path
