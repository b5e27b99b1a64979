"""What the checks make of a verified store, and its cure carried out as it is printed."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.layering import judged
from doctor.layers.containerd_model import dump as dump_store
from doctor.model import Command
from doctor.registry import load
from doctor.snapshot import Record
from tests.cases import casefile

if TYPE_CHECKING:
    from doctor.layers.containerd_model import Store
    from doctor.model import Reported


def findings(store: str, lines: bytes, of: Store | None = None) -> tuple[Reported, ...]:
    """What the checks make of it."""
    base = casefile.base("healthy-28")
    records = {**base.records, f"layers/{store}": Record(f"layers/{store}", "command", "", data=lines)}
    if of is not None:
        records["store/containerd"] = Record("store/containerd", "file", of.root, data=dump_store(of))
    return judged(replace(base, records=records), load(plugins=False), (), deep=True, began=0.0)[0].findings


def carry_out(found: Reported) -> None:
    """Do what is printed, but for engines that are not here."""
    for step in found.remedy.steps:
        if not isinstance(step, Command) or step.argv[0] == "docker":
            continue
        if step.argv[0] == "setfattr":  # of a package that not every machine has
            name, value, path = step.argv[2], step.argv[4] if step.argv[1] == "-n" else "", step.argv[-1]
            if value:
                os.setxattr(path, name, bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode())
            else:
                os.removexattr(path, name)
        else:
            subprocess.run(step.argv, input=step.stdin, text=True, check=True)
