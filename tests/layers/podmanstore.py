"""A store that podman itself made, of one image with something of everything, and copies of it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.layers import podman
from tests.layers.archives import new_save
from tests.layers.chance import chance_of
from tests.layers.containerd import varied

if TYPE_CHECKING:
    from collections.abc import Iterator


def made() -> Iterator[Path]:
    """A store with one image of three layers, which podman unpacked. Its runroot may have 50 characters, no more."""
    folder = Path(tempfile.mkdtemp(prefix="doctor-"))
    chance = chance_of(1)
    (folder / "image.tar").write_bytes(new_save([varied(chance, at) for at in range(3)]).packed())
    argv = ["podman", "--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "overlay"]
    subprocess.run([*argv, "load", "-i", folder / "image.tar"], check=True, capture_output=True)
    listed = subprocess.run([*argv, "images", "-q"], check=True, capture_output=True, text=True)
    subprocess.run([*argv, "tag", listed.stdout.strip(), "shop/base:12"], check=True, capture_output=True)
    yield folder / "root"
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:  # noqa: PTH123 - podman binds its own root
        points = [line.split(" ")[4] for line in mounts if str(folder) in line]
    for point in reversed(points):
        subprocess.run(["umount", point], check=False)
    shutil.rmtree(folder)


def copied(healthy: Path, folder: Path) -> Path:
    """The store once more."""
    subprocess.run(["cp", "-a", healthy, folder / "root"], check=True)
    return folder / "root"


def layers(root: Path) -> list[str]:
    """The ids of the layers, the base first."""
    store = podman.read_store(str(root))
    return list(reversed(store.chain(store.images[0].layer)))
