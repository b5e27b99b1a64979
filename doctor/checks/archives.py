"""Archives of images given as files: whether what is in them is what they say."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.layer_content import LayerContent
from doctor.model import Effect, Finding, NotApplicable, Note, Remedy, Severity, Unknown, Yield
from doctor.registry import check

_SHOWN = 6


@check(
    "LAY031",
    Severity.ERROR,
    says=(
        "invalid diffID for layer ...: expected ..., got ...",
        "layers from manifest don't match image configuration",
        "invalid manifest, layers length mismatch",
        "open ...manifest.json: no such file or directory",
    ),
)
def archive_is_not_what_it_says(content: LayerContent) -> Iterator[Yield]:
    """An archive of images is cut short, damaged, or would be unpacked outside its place.

    ## What it is
    docker save and others write blobs named by their digest, manifests that name them with their
    size, and configurations with the diff id of each layer. Here some of it does not fit.
    ## What you see
    docker load ends with "unexpected EOF", "invalid tar header", "invalid diffID for layer" or
    "layers length mismatch"; or it loads, and the image is another one.
    ## By hand
    tar -tf FILE
    tar -xOf FILE blobs/sha256/HEX | sha256sum
    ## Cure
    Write it anew where the image is whole, or copy it again and compare checksums. One that names
    paths outside was made to do harm: load it nowhere.
    ## Looks like
    LAY027 (a blob in containerd's own store)
    ## Limits
    Only what is named by a digest can be proved: names and tags in manifest.json cannot. Layers
    compressed by zstd need Python 3.14, or pip install 'doctor[zstd]'.
    ## References
    OCI image-spec image-layout.md, moby image/tarexport/load.go
    """
    archives = content.get("archive")
    if archives is None:
        yield NotApplicable("no archive was given: doctor layers verify FILE")
        return
    for checked in archives.checked.values():
        found = archives.of(checked.layer)
        if checked.state == "unknown" or (checked.unread and not found):
            why = checked.why or next((one.why for one in archives.unread if one.layer == checked.layer), "unread")
            yield Unknown(checked.layer, why)
        if not found:
            continue
        said = [f"{one.damage.path}: {_state(one.damage.kind, one.damage.expected, one.damage.found)}" for one in found]
        more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
        hostile = any("leads out" in one.damage.found or "leads out" in one.damage.expected for one in found)
        yield Finding(
            subject=checked.layer,
            title=f"{checked.layer} is not what it says: {found[0].damage.found}"
            if len(found) == 1
            else f"{checked.layer} is not what it says, in {len(found)} places",
            message="; ".join(said[:_SHOWN]) + more,
            evidence=tuple(one.cite() for one in found[:_SHOWN]),
            remedy=Remedy(
                "do not load it anywhere" if hostile else "get it anew",
                (
                    Note(
                        "find out who made it"
                        if hostile
                        else "docker save it again where the image is whole, or copy it again and compare sha256sum"
                    ),
                ),
            ),
            hits=(Effect("docker load refuses it, or what it loads is another image"),),
        )


def _state(kind: str, expected: str, found: str) -> str:
    if kind == "missing":
        return f"{expected} {found}"
    return f"{found}, not {expected}" if expected else found
