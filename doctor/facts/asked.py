"""What nameservers answered: asked with `--probe` from the host's network namespace and from each container's.

Parses the record `probe/nameservers` (`doctor.linux.ask`), lines such as::

    4026532250 198.51.100.1 udp answered NXDOMAIN 0.8
    4026532250 198.51.100.1 tcp refused - 0.2
"""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, tree_entries

_FIELDS = 6


class Answer(Struct, frozen=True):
    """What became of one question by one protocol, after `ms` milliseconds.

    `outcome` is `answered` (`detail`: the RCODE in words), `silent`, `refused` (port closed), `no-route`, `blocked` (by a
    rule of the asker's own), `closed`, `failed`, `denied` (it may not be asked from there), or `gone`.
    """

    outcome: str
    detail: str
    ms: float
    cited: Citation

    @property
    def judged(self) -> bool:
        """Whether it says anything of the server and the way there."""
        return self.outcome not in {"denied", "gone", "failed"}


class Asked(Struct, frozen=True):
    """Answers by inode of the namespace, server and protocol; `host` is the inode of the host's own.

    `tried` is false when nothing was asked; `waited` is how long for (seconds), `left_out` says of how many it was not.
    """

    tried: bool
    answers: dict[tuple[str, str], dict[str, Answer]]
    host: str
    waited: str = ""
    left_out: str = ""


@fact
def asked(snapshot: Snapshot) -> Asked:
    """Read the record; lines that do not parse are left out."""
    if "probe/nameservers" not in snapshot.records:
        return Asked(tried=False, answers={}, host="")
    record = snapshot.get("probe/nameservers")
    if not record.readable:
        raise EvidenceMissing("nameservers", record.why or record.status)
    index = snapshot.get("netns/index")
    host = (
        next((entry.path for entry in tree_entries(index) if entry.content == "host"), "0") if index.readable else "0"
    )
    found: dict[tuple[str, str], dict[str, Answer]] = {}
    for number, line in enumerate(record.text.split("\n"), 1):
        words = line.split(" ")
        if len(words) != _FIELDS or words[2] not in {"udp", "tcp"}:
            continue
        inode, server, protocol, outcome, detail, ms = words
        try:
            after = float(ms)
        except ValueError:
            continue
        said = f"{server} {protocol}: {outcome}" + (f" {detail}" if detail != "-" else "") + f" after {after:.1f} ms"
        cited = Citation(record.name, number, said, f"asked from {'this host' if inode == host else f'net:[{inode}]'}")
        found.setdefault((inode, server), {})[protocol] = Answer(outcome, detail, after, cited)
    waited = record.target.rpartition(", ")[2]
    return Asked(tried=True, answers=found, host=host, waited=waited, left_out=record.why)
