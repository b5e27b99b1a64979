"""Captured text → the fact beside it: `tests/facts/<fact>/<name>.toml` holds records, `<name>.json` what is made of them.

A file gives records as a case does (`tests/cases/README.md`), over a shared base or none; the fact is named by the folder.
`pytest tests/facts --update-golden` writes the expected facts anew: read the difference before it is committed.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doctor.examine import Facts
from doctor.facts.asked import Asked
from doctor.facts.backing import Backing
from doctor.facts.binfmt import Binfmt
from doctor.facts.bootrules import BootRules
from doctor.facts.bridge_filter import BridgeFilter
from doctor.facts.certificates import Certificates
from doctor.facts.cgroups import Cgroups, EngineInfo, Hierarchies, Inits
from doctor.facts.chain_users import ChainUsers
from doctor.facts.client import Client
from doctor.facts.clock import Clock
from doctor.facts.config import ConfigFile, DaemonJson, Options
from doctor.facts.containerd import ContainerdStore
from doctor.facts.containerfiles import ContainerFiles
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog, Starting
from doctor.facts.deleted_files import DeletedFiles
from doctor.facts.embedded_dns import InnerRules
from doctor.facts.ends import Ends
from doctor.facts.engine_rules import EngineRules
from doctor.facts.groups import DockerGroup
from doctor.facts.images import Images
from doctor.facts.kernellog import KernelLog
from doctor.facts.layer_content import Impacts, LayerContent
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.links import Links, Namespaces, Routes
from doctor.facts.loaded import Loaded
from doctor.facts.logs import Logs
from doctor.facts.lowers import Lowers
from doctor.facts.mounts import Mounts
from doctor.facts.name_files import NameFiles
from doctor.facts.native_rules import NativeRules
from doctor.facts.networks import Networks
from doctor.facts.nextstart import NextStart
from doctor.facts.openfiles import OpenFiles
from doctor.facts.other_roots import HiddenStores, OtherRoots
from doctor.facts.overlay_mounts import OverlayMounts
from doctor.facts.owners import Owners
from doctor.facts.paths import Paths
from doctor.facts.pidfile import PidFile
from doctor.facts.processes import Processes
from doctor.facts.proxies import Proxies
from doctor.facts.routes import Clamps, Routing, Strays
from doctor.facts.rules import Firewall
from doctor.facts.sandboxes import Sandboxes
from doctor.facts.sockets import Sockets
from doctor.facts.space import Drivers, Space
from doctor.facts.stale_rules import StaleRules
from doctor.facts.store import LayerDb, Overlay
from doctor.facts.subnets import Subnets
from doctor.facts.sysctls import Sysctls
from doctor.facts.unit import Units
from doctor.facts.volumes import BindSources, Volumes
from doctor.model import Citation
from doctor.places import Places
from doctor.registry import load
from doctor.snapshot import EvidenceMissing, Record
from tests.cases import casefile

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*/*.toml"))
REGISTRY = load(plugins=False)

FACTS: dict[str, type] = {
    "asked": Asked,
    "backing": Backing,
    "bindsources": BindSources,
    "binfmt": Binfmt,
    "bootrules": BootRules,
    "bridgefilter": BridgeFilter,
    "chain_users": ChainUsers,
    "clamps": Clamps,
    "certificates": Certificates,
    "cgroups": Cgroups,
    "client": Client,
    "clock": Clock,
    "config": ConfigFile,
    "containerdstore": ContainerdStore,
    "containerfiles": ContainerFiles,
    "containers": Containers,
    "daemon": Daemon,
    "daemonjson": DaemonJson,
    "deletedfiles": DeletedFiles,
    "dockergroup": DockerGroup,
    "innerrules": InnerRules,
    "engine_rules": EngineRules,
    "ends": Ends,
    "drivers": Drivers,
    "images": Images,
    "impacts": Impacts,
    "layercontent": LayerContent,
    "layerdb": LayerDb,
    "hiddenstores": HiddenStores,
    "hierarchies": Hierarchies,
    "info": EngineInfo,
    "inits": Inits,
    "kernellog": KernelLog,
    "lifecycle": Lifecycle,
    "links": Links,
    "log": DaemonLog,
    "namefiles": NameFiles,
    "loaded": Loaded,
    "lowers": Lowers,
    "logs": Logs,
    "mounts": Mounts,
    "namespaces": Namespaces,
    "nativerules": NativeRules,
    "networks": Networks,
    "nextstart": NextStart,
    "openfiles": OpenFiles,
    "starting": Starting,
    "options": Options,
    "otherroots": OtherRoots,
    "overlay": Overlay,
    "overlaymounts": OverlayMounts,
    "owners": Owners,
    "paths": Paths,
    "pidfile": PidFile,
    "places": Places,
    "processes": Processes,
    "proxies": Proxies,
    "routes": Routes,
    "routing": Routing,
    "rules": Firewall,
    "sandboxes": Sandboxes,
    "sockets": Sockets,
    "strays": Strays,
    "stalerules": StaleRules,
    "space": Space,
    "subnets": Subnets,
    "sysctls": Sysctls,
    "units": Units,
    "volumes": Volumes,
}


def plain(value: Any, seen: dict[int, str], *, inside: bool = False) -> Any:
    """Turn a fact into JSON: keys become text, sets sorted lists, a citation `record:line excerpt (place)`.

    What was printed before, under a name of its own, is `see NAME`: an index holds the very same. A fact inside another
    is `fact NAME`: it has files of its own.
    """
    if isinstance(value, Citation):
        return f"{value.record}:{value.line} {value.excerpt} ({value.place})"
    if isinstance(value, Record):
        return f"record {value.name}"
    if isinstance(value, Lowers):
        below = {chain: value.below(chain) for chain in value.stacks.layers.chains}
        return {"faults": plain(value.faults, seen), "below": below}
    if inside and type(value) in REGISTRY.facts:
        return f"fact {type(value).__name__}"
    if isinstance(value, msgspec.Struct):
        if id(value) in seen:
            return f"see {seen[id(value)]}"
        held = msgspec.structs.asdict(value)
        if "name" in held:
            seen[id(value)] = held["name"]
        return {key: plain(one, seen, inside=True) for key, one in held.items()}
    if isinstance(value, dict):
        words = {" ".join(map(str, key)) if isinstance(key, tuple) else str(key): one for key, one in value.items()}
        return {key: plain(one, seen, inside=True) for key, one in words.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, IPv4Network):
        return str(value)
    if isinstance(value, tuple | list):
        return [plain(one, seen, inside=True) for one in value]
    return value


def _has_containers(facts: Facts) -> bool:
    """Whether the fact is known: another one that holds containers shows them by name, they have files of their own."""
    try:
        facts.get(Containers)
    except EvidenceMissing:
        return False
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fact(path: Path, request: pytest.FixtureRequest) -> None:
    """A parser makes of the text exactly the fact beside it; evidence that is missing is named as it says."""
    facts = Facts(REGISTRY, casefile.snapshot(path))
    try:
        made = facts.get(FACTS[path.parent.name])
        others = () if isinstance(made, Containers) or not _has_containers(facts) else facts.get(Containers).all
        found = plain(made, {id(one): one.name for one in others})
    except EvidenceMissing as missing:
        found = {"missing": str(missing)}
    expected = path.with_suffix(".json")
    if request.config.getoption("--update-golden"):
        expected.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(expected.read_text(encoding="utf-8")) == found


def test_every_fact_is_tested() -> None:
    """Each fact has a folder, and each file what is expected of it."""
    # The site of the packets is all of a host: tests/packets and tests/engine/test_paths.py look at what it does.
    ours = {kind for kind in REGISTRY.facts if not kind.__module__.startswith("doctor.packets.")}
    assert set(FACTS.values()) == ours
    assert {path.parent.name for path in FILES} == set(FACTS)
    assert sorted(path.with_suffix(".json") for path in FILES) == sorted(HERE.glob("*/*.json"))
