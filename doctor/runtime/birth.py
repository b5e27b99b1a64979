"""How a lab's host is born: the processes between who brings it up and the first process of its namespaces.

caller -> between, which makes the user namespace -> holder, in all others, a child of the caller's
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from doctor.linux import privileges, rtwrite, seccomp, syscalls
from doctor.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_PARENT,
)
from doctor.runtime import control, holder, hostfiles, hostroot, userns
from doctor.runtime.process import close_others, default_signals, set_title

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP

_CHUNK = 1 << 12

_SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv4/ip_local_port_range": "32768\t60999",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/route_localnet": "0",
    "net/ipv4/conf/default/route_localnet": "0",
    "net/ipv4/conf/all/arp_ignore": "0",
    "net/ipv4/conf/default/arp_ignore": "0",
    "net/ipv4/conf/all/arp_announce": "0",
    "net/ipv4/conf/default/arp_announce": "0",
    "net/ipv4/conf/all/accept_local": "0",
    "net/ipv4/conf/default/accept_local": "0",
    "net/ipv4/conf/all/proxy_arp": "0",
    "net/ipv4/conf/default/proxy_arp": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/all/forwarding": "0",
}
"""The kernel's own defaults: a new network namespace takes those of IPv4 from the machine's (devconf_inherit_init_net)."""


def between(
    sock: socket.socket,
    listener: socket.socket,
    ids: userns.Ids | None,
    plan: hostroot.Plan,
    hold: Callable[[int], holder.Holder],
) -> NoReturn:
    """Be the process between: it makes the user namespace, and in it the holder, which is a child of who brings the lab up."""
    code = 1
    try:
        privileges.die_with_parent(signal.SIGKILL)
        if ids is not None:
            _new_users(sock, ids)
        # A cgroup namespace is rooted where one is when it is made: with groups of its own that is later.
        kinds = NAMESPACES & ~CLONE_NEWCGROUP if plan.groups else NAMESPACES
        pid = syscalls.clone(kinds | CLONE_PARENT)
        if pid:
            control.send(sock, {"holder": pid})
            code = 0
        else:
            _hold(sock, listener, plan, hold)
    except OSError as error:
        said = userns.refusal(error) if ids is not None else syscalls.words(error)
        with suppress(OSError):
            control.send(sock, {"error": f"no namespaces for a lab: {said}"})
    finally:
        os._exit(code)


def _new_users(sock: socket.socket, ids: userns.Ids) -> None:
    syscalls.unshare(CLONE_NEWUSER)
    if ids.privilege == "plain":
        userns.write_own_map(ids)
        return
    control.send(sock, {"wants": "maps"})
    answer, _ = control.receive(sock)
    if "mapped" not in answer:
        raise OSError(1, str(answer.get("error", "no ids")))


def _hold(
    sock: socket.socket, listener: socket.socket, plan: hostroot.Plan, hold: Callable[[int], holder.Holder]
) -> NoReturn:
    """Be the holder: build the host, and keep it."""
    try:
        privileges.die_with_parent(signal.SIGKILL)
        os.setsid()
        empty = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(empty, number)
        close_others((sock.fileno(), listener.fileno()))
        default_signals()
        set_title("doctor-lab", ("doctor-lab", plan.hostname))
        if userns.inside():
            os.setuid(0)  # ids of the machine's are nobody here
        else:
            privileges.drop_bounding(~holder.MACHINES)
        os.umask(0o022)
        if plan.groups:
            control.receive(sock)  # our pid, once we were put in
            syscalls.unshare(CLONE_NEWCGROUP)
        syscalls.sethostname(plan.hostname)
        seccomp.empty_kernel_log()
        beside = _Outside()
        hostroot.build(plan)
        here = hold(beside.connect())
        privileges.die_with_parent(0)
        here.run()
    except BaseException as error:  # noqa: BLE001 - whoever brings the lab up is told, and all of it ends
        said = syscalls.words(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            control.send(sock, {"error": said})
    finally:
        os._exit(1)


class _Outside:
    """The network beside the host's; what holds it is a descriptor, for a process would be seen on the host."""

    def __init__(self) -> None:
        """Fork who makes it, while the root is built: it opens no file before `connect`. Raises OSError."""
        self._ready, tell = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            _make_outside(tell)
        tell.close()

    def connect(self) -> int:
        """Lead the host's way out there, and give the descriptor. Raises OSError."""
        self._ready.send(b"x")
        _defaults()
        _expect(self._ready, b"made")
        there = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with rtwrite.Batch() as batch:
            batch.up(socket.if_nametoindex("lo"))
            batch.veth("eth0", "eth0", peer_namespace=there, up=True)
            batch.commit()
            index = socket.if_nametoindex("eth0")
            batch.address(index, f"{hostfiles.ADDRESS}/24", broadcast=True)
            batch.address(index, f"{hostfiles.ADDRESS6}/64", nodad=True)
            batch.route("default", gateway=hostfiles.OUTSIDE)
            batch.route("default", gateway=hostfiles.OUTSIDE6)
            batch.commit()
        self._ready.send(b"x")
        _expect(self._ready, b"up")
        self._ready.close()
        os.waitpid(self._pid, 0)
        return there


def _make_outside(tell: socket.socket) -> NoReturn:
    """Be the child that makes the network: its namespace, and its end of the link once that is there."""
    code = 1
    try:
        close_others((tell.fileno(),))
        set_title("outside", ("outside",))
        privileges.die_with_parent(signal.SIGKILL)
        syscalls.unshare(CLONE_NEWNET)
        tell.recv(1)  # the root is the lab's from here on, for this process too (pivot_root(2))
        _defaults()
        tell.send(b"made")
        tell.recv(1)
        with rtwrite.Batch() as batch:
            index, loop = socket.if_nametoindex("eth0"), socket.if_nametoindex("lo")
            batch.up(loop)
            batch.up(index)
            batch.address(index, f"{hostfiles.OUTSIDE}/24")
            batch.address(loop, f"{hostfiles.FAR}/32")
            batch.address(index, f"{hostfiles.OUTSIDE6}/64", nodad=True)
            batch.commit()
        tell.send(b"up")
        code = 0
    except OSError as error:
        with suppress(OSError):
            tell.send(syscalls.words(error).encode())
    finally:
        os._exit(code)


def _expect(sock: socket.socket, word: bytes) -> None:
    said = sock.recv(_CHUNK)
    if said != word:
        raise OSError(5, f"the network beside the host: {said.decode('utf-8', 'replace') or 'its process ended'}")


def _defaults() -> None:
    """Give this network namespace the kernel's own defaults."""
    for name, value in _SYSCTLS.items():
        with suppress(OSError), open(f"/proc/sys/{name}", "w", encoding="utf-8") as file:  # noqa: PTH123 - twenty of these
            file.write(value)
