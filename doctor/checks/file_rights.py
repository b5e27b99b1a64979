"""Who may change what dockerd is made of: its configuration, its unit files, its programs, containerd's socket."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.daemon import Daemon
from doctor.facts.groups import DockerGroup
from doctor.facts.paths import Paths, Seen
from doctor.model import Command, Effect, Finding, NotApplicable, Remedy, Severity, Step, Yield
from doctor.places import Places
from doctor.registry import check

_OTHERS, _GROUP = 0o002, 0o020
_STICKY = 0o1000


@check("SEC009", Severity.ERROR)
def files_open_to_others(paths: Paths, places: Places, group: DockerGroup | None, daemon: Daemon) -> Iterator[Yield]:
    """Others than root may change what dockerd is made of.

    ## What it is
    Who can write daemon.json, a unit file or a program that dockerd starts decides what root
    runs; who can write to containerd's socket starts containers as root.
    ## What you see
    Nothing: files are copied with chmod 777 or unpacked as a user, and everything works.
    ## By hand
    stat -c '%a %U:%G %n' /etc/docker /etc/docker/daemon.json /run/containerd/containerd.sock
    ## Cure
    chmod go-w, chown root. Nothing stops.
    ## Looks like
    SEC003 (members of the group docker)
    ## Limits
    Writable by everybody is an error; by a group other than root's and docker's, or owned by
    a user, a warning. docker.sock is judged by itself. ACLs are not read; rootless is skipped.
    ## References
    chmod(1), docs.docker.com/engine/security
    """
    if daemon.rootless:
        yield NotApplicable("dockerd runs rootless: its files are its user's")
        return
    trusted = {0, *({group.gid} if group is not None else ())}
    apart = {daemon.socket, places.pidfile}
    for path, seen in paths.by_path.items():
        if path in apart or seen.type not in {"f", "d", "s"}:
            continue
        if seen.mode & _OTHERS and not (seen.type == "d" and seen.mode & _STICKY):
            yield _finding(
                seen,
                f"everybody may write to {path}: mode {seen.mode:04o}",
                Command(("chmod", "o-rwx" if seen.type == "s" else "go-w", path)),
                Severity.ERROR,
                "every user and every process of this host can become root by it",
            )
        elif path != places.data_root and seen.uid:
            yield _finding(
                seen,
                f"{path} is owned by uid {seen.uid}, not by root",
                Command(("chown", "root", path)),
                Severity.WARNING,
                f"uid {seen.uid} can become root by it",
            )
        elif seen.mode & _GROUP and seen.gid not in trusted:
            yield _finding(
                seen,
                f"group {seen.gid} may write to {path}: mode {seen.mode:04o}",
                Command(("chmod", "g-w", path)),
                Severity.WARNING,
                f"members of group {seen.gid} can become root by it",
            )


def _finding(seen: Seen, title: str, step: Step, severity: Severity, who: str) -> Finding:
    back = f"{seen.mode:04o}"
    undo = ("chown", str(seen.uid), seen.path) if "chown" in getattr(step, "argv", ()) else ("chmod", back, seen.path)
    return Finding(
        subject=seen.path,
        title=title,
        message=f"{seen.path} has mode {seen.mode:04o} and belongs to {seen.uid}:{seen.gid}: {who}",
        evidence=(seen.cited,),
        remedy=Remedy(
            "take the right away",
            (step,),
            lasts="until-boot" if seen.path.startswith("/run/") else "for-good",
            undo=(Command(undo),),
        ),
        severity=severity,
        hits=(Effect(who),),
    )
