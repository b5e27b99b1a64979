"""Faults of TLS: certificates of dockerd's API that hold no more or not for long, a key that others may read."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault
from tests.enginehost import HOST_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

FOLDER = "/etc/docker"

_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
_ISSUE = """
set -e
cd {folder}
umask 077
test -e ca-key.pem || openssl req {key} -keyout ca-key.pem -out ca.csr -subj /CN=authority
printf 'basicConstraints=critical,CA:TRUE' >ca.ext
openssl x509 -req -in ca.csr -signkey ca-key.pem -days {authority} -extfile ca.ext -out ca.pem
for name in server client; do
  test -e $name.csr || openssl req {key} -keyout $name-key.pem -out $name.csr -subj /CN=$name
  printf 'subjectAltName=IP:{ip}\\nextendedKeyUsage=serverAuth,clientAuth' >$name.ext
done
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -set_serial 2 -days {server} -extfile server.ext -out server.pem
openssl x509 -req -in client.csr -CA ca.pem -CAkey ca-key.pem -set_serial 3 -days 3650 -extfile client.ext -out client.pem
"""


def issue(*, server: int = 365, authority: int = 3650) -> Callable[[EngineHost], None]:
    """Have an authority, and certificates of the server and of a client by it, that hold so many days."""

    def make(host: EngineHost) -> None:
        host.sh(_ISSUE.format(folder=FOLDER, key=_KEY, ip=HOST_IP, server=server, authority=authority))

    return make


def _served(*, server: int = 365, authority: int = 3650) -> Callable[[EngineHost], None]:
    """The same, and dockerd started with them."""

    def make(host: EngineHost) -> None:
        running = sorted(host.running(), key=("web", "cron", "api", "db").index)
        issue(server=server, authority=authority)(host)
        files = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server-key.pem"}
        held = {key: f"{FOLDER}/{name}" for key, name in files.items()}
        hosts = ["unix:///var/run/docker.sock", "tcp://0.0.0.0:2376"]
        host.write("/etc/docker/daemon.json", json.dumps({"hosts": hosts, "tlsverify": True, **held}))
        host.restart_dockerd()
        host.docker("start", *running)
        host.await_listening("web", 80)
        host.await_listening("api", 80)
        time.sleep(1)  # what holds for no day has held until a second ago

    return make


def asked(host: EngineHost) -> object:
    """What a client with a certificate gets from the API by TCP; that is the same host, as whom doctor has the answer."""
    files = f"--cacert {FOLDER}/ca.pem --cert {FOLDER}/client.pem --key {FOLDER}/client-key.pem"
    return host.sh(f"curl -s -m 5 {files} https://{HOST_IP}:2376/_ping || true")


def holds(host: EngineHost) -> object:
    """Whether the certificate holds for another month."""
    return host.run(
        "openssl", "x509", "-in", f"{FOLDER}/server.pem", "-checkend", str(30 * 86400), check=False
    ).returncode


def strangers(host: EngineHost) -> object:
    """Whether nobody (uid 65534) may read the key."""
    command = f"setpriv --reuid 65534 --regid 65534 --clear-groups test -r {FOLDER}/server-key.pem"
    return host.run("sh", "-c", command, check=False).returncode


FAULTS = (
    Fault("SEC002", "expired", _served(server=0), asked, setup=_served(), heal=_served()),
    Fault(
        "SEC002",
        "authority-expired",
        _served(authority=0),
        asked,
        setup=_served(),
        heal=_served(),
        engines=("sid",),  # dockerd reads both files alike
    ),
    Fault("SEC002", "expires", issue(server=10), holds, level="warning", setup=_served(), heal=issue()),
    Fault(
        "SEC002",
        "key-readable",
        lambda h: h.sh(f"chmod 644 {FOLDER}/server-key.pem"),
        strangers,
        level="warning",
        setup=_served(),
    ),
)
