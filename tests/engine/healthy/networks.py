"""Networks, ports, routes and firewalls as people set them up beside Docker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.healthy.containers import runs
from tests.engine.healthy.table import Healthy
from tests.enginehost import IMAGE, OUTSIDE_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost


def network(name: str, *options: str, run: tuple[str, ...] = ()) -> Callable[[EngineHost], object]:
    """Give what makes a network with these options, and a container in it."""

    def make(host: EngineHost) -> None:
        host.docker("network", "create", *options, name)
        host.docker("run", "-d", "--name", f"in-{name}", "--network", name, *run, IMAGE, "idle")

    return make


def _several(host: EngineHost) -> None:
    host.docker("network", "create", "left")
    host.docker("network", "create", "right")
    host.docker("run", "-d", "--name", "between", "--network", "left", "-p", "8200:80", IMAGE, "serve")
    host.docker("network", "connect", "--alias", "middle", "right", "between")


def _static(host: EngineHost) -> None:
    host.docker("network", "create", "--subnet", "10.30.0.0/24", "--ip-range", "10.30.0.128/25", "fixed")
    host.docker("run", "-d", "--name", "static", "--network", "fixed", "--ip", "10.30.0.9", IMAGE, "idle")
    aux = ("--gateway", "10.31.0.1", "--aux-address", "printer=10.31.0.5")
    host.docker("network", "create", "--subnet", "10.31.0.0/24", *aux, "aux")
    host.docker("run", "-d", "--name", "in-aux", "--network", "aux", IMAGE, "idle")


def _ports(host: EngineHost) -> None:
    """On loopback, on one address, on a chosen range, on whatever is free."""
    serve = (IMAGE, "serve")
    host.docker("run", "-d", "--name", "on-loopback", "-p", "127.0.0.1:8210:80", *serve)
    host.docker("run", "-d", "--name", "on-one-address", "-p", "198.51.100.2:8211:80", *serve)
    host.docker("run", "-d", "--name", "on-any", "-p", "80", "-p", "8212-8213:80", *serve)


def _host_network(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "on-the-host", "--network", "host", IMAGE, "serve", "8220")
    host.docker("run", "-d", "--name", "on-none", "--network", "none", IMAGE, "idle")


def _links(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "linked", "--link", "web:alias", IMAGE, "idle")


def _nft(host: EngineHost) -> None:
    """Tables of others in every family, none of which meets a packet of a container with more than accept."""
    host.run(
        "nft",
        "-f",
        "-",
        stdin="""
        table inet mine {
            set known { type ipv4_addr; elements = { 203.0.113.1 } }
            chain input { type filter hook input priority 0; policy accept; ip saddr @known tcp dport 23 drop; }
            chain forward { type filter hook forward priority 10; policy accept; ip saddr 203.0.113.0/24 drop; }
            chain output { type filter hook output priority 0; policy accept; counter; }
            chain unused { drop; }
        }
        table ip mine {
            chain post { type nat hook postrouting priority 90; policy accept; oifname "tun77" masquerade; }
        }
        table ip6 mine {
            chain in { type filter hook input priority 5; policy accept; icmpv6 type echo-request accept; }
        }
        table arp mine {
            chain in { type filter hook input priority 0; policy accept; counter; }
        }
        table bridge mine {
            chain forward { type filter hook forward priority 0; policy accept; counter; }
        }
        table netdev mine {
            chain in { type filter hook ingress device "eth0" priority 0; policy accept; counter; }
        }
        """,
    )


def _iptables(host: EngineHost) -> None:
    """Chains and rules of others: a jail, a jump, an own accept, a drop of strangers, marks."""
    for rule in (
        "-N JAIL",
        "-A JAIL -s 203.0.113.66 -j REJECT",
        "-A JAIL -j RETURN",
        "-I INPUT -p tcp --dport 22 -j JAIL",
        "-A INPUT -p tcp --dport 9999 -j DROP",
        "-A FORWARD -s 203.0.113.0/24 -j DROP",
        "-I DOCKER-USER -s 203.0.113.0/24 -j DROP",
        "-t nat -N MINE",
        "-t nat -A POSTROUTING -s 192.0.2.0/24 -o tun77 -j MASQUERADE",
        "-t mangle -A PREROUTING -p tcp --dport 9999 -j MARK --set-mark 7",
        "-t raw -A PREROUTING -p udp --dport 9999 -j NOTRACK",
    ):
        host.sh(f"iptables {rule}")
    host.sh("ip6tables -A INPUT -p tcp --dport 9999 -j DROP")


def _firewalls(host: EngineHost) -> None:
    """Chains of firewalls and VPNs that let pass what is Docker's, or stand behind it."""
    for rule in (
        "-N ufw-reject-forward",
        "-A ufw-reject-forward -j REJECT",
        "-A FORWARD -j ufw-reject-forward",
        "-N ts-forward",
        "-A ts-forward -i tailscale0 -j MARK --set-mark 0x40000/0xff0000",
        "-A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP",
        "-I FORWARD -j ts-forward",
        "-N QUFIREWALL",
        "-A QUFIREWALL -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-A QUFIREWALL -i eth0 -s 203.0.113.0/24 -j DROP",
        "-A QUFIREWALL -j RETURN",
        "-I DOCKER-USER -j QUFIREWALL",
        # What Docker wrote for networks that are gone, and nobody has the address.
        "-t raw -A PREROUTING -d 172.31.9.2/32 ! -i br-8b52009aaf0d -j DROP",
    ):
        host.sh(f"iptables {rule}")
    host.write("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    host.write("/etc/default/ufw", 'DEFAULT_FORWARD_POLICY="REJECT"\n')
    host.write("/etc/iptables/rules.v4", host.sh("iptables-save"))


def _joined(host: EngineHost) -> None:
    """Two networks that somebody lets talk, by a rule where Docker says that such rules belong."""
    bridges = []
    for name in ("near", "far"):
        host.docker("network", "create", name)
        host.docker("run", "-d", "--name", f"in-{name}", "--network", name, IMAGE, "serve")
        bridges.append("br-" + host.docker("network", "inspect", "-f", "{{.Id}}", name)[:12])
    for one, other in (bridges, bridges[::-1]):
        host.sh(f"iptables -I DOCKER-USER -i {one} -o {other} -j ACCEPT")


def _own_masquerade(host: EngineHost) -> None:
    """Somebody's own rule in the place of Docker's: what leaves has an address of this host all the same."""
    host.docker("network", "create", "--subnet", "10.32.0.0/24", "masked")
    host.docker("run", "-d", "--name", "in-masked", "--network", "masked", IMAGE, "idle")
    bridge = "br-" + host.docker("network", "inspect", "-f", "{{.Id}}", "masked")[:12]
    host.sh(f"iptables -t nat -D POSTROUTING -s 10.32.0.0/24 ! -o {bridge} -j MASQUERADE")
    host.sh("iptables -t nat -A POSTROUTING -s 10.32.0.0/24 -o eth0 -j SNAT --to-source 198.51.100.2")


def _routes(host: EngineHost) -> None:
    """Routes whose prefixes look alike, wider ones, blackholes, a table that no rule selects, a second default route."""
    for route in (
        f"10.70.0.0/16 via {OUTSIDE_IP}",
        f"10.7.1.0/24 via {OUTSIDE_IP}",
        f"10.0.0.0/8 via {OUTSIDE_IP}",
        f"172.16.0.0/12 via {OUTSIDE_IP}",
        f"0.0.0.0/1 via {OUTSIDE_IP}",
        "blackhole 192.168.0.0/16",
        "unreachable 100.64.0.0/10",
        f"10.7.0.0/25 via {OUTSIDE_IP} table 77",
        f"default via {OUTSIDE_IP} dev eth0 metric 500",
        "unreachable default metric 4278198272",
    ):
        host.sh(f"ip route add {route}")


def _wg_quick(host: EngineHost) -> None:
    """What wg-quick makes: everything but what table main knows better goes by the tunnel."""
    host.sh("ip tuntap add mode tun wg7; ip address add 10.99.0.2/32 dev wg7; ip link set wg7 up")
    host.sh(f"ip route add default dev wg7 table 51820; ip route add {OUTSIDE_IP} dev eth0 table 51820")
    host.sh("ip rule add not fwmark 0xca6c table 51820 priority 32764")
    host.sh("ip rule add table main suppress_prefixlength 0 priority 32763")


def _two_uplinks(host: EngineHost) -> None:
    """What the host sends from its own address has a table of its own; and rules for marks, users and ports."""
    host.sh(
        f"ip route add default via {OUTSIDE_IP} dev eth0 table 101; ip route add 198.51.100.0/24 dev eth0 table 101"
    )
    host.sh("ip rule add from 198.51.100.2 table 101 priority 200")
    host.sh("ip rule add fwmark 0x77 table 101 priority 201; ip rule add uidrange 4000-4000 table 101 priority 202")


def _bridges(host: EngineHost) -> None:
    """Bridges of others: libvirt's, with STP; one without an address; one that is down; a name that looks like Docker's."""
    host.sh(
        "ip link add virbr0 type bridge stp_state 1; ip address add 192.168.122.1/24 dev virbr0; ip link set virbr0 up"
    )
    host.sh("ip link add podman0 type bridge; ip address add 10.88.0.1/16 dev podman0; ip link set podman0 up")
    host.sh("ip link add br-lan type bridge; ip link set br-lan up; ip link add down0 type bridge")


def _namespaces(host: EngineHost) -> None:
    """A namespace of somebody else's, with addresses as Docker's."""
    host.sh(
        "ip netns add other; ip -n other link add docker0 type bridge; ip -n other address add 172.17.0.1/16 dev docker0"
    )
    host.sh("ip link add there type veth peer name here netns other; ip address add 192.0.2.77/30 dev there")
    host.sh("ip link set there up; ip -n other link set here up")


def _in_containers(host: EngineHost) -> None:
    """What containers do to their own network: a second address, a VPN's halves, a smaller MTU, another gateway."""
    host.docker("run", "-d", "--name", "vpn", "--cap-add", "NET_ADMIN", IMAGE, "idle")
    enter = f"nsenter -t {host.container_pid('vpn')} -n"
    host.sh(f"{enter} ip address add 192.0.2.200/32 dev eth0; {enter} ip link set eth0 mtu 1400")
    host.sh(f"{enter} ip tuntap add mode tun tun0; {enter} ip link set tun0 up")
    host.sh(f"{enter} ip route add 0.0.0.0/1 dev tun0; {enter} ip route add 128.0.0.0/1 dev tun0")
    host.docker("run", "-d", "--name", "behind", "--cap-add", "NET_ADMIN", IMAGE, "idle")
    enter = f"nsenter -t {host.container_pid('behind')} -n"
    host.sh(f"{enter} ip route replace default via {host.container_ip('vpn')}")


def _processes(host: EngineHost) -> None:
    """Servers of the host, and files that name servers."""
    host.sh("nohup busybox nc -ll -p 8299 -s 127.0.0.1 -e cat >/dev/null 2>&1 </dev/null &")
    host.sh("echo 127.0.0.1 registry.example >>/etc/hosts")
    host.write("/etc/resolv.conf", "nameserver 198.51.100.1\noptions ndots:2\n")


def _kubernetes(host: EngineHost) -> None:
    """What kube-proxy, flannel and CNI write beside Docker: chains first in FORWARD, DNAT by chance, a bridge, a VXLAN."""
    chains = ("KUBE-FORWARD", "KUBE-SERVICES", "KUBE-FIREWALL", "CNI-FORWARD")
    host.sh("\n".join(f"iptables -N {one}" for one in chains))
    nat = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-SVC-ABC", "KUBE-SEP-ABC")
    host.sh("\n".join(f"iptables -t nat -N {one}" for one in nat))
    for rule in (
        "-I FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-I FORWARD -j KUBE-FORWARD",
        "-I FORWARD -j CNI-FORWARD",
        "-I INPUT -j KUBE-FIREWALL",
        "-I OUTPUT -j KUBE-FIREWALL",
        "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
        "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A CNI-FORWARD -d 10.244.0.5/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A CNI-FORWARD -s 10.244.0.5/32 -j ACCEPT",
        "-t nat -I PREROUTING -j KUBE-SERVICES",
        "-t nat -I OUTPUT -j KUBE-SERVICES",
        "-t nat -I POSTROUTING -j KUBE-POSTROUTING",
        "-t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp --dport 443 -j KUBE-SVC-ABC",
        "-t nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        "-t nat -A KUBE-NODEPORTS -p tcp --dport 30080 -j KUBE-SVC-ABC",
        "-t nat -A KUBE-SVC-ABC -m statistic --mode random --probability 0.5 -j KUBE-SEP-ABC",
        "-t nat -A KUBE-SEP-ABC -s 10.244.0.5/32 -j KUBE-MARK-MASQ",
        "-t nat -A KUBE-SEP-ABC -p tcp -j DNAT --to-destination 10.244.0.5:6443",
        "-t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ):
        host.sh(f"iptables {rule}")
    host.sh("ip link add cni0 type bridge; ip address add 10.244.0.1/24 dev cni0; ip link set cni0 up")
    host.sh("ip link add flannel.1 type vxlan id 1 dstport 8472 dev eth0; ip address add 10.244.0.0/32 dev flannel.1")
    host.sh("ip link set flannel.1 up; ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink")


def _podman(host: EngineHost) -> None:
    """What netavark writes beside Docker, and a container of it."""
    for rule in (
        "-N NETAVARK_FORWARD",
        "-I FORWARD -j NETAVARK_FORWARD",
        "-A NETAVARK_FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A NETAVARK_FORWARD -d 10.89.0.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A NETAVARK_FORWARD -s 10.89.0.0/24 -j ACCEPT",
        "-t nat -N NETAVARK-1D8721804F16F",
        "-t nat -A POSTROUTING -s 10.89.0.0/24 -j NETAVARK-1D8721804F16F",
        "-t nat -A NETAVARK-1D8721804F16F -d 10.89.0.0/24 -j ACCEPT",
        "-t nat -A NETAVARK-1D8721804F16F ! -d 224.0.0.0/4 -j MASQUERADE",
    ):
        host.sh(f"iptables {rule}")
    host.sh("ip link add podman1 type bridge; ip address add 10.89.0.1/24 dev podman1; ip link set podman1 up")
    host.sh("ip netns add pod; ip link add pod0 type veth peer name eth0 netns pod; ip link set pod0 master podman1 up")
    host.sh("ip -n pod address add 10.89.0.2/24 dev eth0; ip -n pod link set eth0 up")


def _another_dockerd(host: EngineHost) -> None:
    """A dockerd of a user's beside the system's, in a network of its own, as a rootless one has it."""
    own = "--data-root /srv/own/data --exec-root /run/own -p /run/own.pid -H unix:///run/own.sock"
    host.sh(f"mkdir -p /srv/own; setsid unshare -n dockerd {own} --iptables=false --bridge=none >/tmp/own.log 2>&1 &")
    host.sh("for i in $(seq 100); do curl -sf --unix-socket /run/own.sock http://d/_ping && exit; sleep 0.1; done")


HEALTHY = (
    Healthy("several-networks", _several),
    Healthy("internal", network("inner", "--internal")),
    Healthy("icc-off", network("apart", "--opt", "com.docker.network.bridge.enable_icc=false")),
    Healthy(
        "no-masquerade",
        network("routed", "--opt", "com.docker.network.bridge.enable_ip_masquerade=false"),
        notes=("NET062",),
    ),
    Healthy("mtu", network("small", "--opt", "com.docker.network.driver.mtu=1400")),
    Healthy("bridge-name", network("named", "--opt", "com.docker.network.bridge.name=shop0")),
    Healthy("binding-address", network("bound", "--opt", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1")),
    Healthy("ipv6", network("six", "--ipv6", "--subnet", "fd00:7::/64")),
    Healthy("macvlan", network("flat", "-d", "macvlan", "--subnet", "192.0.2.0/28", "-o", "parent=eth0")),
    Healthy("unused-network", lambda h: h.docker("network", "create", "--attachable", "--label", "a=b", "unused")),
    Healthy(
        "dns", runs("asks", "--dns", "198.51.100.1", "--dns-search", "example.org", "--add-host", "a.example:192.0.2.1")
    ),
    Healthy("static-and-auxiliary-addresses", _static),
    Healthy("ports", _ports),
    Healthy("host-network-and-none", _host_network),
    Healthy("links", _links),
    Healthy("nft-tables-of-others", _nft),
    Healthy("iptables-rules-of-others", _iptables),
    Healthy("firewalls-that-know-docker", _firewalls),
    Healthy("networks-joined-by-hand", _joined),
    Healthy("own-masquerade", _own_masquerade, notes=("NET025",)),
    Healthy("routes-that-look-alike", _routes),
    Healthy("wg-quick", _wg_quick),
    Healthy("two-uplinks", _two_uplinks),
    Healthy("bridges-of-others", _bridges),
    Healthy("namespace-of-others", _namespaces),
    Healthy("networks-in-containers", _in_containers),
    Healthy("servers-of-the-host", _processes),
    Healthy("kubernetes-beside", _kubernetes),
    Healthy("podman-beside", _podman),
    Healthy("another-dockerd", _another_dockerd),
)
