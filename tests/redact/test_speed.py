"""Scrubbing is a part of every run: it must not be felt, and no text may make it stop.

Bounds are several times what was measured (0.15 s for the host, 0.1-0.4 s for the lines), for busy machines.
"""

from __future__ import annotations

import time

import pytest

from doctor.redact import Redactor, leaks
from doctor.snapshot import Record
from tests.pace import within
from tests.redact.host import Maker, dump

pytestmark = pytest.mark.slow

MB = 1_000_000


def test_a_large_host() -> None:
    """200 containers, 500 images and 3 MB of tables and logs; tables and logs are as they were."""
    maker = Maker()
    inspects = [maker.inspect(f"web{number}") for number in range(200)]
    sources = [(dump(one), "inspect") for one in inspects]
    sources += [(dump(maker.disk_config(one)), "inspect") for one in inspects]
    sources += [(dump(maker.image(number)), "inspect") for number in range(500)]
    plain = [(maker.tables(9000), "text"), (maker.log(6000), "text"), (maker.links(2500), "text")]
    redactor = Redactor()
    begin = time.process_time()
    scrubbed = [redactor.scrub(data, how) for data, how in sources + plain]
    middle = time.process_time()
    records = [
        Record(str(number), "api", "", data=data, redactions=count) for number, (data, count) in enumerate(scrubbed)
    ]
    done = redactor.finish(records)
    end = time.process_time()
    assert within(middle - begin, 1.0)
    assert within(end - middle, 0.5)
    assert [record.data for record in done[-3:]] == [data for data, _ in plain]
    assert redactor.removed == {"environment": 400}
    everything = b"\n".join(record.data for record in done)
    assert not [secret for secret in maker.secrets if secret.encode() in everything]
    begin = time.process_time()
    assert leaks(everything, redactor) == []
    assert within(time.process_time() - begin, 0.5)


LINES = [
    "a", "\0", '"', "\\", '\\"', "\\n", "pass", "key", "password=", "password=a ", 'password="', "password:'x\\", "auth: x ",
    "secret ", "api.key=a ", "auth=Zx9Qw8Er7Ty6 ", "eyJ", "eyJaaaaaaaaa.", "://", "://a:", "http://a:b@", "://a@",
    '-----BEGIN PRIVATE KEY-----"', "-----BEGIN PRIVATE KEY-----\n", "_AAAAAAAAAAAAAAAA", "ghp_AAAAAAAAAAAAAAAA", "curl ",
    "curl -u a:b ", "mysql -p", "login -p x ", "sk-", "sk-aaaaaaaaaaaaaaaaaaaaaaaa", "AKIA", "$1$aaaaaaaaaaaaaaa", "@tcp(",
    "@h:12/", "bearer abcdefgh1 ", "«secret ", "«", "[", "{", '"Env":["A=b"],', '"Env":[', '"Env":["a', '"Labels":{',
    '"Labels":{"a":"b"},', "echo x | passwd --stdin ", "cookie: a; ", "?sig=abcdefgh12&", "\n", "a\tf\t0\tpassword=x\n",
    "password=a,a,a,a,a,a,a,a,a,a,", "A=http://a,", "A=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\n",
]  # fmt: skip


@pytest.mark.parametrize("how", ["text", "inspect", "tree"])
def test_half_a_megabyte_of_anything(how: str) -> None:
    """One line of nothing but the start of a pattern: linear, or withheld."""
    slow = []
    for piece in LINES:
        data = piece.encode() * (MB // 2 // len(piece.encode()))
        if how == "inspect" and piece not in {"[", "{"}:
            data = b'{"x":"' + data + b'@"}'
        begin = time.process_time()
        Redactor().scrub(data, how)
        spent = time.process_time() - begin
        if not within(spent, 0.8):
            slow.append((piece, round(spent, 1)))
    assert not slow


@pytest.mark.parametrize(
    ("piece", "how"),
    [
        ("password=a ", "text"),
        ("key", "text"),
        ("curl -u a:b ", "text"),
        ("http://a:b@", "text"),
        ('"Env":["A=b"],', "inspect"),
        ('"Labels":{', "inspect"),
        ("\\", "inspect"),
        ("\0", "cmdline"),
        ("A=1\n", "unit"),
        ("\n", "tree"),
        ("A=1\0", "environ"),
    ],
)
def test_ten_megabytes_of_the_worst(piece: str, how: str) -> None:
    """What took longest while this was written, at full length."""
    data = piece.encode() * (10 * MB // len(piece))
    begin = time.process_time()
    Redactor().scrub(data, how)
    assert within(time.process_time() - begin, 3.0)


def test_one_long_value() -> None:
    """A value of ten megabytes is a value; the environment of a container may hold one."""
    value = "Zq9" * (10 * MB // 3)
    for text, how in (
        (f'{{"Env":["A_TOKEN={value}"]}}', "inspect"),
        (f"password={value}", "text"),
        (f"key: {value}", "text"),
    ):
        begin = time.process_time()
        redactor = Redactor()
        out, _ = redactor.scrub(text.encode(), how)
        redactor.finish([Record("a", "file", "", data=out)])
        assert within(time.process_time() - begin, 2.0)
