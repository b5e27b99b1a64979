"""The bundle: a snapshot as a gzip'd tar, written privately and read as hostile input.

`manifest.json` comes first: `format`, doctor's version, a digest of itself, the snapshot's head, what was removed, and
one record a line. A record with data has one member of the archive; the manifest says which, and the digest of it.
Nothing is ever extracted to disk; a bundle that lies about itself is refused, one that is cut short is read as far as
it goes.

The reader walks 512-byte headers itself and not with `tarfile`: it has to bound what it unpacks before it unpacks it,
to go on with what a damaged archive still holds, and to be there in a millisecond (`import tarfile` takes longer than
reading a bundle). Only plain members of ustar are read: this is all that a bundle was ever made of, and pax and GNU
headers could say that a name or a size is another than the one that was checked. Sources: POSIX pax(1), "ustar
Interchange Format"; tar(5); RFC 1952.
"""

from __future__ import annotations

from doctor.bundle.manifest import MANIFEST, BundleError
from doctor.bundle.reading import read
from doctor.bundle.writing import Written, pack, write

__all__ = ["MANIFEST", "BundleError", "Written", "pack", "read", "write"]
