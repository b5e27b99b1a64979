"""Images: of another machine, left without a name, or another one than the name says by now."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.amounts import sized
from doctor.facts.binfmt import Binfmt
from doctor.facts.containers import Containers
from doctor.facts.images import Images
from doctor.facts.space import Space
from doctor.model import Citation, Command, Effect, Finding, NotApplicable, Note, Remedy, Severity, Yield
from doctor.registry import check

_MUCH, _SHARE = 1 << 30, 0.1
_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386"}
"""What Go calls what uname does."""
_RUNS = {"amd64": {"386"}, "arm64": {"arm"}}
"""What else the processors of one kind run, as a rule."""


@check("IMG001", Severity.INFO)
def images_without_a_name(space: Space) -> Iterator[Yield]:
    """Images that no name leads to and no container uses take much room.

    ## What it is
    Each build or pull of a name takes it from the image that had it. Docker never removes that one
    by itself.
    ## What you see
    <none> in docker images; a disk that fills by the size of an image with each build.
    ## By hand
    docker images -f dangling=true
    docker system df
    ## Cure
    docker image prune removes those without a name and nothing else.
    ## Looks like
    STO005 (the disk is nearly full, whatever fills it)
    ## Limits
    Told from 1 GiB or a tenth of the disk on. Sizes are the engine's, and layers that images share
    are counted in each. Images with a name that nobody uses, and the build cache, are not counted:
    docker system df takes seconds for that.
    ## References
    docker-image-prune(1), moby daemon/images/image_prune.go
    """
    if space.untagged < _MUCH and (not space.size or space.untagged < space.size * _SHARE):
        return
    yield Finding(
        subject="images without a name",
        title=f"images without a name take {sized(space.untagged)}",
        message=f"images that no name leads to and no container uses take {sized(space.untagged)} on {space.path}",
        evidence=(
            Citation("api/images", 0, f"{sized(space.untagged)} without a name", "docker images -f dangling=true"),
        ),
        remedy=Remedy("remove them", (Command(("docker", "image", "prune", "-f")),), risk="destructive"),
        hits=(Effect("the disk is fuller than it has to be"),),
    )


@check(
    "IMG002",
    Severity.WARNING,
    says=(
        "exec format error",
        "does not match the detected host platform",
        "was found but its platform ... does not match the specified platform",
    ),
)
def image_of_another_machine(images: Images, containers: Containers, binfmt: Binfmt | None) -> Iterator[Yield]:
    """A container's image is made for another processor, and nothing here runs such programs.

    ## What it is
    An image holds programs of one architecture. The kernel starts those of another only through an
    emulator that is registered with binfmt_misc (qemu-user-static).
    ## What you see
    "exec format error"; "The requested image's platform (linux/arm64) does not match the detected
    host platform (linux/amd64)".
    ## By hand
    docker image inspect NAME -f '{{.Architecture}}'
    uname -m; ls /proc/sys/fs/binfmt_misc
    ## Cure
    Pull the image for this machine (docker pull --platform), or install the emulator.
    ## Looks like
    CTR001 (the program starts, and ends)
    ## Limits
    Only containers that are there are judged, and only by what the image says of itself: images
    that were imported often say nothing true.
    ## References
    OCI image-spec config.md, kernel Documentation/admin-guide/binfmt-misc.rst
    """
    machine = _NAMES.get(images.machine, images.machine)
    if not machine:
        yield NotApplicable("the machine's own architecture is not known")
        return
    by_id = {one.id: one for one in images.all}
    users: dict[str, list[str]] = {}
    for container in containers.all:
        if container.image_id in by_id and not container.asked.own_kernel:
            users.setdefault(container.image_id, []).append(container.name)
    for identity, names in users.items():
        image = by_id[identity]
        other = image.architecture
        if not other or other == machine or other in _RUNS.get(machine, set()) or (binfmt and binfmt.runs(other)):
            continue
        name = image.shown[0]
        yield Finding(
            subject=name,
            title=f"{name} is made for {other}, this machine is {machine}",
            message=f"the image {name} of {', '.join(names)} says architecture {other}, this machine is {machine}",
            evidence=(
                Citation(
                    f"store/images/{identity[7:]}", 0, f'"architecture":"{other}"', f"docker image inspect {name}"
                ),
            ),
            remedy=Remedy(
                "get the image for this machine, then make the containers anew",
                (
                    Note(
                        f"docker pull --platform linux/{machine} {name}; or install qemu-user-static with binfmt support"
                    ),
                ),
            ),
            hits=(Effect("programs of it do not start: exec format error", tuple(names)),),
        )


@check("IMG003", Severity.INFO)
def image_has_moved_on(images: Images, containers: Containers) -> Iterator[Yield]:
    """A running container is of an image that its name does not lead to any more.

    ## What it is
    A container keeps the image that it was created from. When the name is pulled or built anew, it
    leads to another one; the container goes on with the old one until it is made anew.
    ## What you see
    docker ps shows an id instead of a name; an update that seems to have no effect; a docker
    restart that changes nothing.
    ## By hand
    docker inspect NAME -f '{{.Config.Image}} {{.Image}}'
    docker image inspect IMAGE -f '{{.Id}}'
    ## Cure
    Make the container anew from the name (docker compose up -d does). What it wrote into its own
    layer is lost with it; volumes stay.
    ## Looks like
    IMG001 (the old images take room)
    ## Limits
    A name that was removed says nothing and is not told of. Names by digest cannot move.
    ## References
    docker-ps(1), moby reference/store.go
    """
    moved: dict[str, list[str]] = {}
    for one in containers.running:
        name = _full(one.image)
        held = images.names.get(name)
        if held is not None and held != one.image_id and one.image_id[7:] in images.known and "@" not in name:
            moved.setdefault(name, []).append(one.name)
    for name, names in moved.items():
        yield Finding(
            subject=name,
            title=f"{name} leads to a newer image than {names[0]} runs",
            message=f"{', '.join(names)} run{'s' if len(names) == 1 else ''} an image that {name} no longer leads to",
            evidence=(Citation(images.file.name, 0, f"{name} is {images.names[name][7:19]}", images.file.target),),
            remedy=Remedy(
                "make the containers anew when it suits",
                (Note(f"docker compose up -d, or docker rm and docker run: {', '.join(names)}"),),
            ),
            hits=(Effect("go on with the older image", tuple(names)),),
        )


def _full(name: str) -> str:
    """Give the name with its tag."""
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"
