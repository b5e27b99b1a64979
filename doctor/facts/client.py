"""Where the docker command goes of whoever ran doctor, and of who called sudo: parses `engine/client` (`doctor.client`)."""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.places import CALLER, DEFAULT_CONTEXT, OWN, in_run
from doctor.registry import fact
from doctor.snapshot import Snapshot, TreeEntry, tree_entries


class Way(Struct, frozen=True):
    """One docker command: what leads it, and where.

    `by` is `DOCKER_HOST`, `DOCKER_CONTEXT` or `context`; `whose` `~` or `~caller`; `context` the name, empty for
    DOCKER_HOST. `address` is empty for a context that is not there, and `why` says so; it also says why a socket cannot be
    had.
    """

    by: str
    whose: str
    context: str
    address: str
    why: str
    cited: tuple[Citation, ...]

    @property
    def socket(self) -> str:
        """The path of the socket that it leads to; empty for another kind of address."""
        return in_run(self.address.removeprefix("unix://")) if self.address.startswith("unix://") else ""


class Client(Struct, frozen=True):
    """The ways that do not go where docker(1) goes by itself.

    `asked` is false where nobody looked; `unread` says which files could not be read, and why.
    """

    ways: tuple[Way, ...]
    asked: bool = True
    unread: tuple[str, ...] = ()


@fact
def client(snapshot: Snapshot) -> Client:
    """Parse the record; one that was not made says nothing."""
    record = snapshot.get("engine/client")
    if not record.readable:
        return Client((), asked=False)
    entries = {entry.path: entry for entry in tree_entries(record)}
    host, named = entries.get("DOCKER_HOST"), entries.get("DOCKER_CONTEXT")
    found = []
    if host is not None:
        found.append(_way(entries, "DOCKER_HOST", OWN, "", host.content, (host,)))
    for home in (OWN, CALLER):
        current = entries.get(f"{home}/.docker/config.json")
        if home == OWN and host is not None:
            continue  # DOCKER_HOST goes before every context
        by, chosen = "context", current
        if home == OWN and named is not None:
            by, chosen = "DOCKER_CONTEXT", named
        if chosen is None or chosen.type != "f" or chosen.content == DEFAULT_CONTEXT:
            continue
        meta = next((one for path, one in entries.items() if _is_of(path, home, one, chosen.content)), None)
        if meta is not None and meta.type in {"f", "-"}:
            address = meta.content.removeprefix(chosen.content).strip() if meta.type == "f" else ""
            found.append(_way(entries, by, home, chosen.content, address, (chosen, meta)))
    unread = (f"{path}: {one.content}" for path, one in entries.items() if one.type == "!" and path.startswith(OWN))
    return Client(tuple(found), unread=tuple(unread))


def _is_of(path: str, home: str, entry: TreeEntry, name: str) -> bool:
    return path.startswith(f"{home}/.docker/contexts/") and (entry.content + " ").startswith(name + " ")


def _way(
    entries: dict[str, TreeEntry], by: str, whose: str, context: str, address: str, cited: tuple[TreeEntry, ...]
) -> Way:
    socket = entries.get(address.removeprefix("unix://")) if address.startswith("unix://") else None
    why = socket.content if socket is not None else "" if address else "there is no context of that name"
    return Way(
        by,
        whose,
        context,
        address,
        why,
        tuple(Citation("engine/client", one.line, f"{one.path}: {one.content}", one.path) for one in cited),
    )
