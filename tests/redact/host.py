"""The evidence of a large host, made up: 200 containers, 500 images, tables and logs. For speed and for precision."""

from __future__ import annotations

import json
import random
import string
from typing import Any

HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"
SERVICES = ("web", "api", "worker", "db", "cache", "queue", "mail", "search", "auth", "proxy")


def dump(value: object) -> bytes:
    """Print as Go does: compact, with <, > and & escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


class Maker:
    """Makes evidence from a seed; what it knows to be secret is in `secrets`."""

    def __init__(self, seed: int = 7) -> None:
        """Start from a seed, so that every run scrubs the same host."""
        self.random = random.Random(seed)  # noqa: S311 - invented evidence
        self.secrets: list[str] = []

    def hex(self, length: int = 64) -> str:
        """Give an id or a digest."""
        return "".join(self.random.choices(HEX, k=length))

    def link(self) -> str:
        """Give the name of a short link of overlay2."""
        return "".join(self.random.choices(BASE32, k=26))

    def secret(self, length: int = 20) -> str:
        """Make up a password, and remember it."""
        value = "".join(self.random.choices(string.ascii_letters + string.digits, k=length - 3)) + "-7q"
        self.secrets.append(value)
        return value

    def env(self, name: str) -> list[str]:
        """Give the environment of a container as images and Compose make it."""
        return [
            f"POSTGRES_PASSWORD={self.secret()}",
            f"DATABASE_URL=postgres://{name}:{self.secret()}@db:5432/{name}",
            "NODE_ENV=production",
            "LOG_LEVEL=info",
            f"SERVICE_NAME={name}",
            "TZ=Europe/Berlin",
            "NO_PROXY=localhost,127.0.0.1,.example.com",
            "HTTP_PROXY=http://proxy.example.com:3128",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
            "GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D",
            "PYTHON_VERSION=3.12.7",
            "PYTHON_SHA256=24887b92e2afd4a2ac602419ad4b596372f67ac9b077190f459aba390faf5550",
        ]

    def labels(self, project: str, service: str) -> dict[str, str]:
        """Give the labels that Compose writes, and some for a reverse proxy."""
        return {
            "com.docker.compose.config-hash": self.hex(),
            "com.docker.compose.container-number": "1",
            "com.docker.compose.depends_on": "db:service_started:false,cache:service_started:false",
            "com.docker.compose.image": f"sha256:{self.hex()}",
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.project": project,
            "com.docker.compose.project.config_files": f"/srv/{project}/docker-compose.yml",
            "com.docker.compose.project.working_dir": f"/srv/{project}",
            "com.docker.compose.service": service,
            "com.docker.compose.version": "2.29.7",
            "org.opencontainers.image.licenses": "MIT",
            "org.opencontainers.image.source": f"https://git.example.com/{project}/{service}",
            f"traefik.http.routers.{service}.rule": f"Host(`{service}.example.com`)",
            f"traefik.http.routers.{service}.tls.certresolver": "letsencrypt",
            f"traefik.http.services.{service}.loadbalancer.server.port": "8080",
        }

    def endpoint(self) -> dict[str, Any]:
        """Give an endpoint as inspect shows it."""
        return {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "MacAddress": "02:42:ac:11:00:02",
            "DriverOpts": None,
            "GwPriority": 0,
            "NetworkID": self.hex(),
            "EndpointID": self.hex(),
            "Gateway": "172.17.0.1",
            "IPAddress": "172.17.0.2",
            "IPPrefixLen": 16,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": ["web", self.hex(12)],
        }

    def host_config(self) -> dict[str, Any]:
        """Give a HostConfig."""
        lists = (
            "CapAdd",
            "CapDrop",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "ExtraHosts",
            "GroupAdd",
            "Links",
            "SecurityOpt",
        )
        numbers = ("BlkioWeight", "CpuCount", "CpuPercent", "CpuPeriod", "CpuQuota", "CpuShares", "Memory", "NanoCpus")
        return {
            "Binds": ["/srv/data:/data:rw", "/run/secrets/db_password:/run/secrets/db_password:ro"],
            "ContainerIDFile": "",
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
            "NetworkMode": "bridge",
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "VolumeDriver": "",
            "VolumesFrom": None,
            "ConsoleSize": [0, 0],
            "CgroupnsMode": "private",
            "IpcMode": "private",
            "Privileged": False,
            "ReadonlyRootfs": False,
            "Ulimits": [{"Name": "nofile", "Hard": 65536, "Soft": 65536}],
            "ShmSize": 67108864,
            "Runtime": "runc",
            "Isolation": "",
            **dict.fromkeys(lists),
            **dict.fromkeys(numbers, 0),
            "MaskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"],
            "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        }

    def config(self, name: str, image: str) -> dict[str, Any]:
        """Give a Config."""
        return {
            "Hostname": self.hex(12),
            "Domainname": "",
            "User": "",
            "AttachStdin": False,
            "ExposedPorts": {"8080/tcp": {}},
            "Tty": False,
            "Env": self.env(name),
            "Cmd": ["gunicorn", "--bind", "0.0.0.0:8080", "--workers", "4", "shop.wsgi"],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "curl -fsS http://localhost:8080/health || exit 1"],
                "Interval": 30000000000,
            },
            "Image": image,
            "Volumes": None,
            "WorkingDir": "/srv",
            "Entrypoint": ["/usr/local/bin/docker-entrypoint.sh"],
            "OnBuild": None,
            "Labels": self.labels("shop", name),
            "StopSignal": "SIGTERM",
        }

    def inspect(self, name: str) -> dict[str, Any]:
        """Give one container as `GET /containers/ID/json` does."""
        identity = self.hex()
        folder = f"/var/lib/docker/containers/{identity}"
        layers = ":".join(f"/var/lib/docker/overlay2/{self.hex()}/diff" for _ in range(8))
        top = f"/var/lib/docker/overlay2/{self.hex()}"
        log = [
            {
                "Start": "2026-11-24T08:43:10.806852221Z",
                "End": "2026-11-24T08:43:10.906852221Z",
                "ExitCode": 0,
                "Output": '{"status":"ok","uptime":12345,"db":"connected"}\n',
            }
        ] * 3
        return {
            "Id": identity,
            "Created": "2026-11-24T03:45:10.806852221Z",
            "Path": "/usr/local/bin/docker-entrypoint.sh",
            "Args": ["gunicorn", "--bind", "0.0.0.0:8080", "--workers", "4", "shop.wsgi"],
            "State": {
                "Status": "running",
                "Running": True,
                "Paused": False,
                "OOMKilled": False,
                "Dead": False,
                "Pid": 4711,
                "ExitCode": 0,
                "Error": "",
                "StartedAt": "2026-11-24T03:45:11.1Z",
                "FinishedAt": "0001-01-01T00:00:00Z",
                "Health": {"Status": "healthy", "FailingStreak": 0, "Log": log},
            },
            "Image": f"sha256:{self.hex()}",
            "ResolvConfPath": f"{folder}/resolv.conf",
            "HostnamePath": f"{folder}/hostname",
            "HostsPath": f"{folder}/hosts",
            "LogPath": f"{folder}/{identity}-json.log",
            "Name": f"/{name}",
            "RestartCount": 0,
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "docker-default",
            "ExecIDs": None,
            "HostConfig": self.host_config(),
            "GraphDriver": {
                "Data": {
                    "LowerDir": f"{top}-init/diff:{layers}",
                    "MergedDir": f"{top}/merged",
                    "UpperDir": f"{top}/diff",
                    "WorkDir": f"{top}/work",
                },
                "Name": "overlay2",
            },
            "Mounts": [
                {
                    "Type": "volume",
                    "Name": self.hex(),
                    "Source": f"/var/lib/docker/volumes/{self.hex()}/_data",
                    "Destination": "/data",
                    "Driver": "local",
                    "Mode": "z",
                    "RW": True,
                    "Propagation": "",
                }
            ],
            "Config": self.config(name, f"registry.example.com:5000/shop/{name}:1.4.2"),
            "NetworkSettings": {
                "Bridge": "",
                "SandboxID": self.hex(),
                "SandboxKey": f"/var/run/docker/netns/{self.hex(12)}",
                "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]},  # noqa: S104
                **self.endpoint(),
                "Networks": {"shop_default": self.endpoint()},
            },
        }

    def disk_config(self, inspect: dict[str, Any]) -> dict[str, Any]:
        """Give the config.v2.json of the same container."""
        return {
            "StreamConfig": {},
            "State": inspect["State"],
            "ID": inspect["Id"],
            "Created": inspect["Created"],
            "Managed": False,
            "Path": inspect["Path"],
            "Args": inspect["Args"],
            "Config": inspect["Config"],
            "Image": inspect["Image"],
            "NetworkSettings": inspect["NetworkSettings"],
            "LogPath": inspect["LogPath"],
            "Name": inspect["Name"],
            "Driver": "overlay2",
            "MountPoints": {},
            "SecretReferences": None,
            "ConfigReferences": None,
        }

    def image(self, number: int) -> dict[str, Any]:
        """Give the config of an image as the image database holds it: six layers, twelve lines of history."""
        history = [
            {
                "created": "2026-10-01T00:00:00Z",
                "created_by": f"COPY dir:{self.hex()} in / ",
                "comment": "buildkit.dockerfile.v0",
            },
            {"created": "2026-10-01T00:00:00Z", "created_by": "ENV PYTHON_VERSION=3.12.7", "empty_layer": True},
            {
                "created": "2026-10-01T00:00:00Z",
                "created_by": "RUN /bin/sh -c set -eux; apt-get update; apt-get install -y --no-install-recommends "
                "ca-certificates netbase tzdata && rm -rf /var/lib/apt/lists/* # buildkit",
            },
            {"created": "2026-10-01T00:00:00Z", "created_by": 'CMD ["python3"]', "empty_layer": True},
        ]
        return {
            "architecture": "amd64",
            "config": {
                "Env": [*self.env(f"image{number}")[2:9], f"BUILD_ID={number}"],
                "Cmd": ["python3"],
                "Labels": self.labels("shop", f"image{number}"),
                "WorkingDir": "/srv",
            },
            "created": "2026-10-01T00:00:00Z",
            "history": history * 3,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{self.hex()}" for _ in range(6)]},
        }

    def tables(self, lines: int) -> bytes:
        """Give a firewall as iptables-save prints it."""
        out = ["*filter", ":DOCKER - [0:0]", ":DOCKER-USER - [0:0]"]
        for number in range(lines):
            address = f"172.18.{number >> 8 & 255}.{number & 255}"
            bridge = f"br-{self.hex(12)}"
            out.append(
                f"[{number}:{number * 40}] -A DOCKER -d {address}/32 ! -i {bridge} -o {bridge} -p tcp -m tcp "
                f"--dport {number % 60000 + 1} -m comment --comment "
                f'"published by docker" -j ACCEPT'
            )
        return "\n".join([*out, "COMMIT", ""]).encode()

    def log(self, lines: int) -> bytes:
        """Give a log as dockerd writes it."""
        templates = (
            'level=info msg="ignoring event" container={0} module=libcontainerd namespace=moby topic=/tasks/delete',
            'level=warning msg="cleaning up after shim disconnected" id={0} namespace=moby',
            'level=error msg="Handler for GET /v1.47/containers/{1}/json returned error: No such container: {1}"',
            'level=info msg="Container failed to exit within 10s of signal 15 - using the force" container={0}',
            'level=warning msg="Error getting v2 registry: Get \\"https://registry.example.com:5000/v2/\\": dial tcp"',
        )
        out = []
        for number in range(lines):
            when = f"2026-11-24T08:{number // 60 % 60:02d}:{number % 60:02d}.123456789Z"
            line = self.random.choice(templates).format(self.hex(), self.hex(12))
            out.append(f'time="{when}" {line}')
        return "\n".join([*out, ""]).encode()

    def links(self, count: int) -> bytes:
        """Give interfaces as `ip -j -d link` prints them."""
        return json.dumps(
            [
                {
                    "ifindex": number,
                    "ifname": f"veth{self.hex(7)}",
                    "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
                    "mtu": 1500,
                    "qdisc": "noqueue",
                    "master": f"br-{self.hex(12)}",
                    "operstate": "UP",
                    "link_type": "ether",
                    "address": "be:ef:" + ":".join(self.hex(2) for _ in range(4)),
                    "link_netnsid": number,
                    "linkinfo": {
                        "info_kind": "veth",
                        "info_slave_kind": "bridge",
                        "info_slave_data": {"hairpin": False},
                    },
                }
                for number in range(count)
            ]
        ).encode()
