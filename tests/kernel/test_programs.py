"""Programs at links, which eat packets before any rule sees them: XDP and filters of tc, attached and asked about.

Nothing can be said of what they do, and so the model must not say that a flow works: it names what it depends on.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from doctor.linux import tcx
from doctor.linux.namespaces import inside
from doctor.linux.rtnetlink import Route
from doctor.packets.flow import Flow as Asked
from doctor.packets.packet import number
from doctor.packets.walk import follow
from tests.kernel.lan import Flow, Lan, site_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_SCHED_CLS, _XDP = 3, 6
_DROP = {_SCHED_CLS: 2, _XDP: 1}  # TC_ACT_SHOT, XDP_DROP
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3


def program(kind: int) -> int:
    """Load a program that drops everything: `r0 = DROP; exit`. Gives its descriptor."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, _DROP[kind]) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    held, text = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIQQ", kind, 2, ctypes.addressof(held), ctypes.addressof(text)).ljust(120, b"\0")
    )
    handle = int(ctypes.CDLL(None, use_errno=True).syscall(_BPF, 5, attributes, 120))
    assert handle >= 0, os.strerror(ctypes.get_errno())
    return handle


def _xdp(link: str) -> None:
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # it has no types

    with IPRoute() as route:
        handle = program(_XDP)
        route.link("set", index=route.link_lookup(ifname=link)[0], xdp_fd=handle)
        os.close(handle)


def _tc(link: str, parent: int) -> None:
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # it has no types

    with IPRoute() as route:
        index = route.link_lookup(ifname=link)[0]
        handle = program(_SCHED_CLS)
        route.tc("add", "clsact", index)
        route.tc("add-filter", "bpf", index, ":1", fd=handle, name="drop", parent=parent, classid=1, direct_action=True)
        os.close(handle)


def _tcx(link: str, where: int) -> None:
    """Attach by BPF_PROG_ATTACH: it stays as long as the link does."""
    handle = program(_SCHED_CLS)
    attributes = ctypes.create_string_buffer(struct.pack("=IIII", socket.if_nametoindex(link), handle, where, 0), 64)
    done = ctypes.CDLL(None, use_errno=True).syscall(_BPF, 8, attributes, 64)
    assert done >= 0, os.strerror(ctypes.get_errno())
    os.close(handle)


CASES: dict[str, tuple[Callable[[], None], str]] = {
    "xdp": (lambda: _xdp("c0"), "whether XDP program"),
    "ingress": (lambda: _tc("c0", _INGRESS), "whether filters of tc (bpf) let packets in by c0"),
    "tcx ingress": (lambda: _tcx("c0", tcx.WHERE["ingress"]), "whether filters of tc (tcx) let packets in by c0"),
    "tcx egress": (lambda: _tcx("s0", tcx.WHERE["egress"]), "whether filters of tc (tcx) let packets leave by s0"),
    "egress": (lambda: _tc("s0", _EGRESS), "whether filters of tc (bpf) let packets leave by s0"),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Lan, Callable[[], None], str]]:
    """A router, what is to be attached to one of its links, and what the model then asks."""
    with Lan() as lan:
        yield (lan, *CASES[request.param])


def test_what_a_program_may_eat_depends_on_it(case: tuple[Lan, Callable[[], None], str]) -> None:
    """The kernel loses the packets, and the model names the program; before, both say that they arrive."""
    lan, attach, question = case
    host = f"/proc/{lan.pids['host']}/ns/net"

    def links() -> str:
        with Route(timeout=2.0) as route:
            return route.links(filters=True).decode()

    def asked() -> tuple[bool | None, str]:
        records = lan.records() | {"netns/host/links": ("netns", inside(host, links))}
        found = follow(site_of(records), Asked(lan.space("client"), number("10.2.0.2"), 80))
        return found.works, found.question.text if found.question else ""

    flow = Flow("client", "10.2.0.2", 80)
    assert lan.connect([flow], 1.0) == {flow: "connected"}
    assert asked() == (True, "")
    inside(host, attach)
    assert lan.connect([flow], 0.5) == {flow: "timeout"}
    works, text = asked()
    assert (works, text.startswith(question)) == (None, True), text
