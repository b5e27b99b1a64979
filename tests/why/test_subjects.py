"""What a word names, and which findings concern it."""

from __future__ import annotations

import pytest

from doctor.examine import Facts
from doctor.exits import UsageError
from doctor.model import Effect, Remedy, Reported, Severity
from doctor.subjects import Concern, Host, resolve
from tests.why.hosts import REGISTRY, healthy, inspected

HOST = Host.of(Facts(REGISTRY, healthy()))
API = next(one for one in HOST.containers if one.name == "api")
COMPOSE = Host.of(
    Facts(
        REGISTRY,
        inspected(
            inspected(
                healthy(),
                "api",
                Config={"Labels": {"com.docker.compose.project": "store", "com.docker.compose.service": "front"}},
            ),
            "db",
            Config={"Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "sql"}},
        ),
    )
)


@pytest.mark.parametrize(
    ("word", "kind", "name", "containers"),
    [
        ("web1", "container", "web1", ["web1"]),
        (API.id, "container", "api", ["api"]),
        (API.id[:12], "container", "api", ["api"]),
        (API.id[:5], "container", "api", ["api"]),
        (":8081", "port", ":8081/tcp", ["api"]),
        (":8081/tcp", "port", ":8081/tcp", ["api"]),
        ("shop", "network", "shop", ["api", "db", "mail"]),
        ("network:shop", "network", "shop", ["api", "db", "mail"]),
        ("bridge", "network", "bridge", ["cron", "web1"]),
        ("busybox:lab", "image", "busybox:lab", ["api", "cron", "db", "mail", "web1"]),
        (API.image_id, "image", "busybox:lab", ["api", "cron", "db", "mail", "web1"]),
        (API.image_id[7:19], "image", "busybox:lab", ["api", "cron", "db", "mail", "web1"]),
    ],
)
def test_words(word: str, kind: str, name: str, containers: list[str]) -> None:
    """A name, an id or its beginning, a port, a kind before a name."""
    found = resolve(word, HOST)
    assert (found.kind, found.name, [one.name for one in found.containers]) == (kind, name, containers)


def test_compose() -> None:
    """A project is all its containers; a service is known by its own name, too."""
    assert [one.name for one in resolve("store", COMPOSE).containers] == ["store/front"]
    assert resolve("front", COMPOSE).name == resolve("store/front", COMPOSE).name == "store/front"
    assert resolve("api", COMPOSE).name == "store/front"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("web", "no container, project, network or image here is called web. Did you mean web1?"),
        ("container:shop", "no container here is called shop"),
        ("8080", "A port is asked for as :8080"),
        (":http", "is no port"),
        (":0", "is no port"),
        (":70000", "is no port"),
        (":80/", "is no port"),
        (":8081/udp", "no container publishes :8081/udp; published: :8081"),
        (":8082", "no container publishes :8082; published: :8081"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("", "what is it called?"),
    ],
)
def test_what_is_not_here(word: str, says: str) -> None:
    """An error of usage that names what is near, and holds no control character."""
    with pytest.raises(UsageError) as raised:
        resolve(word, HOST)
    assert says in str(raised.value)
    assert str(raised.value).isprintable()


def test_more_than_one_thing() -> None:
    """A project and a network of one name: which one is asked."""
    with pytest.raises(UsageError, match="shop is the project shop and the network shop"):
        resolve("shop", COMPOSE)
    assert resolve("project:shop", COMPOSE).kind == "project"
    assert resolve("network:shop", COMPOSE).kind == "network"


def finding(
    subject: str, *hits: Effect, severity: Severity = Severity.ERROR, scope: str = "", code: str = "NET999"
) -> Reported:
    """Make a finding."""
    return Reported(
        "id", code, "name", severity, subject, "title", "message", (), Remedy("", ()), hits, (), (), None, scope
    )


WEB = Effect("from outside, 1 published port would time out:", ("8080 -> web1",))


@pytest.mark.parametrize(
    ("word", "found", "wanted"),
    [
        ("web1", finding("web1:80/tcp"), True),
        ("web1", finding("web1:80/tcp", severity=Severity.WARNING), True),
        ("api", finding("web1:80/tcp"), False),
        ("web1", finding("ipv4", WEB), True),
        ("api", finding("ipv4", WEB), False),
        ("api", finding("x", Effect("api would reach nothing")), True),
        ("db", finding("x", Effect("api would reach nothing")), False),
        ("db", finding("shop", Effect("2 containers would reach nothing", ("api", "db")), scope="shop"), True),
        ("web1", finding("shop", Effect("2 containers would reach nothing", ("api", "db")), scope="shop"), False),
        ("db", finding("api:shop", scope="shop"), False),
        ("shop", finding("api:shop", scope="shop"), True),
        ("shop", finding("bridge:172.17.0.1", scope="bridge"), False),
        ("api", finding("ipv6", Effect("containers of shop reach nothing over IPv6")), True),
        ("web1", finding("ipv6", Effect("containers of shop reach nothing over IPv6")), False),
        ("web1", finding("dockerd", Effect("no docker command works")), True),
        ("web1", finding("log-opts", Effect("the disk fills"), severity=Severity.WARNING), False),
        ("web1", finding("tcp://0.0.0.0:2375", Effect("whoever reaches it is root"), code="SEC001"), False),
        ("web1", finding("c1c1", Effect("nothing made from these:", ("busybox:lab (web1)",))), True),
        ("web1", finding("c1c1", Effect("nothing made from these:", ("shop/api:1 (api)",))), False),
        ("busybox:lab", finding("c1c1", Effect("no container can be made of:", ("busybox:lab",))), True),
        (":8080", finding("web1:80/tcp", Effect("8080: refused from outside")), True),
        (":8080", finding("web1:memory", Effect("web1 is killed"), severity=Severity.WARNING), False),
        (":8080", finding("OUTPUT", WEB, severity=Severity.WARNING), True),
        (":8081", finding("OUTPUT", WEB, severity=Severity.WARNING), False),
        (":8081", finding("docker-proxy:0.0.0.0:8081", Effect("port 8081 is held"), severity=Severity.WARNING), True),
        ("api", finding("docker-proxy:0.0.0.0:8081", Effect("port 8081 is held"), severity=Severity.WARNING), True),
        ("web1", finding("docker-proxy:0.0.0.0:8081", Effect("port 8081 is held"), severity=Severity.WARNING), False),
    ],
)
def test_what_concerns_it(word: str, found: Reported, wanted: bool) -> None:  # noqa: FBT001
    """By subject, scope and hits; what the host as a whole suffers concerns everything."""
    assert Concern(resolve(word, HOST), HOST)(found) is wanted


def test_a_port_that_is_served() -> None:
    """Where else its container does not get to is no answer to what is wrong with the port."""
    out = finding("ipv4", Effect("would reach nothing outside", ("web1", "api")))
    subject = resolve(":8080", HOST)
    assert not Concern(subject, HOST, works=True)(out)
    assert Concern(subject, HOST, works=True)(finding("web1:80/tcp"))
    network = finding("nft other f", Effect("containers of network bridge would not reach each other"), scope="bridge")
    assert not Concern(subject, HOST, works=True)(network)
    assert Concern(subject, HOST)(network)
    assert Concern(subject, HOST, works=True)(finding("dockerd", Effect("no docker command works")))
