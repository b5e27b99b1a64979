"""What holds of scrubbing whatever the evidence is."""

from __future__ import annotations

import json
import re
import string

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doctor.redact import Redactor, leaks
from doctor.snapshot import Record

HOWS = ("inspect", "daemon-json", "docker-config", "environ", "cmdline", "unit", "tree", "text")
TOKEN = re.compile("«secret (\\d+), [^»]+ chars»")

WORDS = st.sampled_from(
    [
        "password", "PASSWORD=", "token: ", "--secret", "Authorization: Bearer ", "http://", "@", ":", "/", "=", "\n", '"',
        "'", "\\", "\\n", "\\u0026", "{", "}", "[", "]", ",", " ", "\0", "\t", "f\t0.000\t", '"Env":["', '"Labels":{"',
        '"auth":"', "eyJ", "-----BEGIN PRIVATE KEY-----", "ghp_0123456789abcdefABCDEF", "«", "»", "«value»", "mysql -p",
        "curl -u a:b ", "ENV ", "|1 ", "[Service]\n", "Environment=", "é", "key", "x", "7", "Zq9", "SWMTKN-1-", "$6$",
    ]
)  # fmt: skip
SHRAPNEL = st.lists(WORDS, max_size=40).map("".join)
SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=40).filter(
    lambda text: len(set(text)) > 5 and "«" not in text and not text.isspace()
)
TRACKED = st.text(string.ascii_letters + string.digits, min_size=10, max_size=30).map(lambda text: text + "-q7Z")


@given(st.binary(max_size=300), st.sampled_from(HOWS))
def test_any_bytes(data: bytes, how: str) -> None:
    """No input raises, in any structure, and nothing is counted below zero."""
    redactor = Redactor()
    out, count = redactor.scrub(data, how)
    assert count >= 0
    assert redactor.finish([Record("a", "file", "/a", data=out, redactions=count)])


@settings(max_examples=4 * settings.default.max_examples)
@given(SHRAPNEL, st.sampled_from(HOWS))
@example("ghp_0123456789abcdefABCDEF«value»", "text")
def test_shrapnel(text: str, how: str) -> None:
    """Pieces of every pattern in any order: it ends, lines stay lines, and JSON stays JSON."""
    data = text.encode()
    out, _ = Redactor().scrub(data, how)
    if b"PRIVATE KEY" not in data and how not in {"environ", "cmdline"}:
        assert out.count(b"\n") == data.count(b"\n")
    if how == "inspect":
        try:
            msgspec.json.decode(data)
        except msgspec.DecodeError:
            return
        msgspec.json.decode(out)


@given(SECRETS, st.sampled_from(["A_PASSWORD", "API_TOKEN", "dbPassword", "SECRET_KEY", "my.secret"]), SHRAPNEL)
@example("Ab1!xyz9", "A_PASSWORD", "ENV password \npassword")
def test_a_secret_variable_goes_whatever_its_value(value: str, name: str, around: str) -> None:
    """By structure, no value of a secret name survives, however it is spelt or what stands around it."""
    document = {"Config": {"Env": [f"X={around}", f"{name}={value}", "PATH=/bin"], "Labels": {"a": around}}}
    for data in (json.dumps(document), json.dumps(document, indent=2), json.dumps(document, ensure_ascii=False)):
        out, _ = Redactor().scrub(data.encode(), "inspect")
        after = msgspec.json.decode(out)
        name_after, _, value_after = after["Config"]["Env"][1].partition("=")
        assert name_after == name
        assert value_after == "«value»" or re.fullmatch("«~a\\d+, [^»]+ chars»", value_after)
        assert after["Config"]["Env"][2] == "PATH=/bin"
        assert list(after["Config"]) == ["Env", "Labels"]


@given(st.lists(TRACKED, min_size=1, max_size=6), st.data())
def test_tokens_stand_for_values(values: list[str], data: st.DataObject) -> None:
    """Equal values have equal tokens, different ones different; they are numbered from 1 as they appear."""
    picked = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=12))
    redactor = Redactor()
    records = []
    for number, value in enumerate(picked):
        out, count = redactor.scrub(f'{{"Env":["A_TOKEN={value}"]}}'.encode(), "inspect")
        records.append(Record(str(number), "api", "", data=out, redactions=count))
    numbers = [int(TOKEN.search(record.text)[1]) for record in redactor.finish(records)]  # type: ignore[index]
    order = list(dict.fromkeys(picked))
    assert numbers == [order.index(value) + 1 for value in picked]
    assert redactor.removed == {"environment": len(order)}


@given(
    TRACKED,
    st.lists(st.sampled_from([" ", "/", "-", '"', "x=", ":", "\\", "\n", ",", "&", "é"]), max_size=6).map("".join),
)
@pytest.mark.parametrize("others", [0, 60])
def test_nothing_known_is_left(others: int, secret: str, around: str) -> None:
    """Once known, a secret goes from every record, and no artefact made of them has it."""
    redactor = Redactor()
    variables = [f"A_TOKEN={secret}", *(f"B{number}_TOKEN=other-{number}-x7Zq" for number in range(others))]
    texts = [
        json.dumps({"a": f"{around} {secret} {around}"}),
        f"{around} {secret}{around}",
        json.dumps({"Env": variables}),
    ]
    records = []
    for number, text in enumerate(texts):
        out, count = redactor.scrub(text.encode(), "inspect" if text.startswith("{") else "text")
        records.append(Record(str(number), "file", "", data=out, redactions=count))
    done = redactor.finish(records)
    assert not any(secret in record.text for record in done)
    assert leaks(b"\n".join(record.data for record in done), redactor) == []
    assert leaks(f"{around} {secret}{around}", redactor)
    msgspec.json.decode(done[0].data)
    msgspec.json.decode(done[2].data)
