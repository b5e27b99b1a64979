"""What Go's decoder says of a value in daemon.json that has the wrong type.

Where the struct of the configuration stands in others, Go 1.24 (with which 26.1.5 is built) names the way to the field;
older and newer ones do not. Seen on 20.10.24, 26.1.5 and 28.5.2, each key.
"""

from __future__ import annotations

import re
from typing import Any

from doctor.engine.options import OPTIONS, Type

Release = tuple[int, int]

_PYTHON: dict[Type, type] = {"bool": bool, "string": str, "number": int, "list": list, "map": dict}
_JSON = {bool: "bool", str: "string", int: "number", float: "number", list: "array", dict: "object"}
_GO: dict[Type, str] = {
    "bool": "bool",
    "string": "string",
    "number": "int",
    "list": "[]string",
    "map": "map[string]string",
}
_OWN = {
    "default-address-pools": "[]*ipamutils.NetworkToSplit",
    "default-ulimits": "map[string]*units.Ulimit",
    "features": "map[string]bool",
    "builder": "config.BuilderConfig",
    "ip": "net.IP",
    "default-gateway": "net.IP",
    "default-gateway-v6": "net.IP",
}
_BRIDGE = "CommonConfig.BridgeConfig."
_DEFAULT_BRIDGE = _BRIDGE + "DefaultBridgeConfig."
_WAYS: dict[str, str] = {
    _DEFAULT_BRIDGE: "bip icc mtu ip ipv6 default-gateway default-gateway-v6 fixed-cidr-v6",
    _DEFAULT_BRIDGE + "commonBridgeConfig.": "bridge fixed-cidr",
    _BRIDGE: "iptables ip6tables ip-forward ip-masq userland-proxy userland-proxy-path",
    "CommonConfig.LogConfig.": "log-driver log-opts",
    "CommonConfig.DNSConfig.": "dns dns-opts dns-search",
    "CommonConfig.NetworkConfig.": "default-address-pools network-control-plane-mtu default-network-opts",
    "CommonConfig.ServiceOptions.": "registry-mirrors insecure-registries allow-nondistributable-artifacts",
    "CommonConfig.TLSOptions.": "tlscert tlskey tlscacert",
    "": "default-ulimits runtimes init init-path selinux-enabled default-ipc-mode cgroup-parent userns-remap "
    "no-new-privileges cpu-rt-period cpu-rt-runtime oom-score-adjust seccomp-profile default-shm-size "
    "default-cgroupns-mode rootless",
}
_WAY = {key: way for way, keys in _WAYS.items() for key in keys.split()}
_SIZE = re.compile(r"\d+(\.\d+)? ?([kKmMgGtTpP][iI]?)?[bB]?")


def mistyped(data: dict[str, Any], release: Release) -> str:
    """Give what is said of the first value of the wrong type, empty when there is none."""
    for key, value in data.items():
        option = OPTIONS.get(key)
        if option is None or value is None or option.flag_only:
            continue
        if key == "default-shm-size":
            if not isinstance(value, str) or not _SIZE.fullmatch(value):
                return f'invalid size: "{value}"'
            continue
        if type(value) is not _PYTHON[option.type]:
            return _said(key, value, option.type, release)
        if isinstance(value, list) and key != "default-address-pools":
            wrong = next((one for one in value if one is not None and not isinstance(one, str)), None)
            if wrong is not None:
                return _text(key, wrong, "string", release)
        if isinstance(value, dict) and key == "log-opts":
            wrong = next((one for one in value.values() if one is not None and not isinstance(one, str)), None)
            if wrong is not None:
                return _text(key, wrong, "string", release)
    return ""


def _said(key: str, value: Any, kind: Type, release: Release) -> str:
    wanted = _OWN.get(key, _GO[kind])
    if key == "runtimes":
        wanted = "map[string]types.Runtime" if release < (25, 0) else "map[string]system.Runtime"
    if key == "dns" and release >= (25, 0):
        wanted = "[]net.IP"
    if key == "default-address-pools" and release >= (28, 0):
        return f"json: cannot unmarshal {_kind(value)} into Go value of type {wanted}"
    return _text(key, value, wanted, release)


def _kind(value: Any) -> str:
    name = _JSON[type(value)]
    return f"number {value}" if isinstance(value, float) else name


def _text(key: str, value: Any, wanted: str, release: Release) -> str:
    way = _WAY.get(key, "CommonConfig.") if (25, 0) <= release < (28, 0) else ""
    more = ": JSON value must be string type" if wanted == "net.IP" and release >= (28, 0) else ""
    return f"json: cannot unmarshal {_kind(value)} into Go struct field Config.{way}{key} of type {wanted}{more}"
