"""Tokens, numbers, counts, relations and hostile input: what a redactor promises to those who call it."""

# ruff: noqa: RUF001 - the token's dash is an en dash

from __future__ import annotations

import base64
import json
import threading

import msgspec
import pytest

from doctor.lines import escape, tree_line, unescape
from doctor.redact import KINDS, WITHHELD, Redactor, leaks, removed_text
from doctor.snapshot import Record, tree_entries

PASSWORD = "Kestrel-41-river"  # noqa: S105 - invented


def record(name: str, data: bytes, how: str, redactor: Redactor) -> Record:
    """Scrub as the collector does."""
    clean, count = redactor.scrub(data, how)
    return Record(name, "file", name, data=clean, redactions=count)


def finished(*sources: tuple[str, str]) -> list[str]:
    """Scrub texts in the order of their sources, and finish."""
    redactor = Redactor()
    records = [record(str(number), data.encode(), how, redactor) for number, (data, how) in enumerate(sources)]
    return [done.text for done in redactor.finish(records)]


def inspect(*variables: str) -> str:
    """Give an inspect with an environment."""
    return json.dumps({"Config": {"Env": list(variables)}}, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(
    ("length", "bucket"),
    [
        (1, "1–8"),
        (8, "1–8"),
        (9, "9–16"),
        (16, "9–16"),
        (17, "17–32"),
        (33, "33–64"),
        (64, "33–64"),
        (65, "65+"),
        (9999, "65+"),
    ],
)
def test_a_token_tells_the_length_and_no_more(length: int, bucket: str) -> None:
    """Lengths are told by the bucket, counted in characters."""
    for char in "7ä":
        (text,) = finished((inspect(f"A_PASSWORD={char * length}"), "inspect"))
        assert text == inspect(f"A_PASSWORD=«secret 1, {bucket} chars»")


def test_equal_secrets_have_equal_tokens_everywhere() -> None:
    """Whether it stands in an environment, a file, a command line, a label or a URL, a secret is the same secret."""
    texts = finished(
        (inspect(f"DB_PASSWORD={PASSWORD}", "OTHER_TOKEN=another-1"), "inspect"),
        (f"[Service]\nEnvironment=DB_PASSWORD={PASSWORD}\n", "unit"),
        (f"mysqld\0--password={PASSWORD}\0", "cmdline"),
        (f'level=error msg="postgres://shop:{PASSWORD}@db/x"', "text"),
        (f'{{"Config":{{"Labels":{{"db.password":"{PASSWORD}"}}}}}}', "inspect"),
        (f"DB_PASSWORD={PASSWORD}\0", "environ"),
    )
    assert all("«secret 1, 9–16 chars»" in text for text in texts)
    assert sum(text.count("«secret 2,") for text in texts) == 1


def test_percent_encoding_is_seen_through() -> None:
    """The password in a URL is the one in the environment, spelt otherwise."""
    texts = finished((inspect("DB_PASSWORD=p@ss/w0rd!"), "inspect"), ("http://u:p%40ss%2Fw0rd%21@h/", "text"))
    assert texts[1] == "http://u:«secret 1, 9–16 chars»@h/"


def test_what_is_learnt_later_goes_from_earlier_records() -> None:
    """The log comes first, and nothing in it looks secret; the environment that gives it away is read last."""
    texts = finished(
        (f"starting with argument {PASSWORD} for shop", "text"),
        ('{"Config":{"Cmd":["app","' + PASSWORD + '"]}}', "inspect"),
        (inspect(f"DB_PASSWORD={PASSWORD}"), "inspect"),
    )
    assert texts[0] == "starting with argument «secret 1, 9–16 chars» for shop"
    assert PASSWORD not in "".join(texts)


def test_a_login_gives_its_password_away() -> None:
    """The base64 of `docker login` has a password in it; it goes from other records too."""
    auth = base64.b64encode(f"ci:{PASSWORD}".encode()).decode()
    texts = finished(
        (f"pushing with {PASSWORD}", "text"), (f'{{"auths":{{"r":{{"auth":"{auth}"}}}}}}', "docker-config")
    )
    assert texts[0] == "pushing with «secret 1, 9–16 chars»"
    assert texts[1] == '{"auths":{"r":{"auth":"«secret 2, 17–32 chars»"}}}'


def test_special_characters_are_found_in_every_spelling() -> None:
    """JSON, Go's JSON, URLs: the last pass knows how a secret is spelt there."""
    secret = 'Qx9&<7>"\\zz%'  # noqa: S105 - invented
    redactor = Redactor()
    records = [
        record("env", json.dumps({"Env": [f"A_SECRET={secret}"]}).encode(), "inspect", redactor),
        Record("raw", "file", "", data=f"x {secret} y".encode()),
        Record("json", "file", "", data=json.dumps({"a": f"b {secret}"}).encode()),
        Record("go", "file", "", data=b'{"a":"Qx9\\u0026\\u003c7\\u003e\\"\\\\zz%"}'),
        Record("url", "file", "", data=b"/?q=Qx9%26%3C7%3E%22%5Czz%25"),
    ]
    done = redactor.finish(records)
    assert all("«secret 1, 9–16 chars»" in one.text for one in done)
    assert [one.redactions for one in done] == [1, 1, 1, 1, 1]
    msgspec.json.decode(done[2].data)
    msgspec.json.decode(done[3].data)


@pytest.mark.parametrize(
    "word", ["wordpress", "postgres", "changeme", "shop-db", "12345678", "production", "10.0.0.1:80"]
)
def test_common_words_go_from_their_place_only(word: str) -> None:
    """A password that is also a name must not take the name out of everything else."""
    texts = finished((inspect(f"DB_PASSWORD={word}"), "inspect"), (f"container {word} on network {word}", "text"))
    assert word not in texts[0]
    assert texts[1] == f"container {word} on network {word}"


def test_numbers_follow_the_sources_not_the_threads() -> None:
    """Threads may come in any order: the tokens are the same."""
    texts = [inspect(f"A_PASSWORD=secret-of-{number}-x7", f"B_TOKEN=shared-{number % 3}-y9") for number in range(40)]
    results = []
    for order in (range(40), reversed(range(40))):
        redactor = Redactor()
        records: dict[int, Record] = {}

        def work(numbers: list[int], redactor: Redactor = redactor, records: dict[int, Record] = records) -> None:
            for number in numbers:
                records[number] = record(str(number), texts[number].encode(), "inspect", redactor)

        numbers = list(order)
        threads = [threading.Thread(target=work, args=(numbers[start::4],)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = redactor.finish([records[number] for number in range(40)])
        results.append([one.data for one in done])
        assert redactor.removed == {"environment": 43}
    assert results[0] == results[1]
    assert results[0][0].decode() == inspect(
        "A_PASSWORD=«secret 1, 9–16 chars»",
        "B_TOKEN=«secret 2, 9–16 chars»",
    )


def test_reasons_and_targets_are_scrubbed_too() -> None:
    """An error text of the daemon may quote a URL with its password."""
    redactor = Redactor()
    records = [
        record("a", inspect(f"DB_PASSWORD={PASSWORD}").encode(), "inspect", redactor),
        Record("b", "api", f"/x?{PASSWORD}", status="failed", why="Get http://u:Pr0xy-pw@proxy:3128: refused"),
    ]
    done = redactor.finish(records)[1]
    assert done.target == "/x?«secret 1, 9–16 chars»"
    assert done.why == "Get http://u:«secret 2, 1–8 chars»@proxy:3128: refused"


def test_untouched_records_are_the_same_objects() -> None:
    """Nothing found, nothing copied."""
    redactor = Redactor()
    data = b'{"a":1}'
    clean, count = redactor.scrub(data, "inspect")
    assert clean is data
    assert count == 0
    one = Record("a", "file", "/a", data=clean)
    assert redactor.finish([one])[0] is one
    assert redactor.removed == {}


# -- environments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("PATH=/usr/bin:/bin", "PATH=/usr/bin:/bin"),
        ("LC_ALL=C", "LC_ALL=C"),
        ("EMPTY=", "EMPTY="),
        ("NOEQUALS", "NOEQUALS"),
        ("NODE_VERSION=22.1.0", "NODE_VERSION=22.1.0"),
        ("SECRET_VERSION=3", "SECRET_VERSION=3"),
        ("APP_VERSION=my secret plan", "APP_VERSION=«value»"),
        ("SHOP_MODE=blue", "SHOP_MODE=«value»"),
        ("ALLOW_EMPTY_PASSWORD=yes", "ALLOW_EMPTY_PASSWORD=«value»"),
        ("PG_PASSWORD_FILE=/run/secrets/pg", "PG_PASSWORD_FILE=«value»"),
        ("GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D", "GPG_KEY=«value»"),
        ("TOKENIZERS_PARALLELISM=false", "TOKENIZERS_PARALLELISM=«value»"),
        ("SSH_AUTH_SOCK=/run/agent.sock", "SSH_AUTH_SOCK=«value»"),
        ("API=http://api.example.com:8080", "API=http://api.example.com:8080"),
        ("API=http://api.example.com:8080/", "API=http://api.example.com:8080/"),
        ("API=http://api.example.com:8080/v1?x=1", "API=http://api.example.com:8080/«value»"),
        ("ETCD=http://a:2379,http://b:2379", "ETCD=http://a:2379,http://b:2379"),
        ("DOCKER_HOST=unix:///var/run/docker.sock", "DOCKER_HOST=unix:///var/run/docker.sock"),
        ("DB=jdbc:postgresql://db:5432/shop", "DB=jdbc:postgresql://db:5432/«value»"),
        ("HTTP_PROXY=http://u:pw-77@p:1", "HTTP_PROXY=http://«value»:«secret 1, 1–8 chars»@p:1"),
        ("Q=mysql://u@h/x?password=pw-77", "Q=mysql://«value»@h/«secret 1, 1–8 chars»"),
        ("OPTS=-a -Dx.password=pw-77 -b", "OPTS=«value» «secret 1, 1–8 chars»"),
    ],
)
def test_environment_values_are_kept_by_name(variable: str, expected: str) -> None:
    """What is not known to be harmless is withheld; addresses are what a daemon's environment is read for."""
    (text,) = finished((inspect(variable), "inspect"))
    assert text == inspect(expected)


def test_withheld_values_are_not_counted() -> None:
    """They are nobody's business, and no secrets."""
    redactor = Redactor()
    _, count = redactor.scrub(inspect("SHOP_MODE=blue", "A_TOKEN=tok-1").encode(), "inspect")
    assert count == 1


# -- counts ------------------------------------------------------------------------------------------------------------


def test_kinds_are_counted_by_distinct_secret() -> None:
    """A secret is counted once, as what it is where it appears first in the order of the sources."""
    redactor = Redactor()
    sources = [
        ('{"proxies":{"http-proxy":"http://u:pr0xy-1@p:1"}}', "daemon-json"),
        (inspect("A_PASSWORD=one-1", "B_PASSWORD=two-2"), "inspect"),
        (inspect("C_PASSWORD=one-1", "D_PASSWORD=three-3"), "inspect"),
        ('{"Config":{"Labels":{"x.token":"four-4"},"Cmd":["a","--password","one-1"]}}', "inspect"),
        ('{"log-opts":{"splunk-token":"five-5"}}', "daemon-json"),
        ('{"history":[{"created_by":"ARG TOKEN=six-6"},{"created_by":"RUN curl -u a:seven-7 http://x"}]}', "inspect"),
        ('{"State":{"Health":{"Log":[{"Output":"password=eight-8"}]}}}', "inspect"),
        ("password=nine-9", "text"),
    ]
    records = [record(str(number), data.encode(), how, redactor) for number, (data, how) in enumerate(sources)]
    redactor.finish(records)
    assert redactor.removed == {
        "environment": 3,
        "proxy password": 1,
        "label": 1,
        "log option": 1,
        "build argument": 1,
        "image history": 1,
        "health check": 1,
        "text": 1,
    }


@pytest.mark.parametrize(
    ("removed", "text"),
    [
        ({}, "no secrets"),
        ({"label": 1}, "1 secret (1 label)"),
        ({"environment": 1}, "1 secret (1 in an environment)"),
        (
            {"environment": 5, "proxy password": 1, "label": 1},
            "7 secrets (5 in environments, 1 proxy password, 1 label)",
        ),
        ({"label": 2, "environment": 3}, "5 secrets (3 in environments, 2 labels)"),
        ({"of a later version": 2}, "2 secrets (2 of a later versions)"),
    ],
)
def test_the_line_of_what_was_removed(removed: dict[str, int], text: str) -> None:
    """The line of `doctor collect`, most first."""
    assert removed_text(removed) == text


def test_every_kind_has_words_for_one_and_for_many() -> None:
    """A kind is shown to people."""
    for kind in KINDS:
        assert removed_text({kind: 1}).startswith("1 secret (1 ")
        assert removed_text({kind: 2}).startswith("2 secrets (2 ")


# -- the last check ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [0, 200])
def test_leaks_are_named_by_number(others: int) -> None:
    """However many secrets are known, one in a finished report is found, and named without its value."""
    redactor = Redactor()
    variables = [f"A{number}_TOKEN=other-{number}-secret-x9" for number in range(others)]
    first = record(
        "a", inspect(f"DB_PASSWORD={PASSWORD}", "C_SECRET=a<b&'c\"d-77", *variables).encode(), "inspect", redactor
    )
    clean = redactor.finish([first])[0]
    assert leaks(clean.data, redactor) == []
    assert leaks(f"<p>{PASSWORD}</p>", redactor) == ["secret 1"]
    assert leaks(b"<p>a&lt;b&amp;&#39;c&#34;d-77</p> " + PASSWORD.encode(), redactor) == ["secret 1", "secret 2"]
    assert PASSWORD not in repr(redactor)


def test_short_and_common_secrets_are_no_leaks() -> None:
    """They stand in every report: a refusal to write would be a fault."""
    redactor = Redactor()
    redactor.scrub(inspect("A_PASSWORD=toor", "B_PASSWORD=wordpress").encode(), "inspect")
    assert leaks("toor wordpress", redactor) == []


# -- structures --------------------------------------------------------------------------------------------------------


def test_daemon_json_keeps_its_lines() -> None:
    """A citation names a line of the file: scrubbing must not move it."""
    before = '{\n  "bip": "172.17.0.1/16",\n\n  "log-opts": {"splunk-token": "tok-1"},\n  "mtu": 1400\n}\n'
    (after,) = finished((before, "daemon-json"))
    assert after == before.replace("tok-1", "«secret 1, 1–8 chars»")


def test_a_secret_number_stays_a_number() -> None:
    """A string in its place would hide that the file is wrong."""
    (after,) = finished(('{"log-opts":{"splunk-token":123456}}', "daemon-json"))
    assert after == '{"log-opts":{"splunk-token":0}}'


def test_tree_records_keep_their_entries() -> None:
    """Only contents change, whatever is escaped in them."""
    content = 'user=a\npassword=Kestrel\t41\nx="\\d"\n'
    data = (
        tree_line("etc/x.conf", "f", 1.0, content)
        + tree_line("d", "d", 0.0)
        + tree_line("l", "l", 0.0, "password=x-y-z-1")
    )
    redactor = Redactor()
    clean = record("t", data.encode(), "tree", redactor)
    entries = list(tree_entries(redactor.finish([clean])[0]))
    assert [entry.path for entry in entries] == ["etc/x.conf", "d", "l"]
    assert entries[0].content == 'user=a\npassword=«secret 1, 1–8 chars»\t41\nx="\\d"\n'
    assert entries[2].content == "password=«secret 2, 1–8 chars»"


def test_command_lines_of_the_engine_and_lookalikes() -> None:
    """What the engine writes of addresses and ids stays as it is; the same program with a secret loses it, however often."""
    proxy = "/usr/bin/docker-proxy\0-proto\0tcp\0-host-ip\0::\0-host-port\08080\0-container-ip\010.0.0.2\0-container-port\080"
    shim = f"/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0{'ab' * 32}\0-address\0/run/c.sock\0"
    whole = [f"{proxy}\0", f"{proxy}\0-use-listen-fd\0", shim]
    secret = [
        f"{proxy}\0--password\0{PASSWORD}\0",
        f"{shim}--token={PASSWORD}\0",
        f"docker-proxy\0--password={PASSWORD}\0",
    ]
    lines = [tree_line(f"{pid}/cmdline", "f", 0.0, text) for pid, text in enumerate((*whole, *secret, *secret), 10)]
    (text,) = finished(("".join(lines), "processes"))
    found = [entry.content for entry in tree_entries(Record("x", "tree", "/", data=text.encode()))]
    assert found == [*whole, *(one.replace(PASSWORD, "«secret 1, 9–16 chars»") for one in (*secret, *secret))]


@pytest.mark.parametrize("text", ["", "a\\b", "a\tb\nc\rd", "\\\\n", "\\", "a\\tb", "ä\\"])
def test_tree_escapes_are_those_of_the_snapshot(text: str) -> None:
    """The same escapes on bytes: what is written here is read there."""
    from doctor.redact.trees import tree_escape, tree_unescape

    assert tree_escape(text.encode()).decode() == escape(text)
    assert tree_unescape(escape(text).encode()).decode() == text == unescape(escape(text))
    assert tree_unescape(text.encode()).decode() == unescape(text)


@pytest.mark.parametrize("how", ["inspect", "daemon-json", "docker-config"])
def test_a_cut_answer_loses_its_secrets_too(how: str) -> None:
    """A record may be truncated anywhere: what is left of a secret goes."""
    whole = inspect(f"DB_PASSWORD={PASSWORD}", "B=c")
    for end in range(whole.index("=") + 3, len(whole)):
        out, _ = Redactor().scrub(whole[:end].encode(), how)
        assert PASSWORD[:6] not in out.decode(), whole[:end]


# -- hostile input -----------------------------------------------------------------------------------------------------

HOSTILE = [
    b"",
    b"\0",
    b"\xff\xfe\x00password=\xff\xfe\xfd12345\xff",
    b'{"Env":["A_PASSWORD=\xff\xfe\xfdabc"]}',
    b'{"Env":["A_PASSWORD=\\ud800\\udc00\\ud800x1"],"a":"\\udfff password=\\ud800q9"}',
    b"[" * 200_000 + b'"password=deep-1"' + b"]" * 200_000,
    b'{"a":' * 100_000 + b'{"password":"deep-2"}' + b"}" * 100_000,
    b'{"password":' + b"9" * 100_000 + b"}",
    b'{"a":1e999999,"b":-0,"token":1E400}',
    b'{"Env":["A_TOKEN=one-1"],"Env":["A_TOKEN=two-2"],"Env":null}',
    b'{"Env":"A_TOKEN=str-1","Labels":["x"],"Cmd":{"a":"b"},"LogConfig":[],"Data":{},"history":"x"}',
    b'{"Env":[1,null,{"A_TOKEN":"x-1"}],"Labels":{"a":{"token":"y-2"}},"Cmd":["a",["--password","z-3"]]}',
    b'"Env":["A_PASSWORD=no-braces 1"',
    b'{"Labels":{"a":"\\',
    b'{"a":"password=\\u',
    b"password=",
    b'password="',
    b"token: \\",
    b"://@:@://:@",
    b"-----BEGIN PRIVATE KEY-----",
    "«secret 1, 9–16 chars»«~a0, 1–8 chars»«~a999999999, 1–8 chars»«value»«".encode(),
    b"\xc2\xab~a" + b"9" * 5000 + b", 1",
]


@pytest.mark.parametrize(
    "how", ["inspect", "daemon-json", "docker-config", "environ", "cmdline", "unit", "tree", "text", "new"]
)
@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_input_never_raises(data: bytes, how: str) -> None:
    """Whatever a container puts in its name, log or label, a collect goes on."""
    redactor = Redactor()
    done = redactor.finish([record("x", data, how, redactor)])
    assert len(done) == 1
    for secret in (b"deep-1", b"deep-2", b"one-1", b"two-2", b"no-braces"):
        assert secret not in done[0].data
    assert (
        b"9" * 100 not in done[0].data or how in {"unit", "environ", "cmdline", "tree", "text", "new"} or b"~a9" in data
    )


def test_forged_tokens_are_not_resolved() -> None:
    """A label may be called like a token of ours: it gets no number of another secret, and is not counted."""
    redactor = Redactor()
    forged = "«~a7, 9–16 chars»"
    done = redactor.finish([record("x", forged.encode(), "text", redactor)])
    assert done[0].text == forged
    assert redactor.removed == {}


def test_text_of_nothing_but_candidates_is_withheld() -> None:
    """It would take for ever to judge each; what was not judged is not shown."""
    redactor = Redactor()
    out, _ = redactor.scrub(b"first line\n" + b"password=a " * 400_000, "text")
    assert out == b"first line\n" + WITHHELD
    out, _ = redactor.scrub(b'{"x":"' + b"password=a " * 400_000 + b'"}', "inspect")
    assert msgspec.json.decode(out) == "«value»"
