"""Layers in containerd's store: each blob against its digest, each unpacked snapshot against the blob it came from.

One pass over a layer's blob: it is hashed as it is, unpacked, hashed again against the diff id, and compared file by file
with what stands in the snapshot. The blob is a reference for every byte, so whatever differs is told to the byte.
"""

from __future__ import annotations

import os
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from doctor.layers.compressed import CannotUnpack, NoDecompressor, Unpacked
from doctor.layers.containerd_model import COMMITTED, Store
from doctor.layers.folders import Folders, open_file
from doctor.layers.model import Checked, Damage, State, Work
from doctor.layers.tarstream import TarDamaged, TarStream
from doctor.layers.unpacked import Comparison

if TYPE_CHECKING:
    from doctor.layers.model import Teller

_PIECE = 1 << 18


def plan(store: Store) -> list[Work]:
    """Give a piece of work for each layer that is unpacked, and for each blob beside those."""
    blobs = {one.digest: one for one in store.blobs}
    snapshots = {(one.space, one.key): one for one in store.snapshots}
    made: dict[str, Work] = {}
    used = set()
    for image in store.images:
        for digest, diff, chain in zip(image.blobs, image.diffs, image.chains, strict=True):
            blob, snapshot = blobs.get(digest), snapshots.get((image.space, chain))
            if blob is None or blob.there < 0 or snapshot is None or not snapshot.fs or snapshot.kind != COMMITTED:
                continue
            used.add(digest)
            made[f"{image.space}/{chain}"] = Work(
                "containerd",
                chain,
                diff,
                blob.size + snapshot.size,
                store.folder(snapshot),
                store.blob(digest),
                extra={"blob": digest},
            )
    for blob in store.blobs:
        if blob.digest not in used and blob.there >= 0:
            made[blob.digest] = Work("containerd", blob.digest, blob.digest, blob.size, record=store.blob(blob.digest))
    return list(made.values())


def verify(work: Work, teller: Teller) -> Checked:
    """Verify one layer with its blob, or one blob. Raises OSError."""
    start = time.perf_counter()
    folder, _, name = work.record.rpartition("/")
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_file(name, above)
    finally:
        os.close(above)
    try:
        done = _snapshot(work, descriptor, teller) if work.root else _blob(work, descriptor, teller)
    finally:
        os.close(descriptor)
    state, found, files, size, damages, unread, why = done
    return Checked(
        "containerd",
        work.id,
        state,
        work.digest,
        found,
        files,
        size,
        time.perf_counter() - start,
        damages,
        unread,
        why,
        work.root or work.record,
    )


_Done = tuple[State, str, int, int, int, int, str]


def _blob(work: Work, descriptor: int, teller: Teller) -> _Done:
    total, size = sha256(), 0
    while data := os.read(descriptor, _PIECE):
        total.update(data)
        size += len(data)
        teller.read(len(data))
    found = f"sha256:{total.hexdigest()}"
    if found == work.digest:
        return "whole", found, 1, size, 0, 0, ""
    _damaged_blob(work, work.id, found, "", teller)
    return "damaged", found, 1, size, 1, 0, ""


def _damaged_blob(work: Work, digest: str, found: str, detail: str, teller: Teller) -> None:
    changed = os.lstat(work.record).st_ctime
    teller.damage(Damage(digest, work.record, "record", digest, found, detail, changed=changed))


def _snapshot(work: Work, descriptor: int, teller: Teller) -> _Done:
    fault = ""
    files = 0

    def read(count: int) -> bytes:
        data = os.read(descriptor, count)
        teller.read(len(data))
        return data

    try:
        source = Unpacked(read)
    except NoDecompressor as error:
        return "unknown", "", 0, 0, 0, 0, str(error)
    with Folders(work.root) as tree:
        compared = Comparison(work.id, tree, work.uids, work.gids)
        stream = TarStream(source.read)
        at = ""
        try:
            while (entry := stream.next()) is not None:
                at = entry.name
                files += 1
                compared.member(entry, stream, teller)
            source.finish()
        except CannotUnpack as error:
            fault = str(error)
            source.finish_input()
        except TarDamaged as error:
            fault = f"{error}" + (f", in {at}" if at else "")
            _finish(source)
        packed, found = f"sha256:{source.packed.hexdigest()}", f"sha256:{source.digest.hexdigest()}"
        size = source.taken + compared.bytes
        own = 0
        if packed != work.extra["blob"]:
            _damaged_blob(work, work.extra["blob"], packed, fault, teller)
            own = 1
        if found != work.digest:
            # What the snapshot should hold is not known then.
            if not own:
                teller.damage(Damage(work.id, work.record, "digest", work.digest, found, fault))
            return "damaged", found, files, size, 1, 0, "the blob that it came from is damaged" if own else ""
        compared.finish()
        damages, unread = compared.tell(teller)
    state: State = "damaged" if damages + own else "unknown" if unread else "whole"
    return state, found, files, size, damages + own, unread, ""


def _finish(source: Unpacked) -> None:
    try:
        source.finish()
    except CannotUnpack:
        source.finish_input()
