"""What `docker run` was told, as the body of a request to make a container (docker/cli cli/command/container/opts.go)."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from doctor.runtime.daemon.cli.flags import Flags, UsageError
from doctor.runtime.ports import parse as parse_ports

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECOND = 1_000_000_000
_ROWS = (
    *(
        "add-host=*",
        "attach,a=*",
        "cap-add=*",
        "cap-drop=*",
        "cpus=",
        "detach,d",
        "dns=*",
        "dns-option=*",
        "dns-search=*",
    ),
    *("domainname=", "entrypoint=", "env,e=*", "env-file=*", "expose=*", "health-cmd=", "health-interval="),
    *("health-retries=", "health-start-period=", "health-timeout=", "no-healthcheck", "hostname,h=", "init"),
    *("interactive,i", "ip=", "ip6=", "ipc=", "label,l=*", "link=*", "log-driver=", "log-opt=*", "mac-address="),
    *(
        "memory,m=",
        "mount=*",
        "name=",
        "net=*",
        "net-alias=*",
        "network=*",
        "network-alias=*",
        "no-healthcheck",
        "pid=",
    ),
    *("pids-limit=", "platform=", "privileged", "publish,p=*", "publish-all,P", "pull=", "quiet,q", "read-only"),
    *("restart=", "rm", "security-opt=*", "shm-size=", "sig-proxy", "stop-signal=", "stop-timeout=", "sysctl=*"),
    *("tmpfs=*", "tty,t", "ulimit=*", "user,u=", "userns=", "volume,v=*", "workdir,w="),
)
RUN = Flags(*dict.fromkeys(_ROWS), mixed=False)


def body(flags: dict[str, Any], image: str, command: list[str], *, attached: bool) -> dict[str, Any]:
    """Give the body of POST /containers/create. Raises UsageError."""
    networks = [*flags["network"], *flags["net"]]
    mode = networks[0] if networks else "default"
    found: dict[str, Any] = {
        "Hostname": flags["hostname"] or "",
        "Domainname": flags["domainname"] or "",
        "User": flags["user"] or "",
        "AttachStdin": attached and bool(flags["interactive"]),
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Tty": bool(flags["tty"]),
        "OpenStdin": bool(flags["interactive"]),
        "StdinOnce": attached and bool(flags["interactive"]),
        "Env": _environment(flags),
        "Cmd": command or None,
        "Image": image,
        "WorkingDir": flags["workdir"] or "",
        "Entrypoint": None if flags["entrypoint"] is None else [flags["entrypoint"]] if flags["entrypoint"] else [""],
        "Labels": _pairs(flags["label"]),
        "StopSignal": flags["stop-signal"] or "",
        "HostConfig": _host(flags, mode),
    }
    if flags["stop-timeout"]:
        found["StopTimeout"] = _number("stop-timeout", flags["stop-timeout"])
    ports = [publish for text in flags["publish"] for publish in _ports(text)]
    exposed = {f"{one['port']}/{one['protocol']}" for one in ports}
    exposed |= {text if "/" in text else f"{text}/tcp" for text in flags["expose"]}
    if exposed:
        found["ExposedPorts"] = {name: {} for name in sorted(exposed)}
    health = _health(flags)
    if health:
        found["Healthcheck"] = health
    endpoints = _endpoints(flags, networks, mode)
    if endpoints:
        found["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return found


def _host(flags: dict[str, Any], mode: str) -> dict[str, Any]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in flags["publish"]:
        for one in _ports(text):
            held = bindings.setdefault(f"{one['port']}/{one['protocol']}", [])
            held.append({"HostIp": one["host_ip"], "HostPort": one["host_port"]})
    policy, _, most = (flags["restart"] or "no").partition(":")
    if policy not in {"no", "always", "unless-stopped", "on-failure"}:
        raise UsageError(
            f"invalid restart policy: unknown policy '{policy}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if flags["rm"] and policy not in {"no", ""}:
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    memory = _size("memory", flags["memory"]) if flags["memory"] else 0
    return {
        "Binds": flags["volume"] or None,
        "LogConfig": {"Type": flags["log-driver"] or "", "Config": _pairs(flags["log-opt"])},
        "NetworkMode": mode,
        "PortBindings": bindings,
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": _number("restart", most) if most else 0},
        "AutoRemove": bool(flags["rm"]),
        "CapAdd": flags["cap-add"] or None,
        "CapDrop": flags["cap-drop"] or None,
        "Dns": flags["dns"],
        "DnsOptions": flags["dns-option"],
        "DnsSearch": flags["dns-search"],
        "ExtraHosts": flags["add-host"] or None,
        "IpcMode": flags["ipc"] or "",
        "Links": flags["link"] or None,
        "PidMode": flags["pid"] or "",
        "Privileged": bool(flags["privileged"]),
        "PublishAllPorts": bool(flags["publish-all"]),
        "ReadonlyRootfs": bool(flags["read-only"]),
        "SecurityOpt": flags["security-opt"] or None,
        "Sysctls": _pairs(flags["sysctl"]),
        "Tmpfs": {name: options for name, _, options in (text.partition(":") for text in flags["tmpfs"])},
        "Mounts": [_mount(text) for text in flags["mount"]],
        "Memory": memory,
        "NanoCpus": int(float(flags["cpus"] or 0) * 1e9),
        "PidsLimit": _number("pids-limit", flags["pids-limit"]) if flags["pids-limit"] else None,
        "Ulimits": [_ulimit(text) for text in flags["ulimit"]],
        "ShmSize": _size("shm-size", flags["shm-size"]) if flags["shm-size"] else 0,
        **({"Init": True} if flags["init"] else {}),
    }


def _ports(text: str) -> list[dict[str, Any]]:
    try:
        parsed = parse_ports(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return [
        {
            "port": one.port,
            "protocol": one.protocol,
            "host_ip": one.host_ip,
            "host_port": "" if not one.host_port else
            f"{one.host_port}-{one.host_port_end}" if one.host_port_end else str(one.host_port),
        }
        for one in parsed
    ]  # fmt: skip


def _endpoints(flags: dict[str, Any], networks: list[str], mode: str) -> dict[str, Any]:
    """Give EndpointsConfig: addresses and aliases are those of the first network."""
    found: dict[str, Any] = {}
    for text in networks[1:]:
        found[text] = {}
    fixed = {"IPv4Address": flags["ip"], "IPv6Address": flags["ip6"]}
    fixed = {name: value for name, value in fixed.items() if value}
    aliases = [*flags["network-alias"], *flags["net-alias"]]
    if fixed or aliases or flags["mac-address"] or (networks[1:] and mode != "default"):
        if mode in {"host", "none"} or mode.startswith("container:"):
            raise UsageError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
        found[mode] = {
            **({"IPAMConfig": fixed} if fixed else {}),
            **({"Aliases": aliases} if aliases else {}),
            **({"MacAddress": flags["mac-address"]} if flags["mac-address"] else {}),
        }
    return found


def _environment(flags: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for path in flags["env-file"]:
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a path as it was typed
                lines += [line.strip("\n") for line in file if line.strip() and not line.lstrip().startswith("#")]
        except OSError as error:
            raise UsageError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    found = []
    for text in (*lines, *flags["env"]):
        if "=" in text:
            found.append(text)
        elif text in os.environ:
            found.append(f"{text}={os.environ[text]}")
    return found


def _pairs(texts: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f'invalid argument "{text}" for "--{name}" flag: strconv.ParseInt: parsing "{text}": invalid syntax'
        ) from None


def _size(name: str, text: str) -> int:
    match = re.fullmatch(r"([0-9.]+) ?([bkmgt]?)b?", text.lower())
    if not match:
        raise UsageError(f'invalid argument "{text}" for "--{name}" flag: invalid size: \'{text}\'')
    return int(float(match[1]) * _UNITS[match[2]])


def _duration(name: str, text: str) -> int:
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f'invalid argument "{text}" for "--{name}" flag: time: invalid duration "{text}"')
    return int(sum(float(number) * _SECONDS[unit] for number, unit in parts) * _SECOND)


def _health(flags: dict[str, Any]) -> dict[str, Any]:
    if flags["no-healthcheck"]:
        return {"Test": ["NONE"]}
    if not flags["health-cmd"]:
        return {}
    found: dict[str, Any] = {"Test": ["CMD-SHELL", flags["health-cmd"]]}
    for flag, key in (("interval", "Interval"), ("timeout", "Timeout"), ("start-period", "StartPeriod")):
        if flags[f"health-{flag}"]:
            found[key] = _duration(f"health-{flag}", flags[f"health-{flag}"])
    if flags["health-retries"]:
        found["Retries"] = _number("health-retries", flags["health-retries"])
    return found


def _ulimit(text: str) -> dict[str, Any]:
    name, equals, values = text.partition("=")
    soft, _, hard = values.partition(":")
    if not equals or not soft.lstrip("-").isdecimal():
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: invalid ulimit argument: {text}')
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _mount(text: str) -> dict[str, Any]:
    """Read one --mount: fields by commas, as CSV (docker/cli opts/mount.go)."""
    fields: dict[str, str] = {}
    for part in shlex.split(text.replace(",", " ")):
        name, _, value = part.partition("=")
        fields[name] = value or "true"
    target = fields.get("target") or fields.get("destination") or fields.get("dst")
    if not target:
        raise UsageError(f'invalid argument "{text}" for "--mount" flag: target is required')
    readonly = (fields.get("readonly") or fields.get("ro") or "false") in {"true", "1"}
    source = fields.get("source") or fields.get("src") or ""
    return {"Type": fields.get("type", "volume"), "Source": source, "Target": target, "ReadOnly": readonly}
