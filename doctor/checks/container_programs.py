"""Programs that no container can run: missing, not executable, or of another machine."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._ends import NOT_FOUND, NOT_RUNNABLE, RECENT, down, loops, missed, names_program
from doctor.facts.clock import Clock
from doctor.facts.containers import Container, Containers
from doctor.facts.images import Images
from doctor.model import (
    Command,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Yield,
)
from doctor.registry import check


@check(
    "CTR005",
    Severity.ERROR,
    explains=("CTR001",),
    says=(
        "executable file not found in $PATH",
        "exec format error",
        "unable to start container process ... exec: ... permission denied",
    ),
)
def program_cannot_run(containers: Containers, images: Images | None, clock: Clock) -> Iterator[Yield]:
    """The program of a container cannot be run: not found, not executable, or for another machine.

    ## What it is
    The first process is started by execve(2). It fails with 127 when there is no such file (or
    its interpreter is missing), with 126 when it is no executable.
    ## What you see
    "executable file not found in $PATH", "permission denied"; exit code 126 or 127; "exec format
    error" and exit code 1 or 255 from an image of another architecture.
    ## By hand
    docker inspect -f '{{.State.ExitCode}} {{.State.Error}} {{.Path}} {{.Args}}' NAME
    docker image inspect -f '{{.Os}}/{{.Architecture}}' NAME
    ## Cure
    Name a program that the image has (ENTRYPOINT, CMD, command), chmod +x it in the Dockerfile,
    or take the image of this machine's architecture; then make the container anew.
    ## Looks like
    CTR001 (the program runs, and ends)
    ## Limits
    A script with CRLF or without a first line #! is told by the output of the container alone,
    which is not read. Files in the image are not read.
    ## References
    docker-run(1) exit status, execve(2), Dockerfile reference ENTRYPOINT
    """
    every = (*containers.all, *(one for one in containers.changing if loops(one, clock.collected_at)))
    if not every:
        yield NotApplicable("no container here")
        return
    for one in every:
        said = names_program(one)
        if one.running and not loops(one, clock.collected_at):
            continue
        if said:
            yield _wrong(one, f"{said[1]}: {said[2]}", f'Error "{one.asked.error}"', said[1])
            continue
        if one.exit_code in {NOT_RUNNABLE, NOT_FOUND} and not one.asked.error and one.started:
            # A shell in the container ran, and says with its own exit code that it could not run a command.
            recent = clock.collected_at - one.finished < RECENT
            reason = "found no such command" if one.exit_code == NOT_FOUND else "could not execute a command"
            yield _wrong(
                one,
                f"{one.program or 'its program'} {reason}",
                f"ExitCode {one.exit_code}, Path {one.program}",
                one.program,
                Severity.ERROR if recent and one.policy != "no" else Severity.WARNING if recent else Severity.INFO,
            )
            continue
        other = _other_machine(one, images)
        if other and one.exit_code and one.finished - one.started < 2:  # noqa: PLR2004 - seconds
            yield _wrong(
                one, f"{one.image} is for {other}", f"ExitCode {one.exit_code}, Path {one.program}", one.program
            )


_RUNS = {
    "x86_64": ("amd64", "386"),
    "aarch64": ("arm64", "arm"),
    "armv7l": ("arm",),
    "armv6l": ("arm",),
    "i686": ("386",),
    "ppc64le": ("ppc64le",),
    "riscv64": ("riscv64",),
    "s390x": ("s390x",),
}
"""What a machine (uname -m) runs without an emulator, in the words of images (GOARCH)."""


def _other_machine(one: Container, images: Images | None) -> str:
    """Give the architecture of a container's image when this machine does not run it; empty when it does, or unknown."""
    held = next((image for image in images.all if image.id == one.image_id), None) if images else None
    if images is None or held is None or not held.architecture:
        return ""
    return "" if held.architecture in _RUNS.get(images.machine, (held.architecture,)) else held.architecture


def _wrong(one: Container, what: str, said: str, program: str, severity: Severity | None = None) -> Finding:
    told = Command(("docker", "inspect", "-f", "{{json .Path}} {{json .Args}} {{.Config.Image}}", one.engine_name))
    return down(
        one,
        f"the program of {one.name} cannot be run",
        f"{one.name} ended with exit code {one.exit_code}: {what}",
        said,
        Remedy(
            "make it anew with a program that the image has",
            (told, Note(f"mend {program or 'its program'} in the image or name another, and make {one.name} anew")),
        ),
        severity=severity or missed(one),
        hits="does not run",
        excluded=(Excluded("CTR001", "the kernel did not kill it for memory"),) if not one.oom_killed else (),
    )
