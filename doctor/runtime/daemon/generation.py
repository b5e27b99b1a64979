"""What the daemon says it is: versions of the engine and of its parts, by dialect.

The figures are those of the releases that Debian packages and that `tests/enginehost.py` starts; of 29, which it does not
package, those of moby's own release.
"""

from __future__ import annotations

from msgspec import Struct

Release = tuple[int, int]


class Generation(Struct, frozen=True):
    """One generation of the engine: `api` and `least` are the newest and oldest version of the API that it speaks."""

    version: str
    api: str
    least: str
    go: str
    commit: str
    built: str
    containerd: str
    runc: str
    init: str
    containerd_commit: str = ""
    runc_commit: str = ""

    @property
    def release(self) -> Release:
        """Major and minor."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


_GENERATIONS = {
    "20.10": Generation(
        version="20.10.24+dfsg1",
        api="1.41",
        least="1.12",
        go="go1.19.8",
        commit="5d6db84",
        built="2023-05-18T08:38:34.000000000+00:00",
        containerd="1.6.20~ds1",
        runc="1.1.5+ds1",
        init="0.19.0",
        containerd_commit="1.6.20~ds1-1+deb12u3",
        runc_commit="1.1.5+ds1-1+deb12u1",
    ),
    "26": Generation(
        version="26.1.5+dfsg1",
        api="1.45",
        least="1.24",
        go="go1.24.4",
        commit="411e817",
        built="2025-08-23T11:27:25.000000000+00:00",
        containerd="1.7.24~ds1",
        runc="1.1.15+ds1",
        init="0.19.0",
        containerd_commit="1.7.24~ds1-6+b4",
        runc_commit="1.1.15+ds1-2+b4",
    ),
    "28": Generation(
        version="28.5.2+dfsg4",
        api="1.51",
        least="1.24",
        go="go1.27.1",
        commit="3ef3c07c883be49a2e8097bcf6d2952fce1d70eb",
        built="2026-09-15T11:02:57.000000000+00:00",
        containerd="2.1.9+unknown",
        runc="1.3.6+ds1",
        init="0.19.0",
        runc_commit="1.3.6+ds1-1",
    ),
    "29": Generation(
        version="29.1.3",
        api="1.52",
        least="1.44",
        go="go1.25.5",
        commit="fbf3ed2",
        built="2025-12-12T14:49:37.000000000+00:00",
        containerd="v2.2.0",
        runc="1.3.4",
        init="0.19.0",
        containerd_commit="1c4457e00facac03ce1d75f7b6777a7a851e5c41",
        runc_commit="v1.3.4-0-gd6d73eb8",
    ),
}

DIALECTS = (*_GENERATIONS, "29-nftables")
"""Names that a host may be brought up with."""


def generation(dialect: str, version: str = "") -> Generation:
    """Give the generation of a dialect, or of any release of its line. Raises ValueError for a dialect that is none.

    >>> generation("29-nftables").version, generation("28", "28.2.2").version
    ('29.1.3', '28.2.2')
    """
    found = _GENERATIONS.get(dialect.removesuffix("-nftables"))
    if found is None:
        raise ValueError(f"dialect {dialect}: is none of {', '.join(DIALECTS)}")
    if not version:
        return found
    from msgspec.structs import replace

    return replace(found, version=version)
