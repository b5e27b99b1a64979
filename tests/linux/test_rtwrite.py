"""What is written over rtnetlink, as `ip` reads it back."""

from __future__ import annotations

import errno
import socket

import pytest

from doctor.linux.rtwrite import Batch
from tests.linux.spaces import Space, space

pytestmark = pytest.mark.root


def ask(name: str, *positional: object, **named: object) -> tuple[str, tuple[object, ...], dict[str, object]]:
    """One request of a batch."""
    return name, positional, named


def written(where: Space, *asked: tuple[str, tuple[object, ...], dict[str, object]]) -> None:
    """Open a batch in a namespace, ask for all, commit."""

    def work() -> None:
        with Batch() as batch:
            for name, positional, named in asked:
                getattr(batch, name)(*positional, **named)
            batch.commit()

    where.call(work)


def index(where: Space, name: str) -> int:
    """The index of a link."""
    return where.call(lambda: socket.if_nametoindex(name))


def test_links_and_what_they_have() -> None:
    """A bridge, a pair whose other end is in another namespace, addresses of both families and routes."""
    with space() as here, space() as there:
        written(here, ask("bridge", "br0", mac="02:42:00:00:00:01", mtu=1400))
        bridge = index(here, "br0")
        pair = {"peer_namespace": there.handle, "master": bridge, "mtu": 1300, "peer_mac": "02:42:c0:00:02:02"}
        written(
            here,
            ask("up", bridge),
            ask("address", bridge, "192.0.2.1/24", broadcast=True),
            ask("address", bridge, "2001:db8::1/64", nodad=True),
            ask("veth", "v0", "eth0", up=True, **pair),
        )
        written(here, ask("hairpin", index(here, "v0"), on=True))
        end = index(there, "eth0")
        written(
            there,
            ask("address", end, "192.0.2.2/24"),
            ask("address", end, "2001:db8::2/64", nodad=True),
            ask("up", end),
            ask("route", "default", gateway="192.0.2.1"),
            ask("route", "default", gateway="2001:db8::1"),
            ask("route", "10.66.0.0/16", kind="blackhole"),
            ask("route", "10.67.0.0/16", index=end, metric=7),
        )
        link = here.ask("link", "show", "br0")[0]
        assert (link["address"], link["mtu"], link["linkinfo"]["info_kind"]) == ("02:42:00:00:00:01", 1300, "bridge")
        assert "UP" in link["flags"]
        port = here.ask("link", "show", "v0")[0]
        assert (port["master"], port["linkinfo"]["info_slave_data"]["hairpin"]) == ("br0", True)
        held = {one["local"]: one for one in here.ask("addr", "show", "br0")[0]["addr_info"]}
        assert held["192.0.2.1"]["broadcast"] == "192.0.2.255"
        assert held["2001:db8::1"]["nodad"]
        inner = there.ask("addr", "show", "eth0")[0]
        assert (inner["address"], inner["mtu"]) == ("02:42:c0:00:02:02", 1300)
        routes = {one["dst"]: one for one in there.ask("route")}
        assert routes["default"]["gateway"] == "192.0.2.1"
        assert (routes["10.66.0.0/16"]["type"], routes["10.67.0.0/16"]["scope"]) == ("blackhole", "link")
        assert [one["gateway"] for one in there.ask("-6", "route", "show", "default")] == ["2001:db8::1"]
        written(there, ask("delete_route", "default", gateway="192.0.2.1"), ask("down", end), ask("rename", end, "e9"))
        assert not there.ask("route", "show", "default")
        assert index(there, "e9") == end
        written(here, ask("delete", bridge), ask("delete", index(here, "v0")))
        assert [one["ifname"] for one in there.ask("link")] == ["lo"]


def test_the_first_error_is_told_and_the_rest_is_done() -> None:
    """More requests than one datagram takes: the one that cannot be says what it was, those after it are carried out."""
    with space() as here:
        asked = [ask("bridge", f"br{number}") for number in range(150)]
        asked.insert(70, ask("bridge", "br3"))
        with pytest.raises(FileExistsError) as caught:
            written(here, *asked)
        assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, "bridge br3")
        assert len(here.ask("link")) == 151
