"""Faults of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, starts

if TYPE_CHECKING:
    from tests.enginehost import EngineHost


# What breaks


def _link_of_image(host: EngineHost) -> tuple[str, str]:
    """Give layer id and short link of the image's only layer."""
    layer = host.sh("cat /var/lib/docker/image/overlay2/layerdb/sha256/*/cache-id").strip()
    return layer, host.read(f"/var/lib/docker/overlay2/{layer}/link").strip()


def _short_link_gone(host: EngineHost) -> None:
    host.sh(f"rm /var/lib/docker/overlay2/l/{_link_of_image(host)[1]}")


def _short_link_elsewhere(host: EngineHost) -> None:
    layer, link = _link_of_image(host)
    host.sh(f"ln -sfn ../{layer}/dif /var/lib/docker/overlay2/l/{link}")


FAULTS = (
    Fault("LAY002", "gone", _short_link_gone, starts),
    Fault("LAY002", "elsewhere", _short_link_elsewhere, starts),
)
