"""Processes that a signal has stopped: what stands for a container, and its own."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._ends import ports_unanswered
from doctor.checks.shims import NAMESPACE
from doctor.facts.cgroups import Cgroups
from doctor.facts.containers import Container, Containers
from doctor.facts.processes import Process, Processes
from doctor.facts.proxies import Proxies, Proxy
from doctor.model import Citation, Command, Effect, Excluded, Finding, NotApplicable, Remedy, Severity, Yield
from doctor.registry import check


def stopped_shims(processes: Processes) -> dict[str, Process]:
    """Give the shims that a signal has stopped, by the id of their container."""
    shims = (one for one in processes.by_pid.values() if one.name.startswith("containerd-shim"))
    ours = (one for one in shims if one.told("-namespace") == NAMESPACE and one.told("-id"))
    return {one.told("-id"): one for one in ours if processes.stopped(one)}


def wake(*pids: int, notes: tuple[str, ...] = ()) -> Remedy:
    """Make the cure of what a signal has stopped; nothing else stops for it."""
    return Remedy("let it go on", (Command(("kill", "-CONT", *map(str, pids))),), notes=notes)


@check("NSP015", Severity.ERROR)
def stopped_by_signal(
    containers: Containers, processes: Processes, proxies: Proxies, cgroups: Cgroups | None
) -> Iterator[Yield]:
    """A process that a container needs is stopped, by a signal or with its cgroup: it does nothing.

    ## What it is
    SIGSTOP (kill -STOP, a debugger or a monitor that went away, Ctrl-Z where it was started)
    leaves a process in state T. Its sockets stay open: the kernel accepts connections for it. A
    cgroup that somebody froze beside docker pause holds all of a container in the same way.
    ## What you see
    Connections are made, and nothing answers. With a stopped shim docker exec, stop and rm of
    its container hang, and in the end docker inspect. docker ps says Up all the same.
    ## By hand
    ps -eo pid,stat,args | grep -E 'docker-proxy|containerd-shim'
    docker top NAME -o pid,stat,args; grep -s 1 /sys/fs/cgroup/docker/*/cgroup.freeze
    ## Cure
    kill -CONT of the pid: it goes on where it stood, nothing stops. A cgroup: write 0 to
    cgroup.freeze, or THAWED to freezer.state; docker unpause refuses. A restart of Docker is not
    needed, and would stop every container.
    ## Looks like
    DMN016 (dockerd or containerd is stopped), NET058 (nobody listens inside), NET038 (no
    docker-proxy is there)
    ## Limits
    A job that somebody stopped at a terminal inside a container is theirs. A paused container
    (docker pause) is a note: that was somebody's wish.
    ## References
    signal(7), proc_pid_stat(5), moby cmd/docker-proxy, containerd runtime v2 README
    """
    shims = stopped_shims(processes)
    if not containers.running and not shims:
        yield NotApplicable("no container runs")
        return
    # A container that dockerd could not be asked of, for this very reason, goes by its id.
    names = {one.id: one.name for one in (*containers.all, *containers.changing)}
    for identity, shim in shims.items():
        yield _shim(names.get(identity, identity[:12]), shim)
    stopped = [(proxy, processes.by_pid[proxy.pid]) for proxy in proxies.all]
    stopped = [(proxy, process) for proxy, process in stopped if processes.stopped(process)]
    for one in containers.running:
        if held := {proxy: process for proxy, process in stopped if _stands_for(proxy, one)}:
            yield _proxies(one, held)
        group = cgroups.by_container.get(one.id) if cgroups is not None else None
        frozen = group.figures.get("frozen") if group is not None else None
        if one.status == "paused":
            yield _paused(one)
        elif frozen is not None and frozen.value:
            yield _frozen(one, frozen.cited)
        elif not one.asked.own_kernel:
            yield from _inside(one, processes)


def _stands_for(proxy: Proxy, container: Container) -> bool:
    return any(
        (port.protocol, port.host, port.container) == (proxy.protocol, proxy.host, proxy.container)
        for port in container.ports
    )


def _shim(name: str, shim: Process) -> Finding:
    return Finding(
        subject=f"{name}:shim",
        scope=f"container {name}",
        title=f"the shim of {name} is stopped by a signal",
        message=f"{shim.name} (pid {shim.pid}) of {name} is in state {shim.state}: it answers neither dockerd nor"
        " containerd",
        evidence=(shim.cite(_state(shim), "stat"),),
        remedy=wake(shim.pid),
        hits=(
            Effect(
                f"docker exec, stop, restart and rm of {name} hang; while one of them waits, docker inspect does too"
            ),
            Effect(f"nobody learns when {name} ends; what it prints is not read, and it waits when the pipe is full"),
        ),
        works=(Effect(f"{name}, as it was started"),),
        excluded=(Excluded("NSP007", f"the shim of {name} is there"),),
    )


def _proxies(one: Container, held: dict[Proxy, Process]) -> Finding:
    ports = ", ".join(dict.fromkeys(f"{proxy.host}{'' if proxy.protocol == 'tcp' else '/udp'}" for proxy in held))
    first = next(iter(held))
    # Where the container has no address of the family, the rules send nobody to it: all come by the proxy.
    ruled = {4 if end.address else 6 for end in one.endpoints} | {6 for end in one.endpoints if end.address6}
    alone = any((6 if ":" in proxy.host_ip else 4) not in ruled for proxy in held)
    return Finding(
        subject=f"{one.name}:docker-proxy",
        scope=one.scope,
        title=f"the docker-proxy of {one.name} is stopped by a signal: port {ports}",
        message=f"docker-proxy (pid {', '.join(str(proxy.pid) for proxy in held)}) of {one.name} is in state T: who comes"
        f" to port {ports} by it is let in by the kernel, and nobody answers",
        evidence=tuple(
            part for proxy, process in list(held.items())[:2] for part in (process.cite(_state(process)), proxy.cited)
        ),
        remedy=wake(*(proxy.pid for proxy in held)),
        hits=(
            Effect(
                f"on this host, {_address(first)}:{first.host} connects and hears nothing; so does this host's own address"
                " from containers of its network" + (", and from outside over IPv6" if alone else "")
            ),
        ),
        works=(Effect("from outside" + (" over IPv4" if alone else "") + ", as long as the rules of nat are there"),),
        excluded=(Excluded("NET038", "the docker-proxy is there"),),
    )


def _address(proxy: Proxy) -> str:
    """Give an address at which it listens and that is reached on this host."""
    if ":" in proxy.host_ip:
        return "[::1]" if proxy.host_ip == "::" else f"[{proxy.host_ip}]"
    return "127.0.0.1" if proxy.host_ip in {"", "0.0.0.0"} else proxy.host_ip  # noqa: S104 - compared with


def _paused(one: Container) -> Finding:
    return Finding(
        subject=one.name,
        scope=one.scope,
        title=f"{one.name} is paused",
        message=f"{one.name} is paused: its processes are frozen until somebody lets it go on",
        evidence=(one.cite("Status: paused"),),
        remedy=Remedy("let it go on", (Command(("docker", "unpause", one.engine_name)),)),
        severity=Severity.INFO,
        hits=ports_unanswered(one),
    )


def _frozen(one: Container, cited: Citation) -> Finding:
    folder, _, name = cited.place.rpartition("/")
    file, word, back = ("cgroup.freeze", "0", "1") if name == "cgroup.freeze" else ("freezer.state", "THAWED", "FROZEN")
    return Finding(
        subject=one.name,
        scope=one.scope,
        title=f"{one.name} does nothing: its cgroup is frozen, and it is not paused",
        message=f"somebody froze the cgroup of {one.name} beside docker: its processes stand still, and docker says that"
        " they run",
        evidence=(cited, one.cite(f"Status: {one.status}")),
        remedy=Remedy(
            "thaw it",
            (Command(("tee", f"{folder}/{file}"), stdin=word),),
            undo=(Command(("tee", f"{folder}/{file}"), stdin=back),),
        ),
        hits=(Effect(f"{one.name} does nothing; docker exec into it hangs"), *ports_unanswered(one)),
        excluded=(Excluded("", f"{one.name} is not paused: docker unpause refuses"),),
    )


def _inside(one: Container, processes: Processes) -> Iterator[Finding]:
    held = [process for process in processes.inside(one.id) if processes.stopped(process)]
    first = next((process for process in held if process.pid == one.pid), None)
    if first is not None:
        yield _first(one, held, first)
        return
    # Whoever presses Ctrl-Z in `docker exec -it` wants that; what has no terminal nobody stopped from one.
    held = [process for process in held if not process.terminal]
    if held:
        names = ", ".join(dict.fromkeys(process.name for process in held))
        yield Finding(
            subject=f"{one.name}:{held[0].name}",
            scope=one.scope,
            title=f"{names} in {one.name} is stopped by a signal",
            message=f"{names} (pid {', '.join(str(process.pid) for process in held[:5])}) of {one.name} is in state T",
            evidence=tuple(process.cite(_state(process)) for process in held[:3]),
            remedy=wake(*(process.pid for process in held)),
            severity=Severity.WARNING,
            hits=(Effect(f"what {names} does in {one.name}: whoever asks it waits"),),
            works=(Effect(f"the first process of {one.name} runs"),),
        )


def _first(one: Container, held: list[Process], first: Process) -> Finding:
    return Finding(
        subject=one.name,
        scope=one.scope,
        title=f"{one.name} does nothing: its first process is stopped by a signal",
        message=f"{first.name} (pid {first.pid}), the first process of {one.name}, is in state T",
        evidence=(first.cite(_state(first)),),
        remedy=wake(*(process.pid for process in held)),
        hits=(
            Effect(f"{one.name} does nothing; docker stop waits {one.stop_timeout} s and kills"),
            *ports_unanswered(one),
        ),
        excluded=(Excluded("", f"{one.name} is not paused: docker unpause refuses"),),
    )


def _state(process: Process) -> str:
    return f"{process.pid} ({process.name}) {process.state}, parent {process.parent}"
