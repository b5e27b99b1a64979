"""What stands for containerd: a process of that name with its socket, as dockerd starts one where the system has none."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from doctor.linux import syscalls
from doctor.runtime.process import close_others, default_signals, set_title


def start(run: str) -> int:
    """Fork it, unless one runs already; gives its pid. Raises OSError."""
    place = Path(run, "containerd")
    place.mkdir(parents=True, exist_ok=True)
    pidfile = place / "containerd.pid"
    held = _runs(pidfile)
    if held:
        return held
    path = place / "containerd.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(os.fspath(path))
    path.chmod(0o660)
    listener.listen(8)
    Path("/run/containerd").mkdir(mode=0o711, exist_ok=True)
    (place / "containerd.toml").write_text(f'root = "/var/lib/docker/containerd/daemon"\nstate = "{place}/daemon"\n')
    pid = syscalls.clone(0)
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            default_signals()
            os.setsid()
            close_others((listener.fileno(),))
            config = f"/var{place}/containerd.toml"
            set_title("containerd", ("containerd", "--config", config))
            while True:
                signal.pause()
        finally:
            os._exit(0)
    listener.close()
    pidfile.write_text(str(pid), encoding="ascii")
    return pid


def stop(run: str) -> None:
    """End it."""
    held = _runs(Path(run, "containerd/containerd.pid"))
    if held:
        with suppress(ProcessLookupError):
            os.kill(held, signal.SIGTERM)


def _runs(pidfile: Path) -> int:
    try:
        pid = int(pidfile.read_text(encoding="ascii"))
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return 0
    return pid if name == "containerd" else 0
