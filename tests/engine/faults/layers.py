"""Faults of layers that are seen without reading their content; tests/engine/test_layers.py has the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

LAYERDB = "/var/lib/docker/image/overlay2/layerdb/sha256"
_HISTORY = """
import hashlib, json, pathlib
root = pathlib.Path("/var/lib/docker/image/overlay2")
names = json.loads((root / "repositories.json").read_text())
held = names["Repositories"]["busybox"]["busybox:lab"]
content = root / "imagedb/content/sha256"
config = json.loads((content / held[7:]).read_text())
config["history"] = [{"created": "2020-01-01T00:00:00Z"}] * (len(config["rootfs"]["diff_ids"]) + 1)
text = json.dumps(config).encode()
name = hashlib.sha256(text).hexdigest()
(content / name).write_bytes(text)
names["Repositories"]["shop/history"] = {"shop/history:1": "sha256:" + name}
(root / "repositories.json").write_text(json.dumps(names))
"""


def _half_removed(host: EngineHost) -> None:
    folder = f"{LAYERDB}/{'ab' * 32}-1234-removing"
    host.sh(f"mkdir {folder}; printf {'cd' * 32} >{folder}/cache-id")


def _history(host: EngineHost) -> None:
    """Load and pull refuse such an image: it comes with a copied store, or from an engine that did not look yet."""
    host.stop_dockerd()
    host.run("python3", "-c", _HISTORY)
    host.start_dockerd()
    for name in ("web", "cron", "api", "db"):
        host.docker("start", name)


FAULTS = (
    Fault("LAY017", "left", _half_removed, lambda h: h.sh(f"ls {LAYERDB} | grep -c removing || true"), level="info"),
    Fault(
        "LAY022",
        "loaded",
        _history,
        lambda h: h.run("docker", "history", "shop/history:1", check=False).stderr,
        level="warning",
        heal=lambda h: h.docker("rmi", "shop/history:1"),
    ),
)
