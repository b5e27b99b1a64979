"""The HTML report, without a browser: what is in it, what is not, and that nothing of a hostile host becomes markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from html.parser import HTMLParser

import msgspec
import pytest
from msgspec.structs import replace

from doctor.model import Command, EditKey, Moment, Outcome, Report, Result, Severity, Since
from doctor.reports import _html, html
from doctor.reports._html import sort_findings
from doctor.reports._paste import command_line, ticket
from doctor.reports._picture import picture
from doctor.reports._visible import Clock, shortened, visible
from doctor.reports.text import Style
from tests.reports.samples import SAMPLES, SPICE, at, forwarding_off, healthy, hostile, many, not_root, two_causes

VOID = {"meta", "path"}
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "nav", "section", "article", "div", "figure"),
    *("h1", "h2", "p", "b", "span", "code", "pre", "del", "ins", "time", "a", "ul", "li", "dl", "dt", "dd", "details"),
    *("summary", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "desc", "path", "text", "script"),
}
ATTRIBUTES = {
    "http-equiv": r"Content-Security-Policy",
    "content": r"(?s).*",  # one of them has the version of doctor that the report names
    "charset": r"utf-8",
    "lang": r"en",
    "name": r"[a-z-]+",
    "class": r"[a-z -]*",
    "id": r"[A-Za-z0-9-]+",
    "href": r"#[a-z]+",
    "aria-label": r"on this page",
    "aria-labelledby": r"[A-Za-z0-9 -]+",
    "datetime": r"\d{4}-\d\d-\d\dT[\d:+-]+",
    "scope": r"col|row|rowgroup",
    "colspan": r"\d",
    "tabindex": r"0",
    "type": r"application/json",
    "role": r"img",
    "viewbox": r"0 0 300 \d+",
    "width": r"300",
    "height": r"\d+",
    "d": r"[MVvhlqmz\d -]+",
    "x": r"\d+",
    "y": r"\d+",
}


class Outline(HTMLParser):
    """What a parser makes of a page: tags, attributes, and the text of every element by tag and class."""

    def __init__(self, page: str) -> None:
        """Parse the page."""
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.children: dict[str, set[str]] = {}
        self.unbalanced: list[str] = []
        self.others: list[str] = []
        self._open: list[tuple[str, str, list[str]]] = []
        self.feed(page)
        self.close()
        self.unbalanced += [tag for tag, _, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag, its attributes and where it stands."""
        self.tags[tag] += 1
        held = {name: value or "" for name, value in attrs}
        self.attributes += held.items()
        self.ids += [held["id"]] if "id" in held else []
        if self._open:
            self.children.setdefault(self._open[-1][0], set()).add(tag)
        if tag not in VOID:
            self._open.append((tag, held.get("class", ""), []))

    def handle_endtag(self, tag: str) -> None:
        """Note the text that the element had."""
        if tag in VOID:
            return
        if not self._open or self._open[-1][0] != tag:
            self.unbalanced.append(tag)
            return
        tag, kind, held = self._open.pop()
        text = "".join(held)
        self.texts.append((f"{tag}.{kind}" if kind else tag, text))
        if self._open and tag not in {"script", "style"}:
            self._open[-1][2].append(text)

    def handle_data(self, data: str) -> None:
        """Keep text with the element it is in."""
        if self._open:
            self._open[-1][2].append(data)

    def handle_comment(self, data: str) -> None:
        """The template leaves none."""
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        """The template has none."""
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        """The template has none."""
        self.others.append(data)

    def all(self, what: str) -> list[str]:
        """Give the texts of all elements that are `tag` or `tag.class`."""
        return [text for name, text in self.texts if name == what]

    @property
    def shown(self) -> str:
        """Everything that a reader sees."""
        return self.all("body")[0]


def render(report: Report, style: Style | None = None) -> str:
    """Render into a string."""
    out = io.StringIO()
    html.render(report, out, style)
    return out.getvalue()


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Every sample, rendered once."""
    return {name: render(build()) for name, build in SAMPLES.items()}


@cache
def outline_of(page: str) -> Outline:
    """Parse each page once."""
    return Outline(page)


@pytest.fixture(params=[name for name in SAMPLES if name != "five-thousand"])
def page(request: pytest.FixtureRequest, pages: dict[str, str]) -> str:
    """Each sample in turn, but the one that differs from another by its size alone."""
    return pages[request.param]


class TestHostile:
    """Every string of a report may be chosen by somebody who wants to do harm."""

    @pytest.mark.parametrize("turn", range(len(SPICE)))
    def test_tags_and_attributes_are_the_templates(self, turn: int) -> None:
        """Tags and attributes are the templates."""
        page = render(hostile(turn, SPICE[1]))
        outline = outline_of(page)
        assert set(outline.tags) <= TAGS
        assert outline.unbalanced == []
        assert outline.others == []
        assert outline.tags["script"] == 2
        assert outline.tags["style"] == outline.tags["title"] - outline.tags["svg"] == 1
        for name, value in outline.attributes:
            assert re.fullmatch(ATTRIBUTES[name], value), (name, value)
        assert len(outline.ids) == len(set(outline.ids))
        assert page.isascii()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page)

    def test_what_cannot_be_seen_is_shown(self, pages: dict[str, str]) -> None:
        """What cannot be seen is shown."""
        shown = outline_of(pages["hostile"]).shown
        for escape in (r"\x1b[31mred", r"annex\u202egnp.exe\u2066\u200b\xad\ufeff", r"nul\x00del\x7fc1\x9bend\u2028"):
            assert escape in shown
        assert r"lone\udc9bsurrogate\ud800" in shown
        assert "{{ 7 * 7 }}{% raw %}{# gone #}${7*7}" in shown
        assert "&lt;b&gt;&amp;&#x3c;script&#x3e;" in shown
        assert "caf\u00e9 \u65e5\u672c" in shown
        assert not re.search(r"[\x80-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]", shown)

    def test_a_long_line_loses_its_middle(self, pages: dict[str, str]) -> None:
        """A long line loses its middle."""
        shown = outline_of(pages["hostile"]).shown
        assert "A ... (cut: 10,000,003 characters in all) ... B" in shown
        assert "A" * 1001 not in shown
        assert "A" * 1000 in shown

    def test_the_ticket_has_no_forged_line(self) -> None:
        """The ticket has no forged line."""
        for turn in range(len(SPICE)):
            lines = ticket(hostile(turn, SPICE[1]))
            assert len(lines) <= 12
            assert not any(line.startswith("FAIL  NET000") for line in lines)
            assert all(line.isascii() and line.isprintable() for line in lines)

    def test_it_is_read_back(self, pages: dict[str, str]) -> None:
        """It is read back."""
        back = html.embedded(pages["hostile"])
        assert html.embedded(render(back)) == back
        assert max(len(cited.excerpt) for cited in back.diagnoses[0].evidence) == 10_000_003
        assert back.host.hostname == hostile().host.hostname
        assert back.host.storage.startswith(r"lone\udc9b")

    def test_the_names_of_findings_are_unique_even_when_ids_are_not(self) -> None:
        """The names of findings are unique even when ids are not."""
        report = many(30)
        same = replace(report, findings=tuple(replace(each, id=report.findings[0].id) for each in report.findings))
        ids = Outline(render(same)).ids
        assert len(ids) == len(set(ids))


class TestData:
    """The report inside the page."""

    @pytest.mark.parametrize("name", [name for name in SAMPLES if name != "hostile"])
    def test_round_trip(self, name: str, pages: dict[str, str]) -> None:
        """Round trip."""
        assert html.embedded(pages[name]) == SAMPLES[name]()

    def test_it_is_plain_json(self, pages: dict[str, str]) -> None:
        """It is plain json."""
        found = re.search(r'<script type="application/json" id="doctor-report">(.*?)</script>', pages["two-causes"])
        assert found
        assert json.loads(found[1]) == json.loads(msgspec.json.encode(two_causes()))

    def test_a_large_one_is_a_string_of_gzip(self, pages: dict[str, str]) -> None:
        """A large one is a string of gzip."""
        found = re.search(r'<script type="application/json" id="doctor-report">(.*?)</script>', pages["five-thousand"])
        assert found
        data = gzip.decompress(base64.b64decode(json.loads(found[1])))
        assert msgspec.json.decode(data, type=Report) == SAMPLES["five-thousand"]()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda page: page.replace("doctor-report", "other"), "no report of doctor"),
            (lambda page: page[: page.index("doctor-report") + 60], r"at offset \d+ and has no end"),
            (lambda page: page.replace('"schema":"1"', '"schema":1'), r"offset \d+: .*`\$\.schema`"),
            (lambda page: page.replace('"schema":"1"', '"x":' + "[" * 100_000), r"offset \d+"),
            (lambda page: page.replace('"risk":"safe","stops":[]', '"risk":"safe","stops":["web1"]'), "stops nothing"),
            (lambda page: re.sub(r'id="doctor-report">.*?<', 'id="doctor-report">"AAAA"<', page), r"offset \d+: "),
        ],
    )
    def test_a_bad_one_is_refused(self, change: object, says: str, pages: dict[str, str]) -> None:
        """A bad one is refused."""
        page = change(pages["forwarding-off"])  # type: ignore[operator]
        with pytest.raises(ValueError, match=says):
            html.embedded(page)

    def test_a_bomb_is_refused(self, pages: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """A bomb is refused."""
        monkeypatch.setattr(html, "LARGEST", 1000)
        with pytest.raises(ValueError, match="more than 1,000 bytes"):
            html.embedded(pages["five-thousand"])


class TestPage:
    """What every page has, and what none has."""

    def test_sizes(self, pages: dict[str, str]) -> None:
        """Sizes."""
        assert len(pages["sixty"]) <= 250_000
        assert len(pages["five-thousand"]) <= 5_000_000

    def test_its_policy_allows_its_own_style_and_script_alone(self, page: str) -> None:
        """Its policy allows its own style and script alone."""
        outline = outline_of(page)
        policy = next(value for name, value in outline.attributes if value.startswith("default-src"))
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in (*outline.all("style"), outline.all("script")[1])
        ]
        assert policy == (
            f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; base-uri 'none'; form-action 'none'"
        )
        assert page.index("default-src") < page.index("<style>")

    def test_it_loads_nothing(self, page: str) -> None:
        """It loads nothing."""
        names = {name for name, _ in outline_of(page).attributes}
        assert not names & {"src", "srcset", "style", "action", "background", "poster", "xlink:href"}
        assert "url(" not in outline_of(page).all("style")[0]
        assert "@import" not in page

    def test_every_finding_is_shown_once(self, pages: dict[str, str]) -> None:
        """Every finding is shown once."""
        for name in ("forwarding-off", "two-causes", "healthy", "hung-daemon", "sixty", "five-thousand"):
            body = pages[name].partition('id="doctor-report"')[0]
            ids = Counter(re.findall(r", finding ([0-9a-f]{16})</p>", body))
            assert ids == Counter(finding.id for finding in SAMPLES[name]().findings), name

    def test_structure(self, page: str) -> None:
        """Structure."""
        outline = outline_of(page)
        assert outline.tags["h1"] == outline.tags["main"] == 1
        assert outline.tags["caption"] == outline.tags["table"]
        assert outline.children["table"] <= {"caption", "thead", "tbody", "tr"}
        assert outline.children["dl"] == {"dt", "dd"} if outline.tags["dl"] else True
        assert outline.children["ul"] == {"li"}
        anchors = {value[1:] for name, value in outline.attributes if name == "href"}
        assert anchors <= set(outline.ids)

    def test_no_score_and_nothing_that_cures(self, page: str) -> None:
        """No score and nothing that cures."""
        outline = outline_of(page)
        assert not outline.tags.keys() & {"button", "form", "input", "progress", "meter"}
        if "{% raw %}" not in page:
            assert "%" not in outline.shown
            assert "score" not in outline.shown

    def test_our_own_words_are_ascii(self) -> None:
        """Our own words are ascii."""
        for name in ("report.html.j2", "report.css", "report.js", "reach.html.j2", "reach.css"):
            assert html.part(name).isascii()

    def test_titles(self, pages: dict[str, str]) -> None:
        """Titles."""
        titles = {name: page.partition("<title>")[2].partition("</title>")[0] for name, page in pages.items()}
        assert titles["forwarding-off"] == "IPv4 forwarding is off - us1"
        assert titles["two-causes"].endswith("l/JQHTNOE2VU75DZYKGPAE277A6H (and 1 cause more) - us2")
        assert titles["healthy"] == "108 checks found nothing wrong - us1"
        assert titles["not-root"] == "81 of 118 checks unknown - us1"

    def test_nothing_is_called_right_that_was_not_seen(self, pages: dict[str, str]) -> None:
        """Nothing is called right that was not seen."""
        outline = outline_of(pages["not-root"])
        assert outline.all("h1") == ["81 of 118 checks unknown"]
        assert "the other 37 checks found nothing wrong" in outline.shown
        assert "found nothing wrong" not in outline_of(pages["hung-daemon"]).shown
        assert "sudo doctor check" in outline.all("pre.cmd")

    def test_a_broken_check_is_no_clean_bill(self) -> None:
        """A broken check is no clean bill."""
        report = healthy()
        outcomes = (Outcome("NET001", "bip", Result.ERROR, "KeyError at x.py:1", 1.0), *report.outcomes[1:])
        bad = replace(report, outcomes=outcomes, counts=replace(report.counts, broken=1, ran=107))
        outline = Outline(render(bad))
        assert outline.all("h1") == ["1 of 118 checks unknown"]
        assert "KeyError at x.py:1" in outline.shown

    def test_unknown_is_grouped_by_reason(self, pages: dict[str, str]) -> None:
        """Unknown is grouped by reason."""
        shown = outline_of(pages["not-root"]).shown
        assert re.search(r"44\s*API: /run/docker.sock is root:docker 0660, you are neither\s*DMN001 DMN002", shown)
        assert re.search(r"api/ping\s*denied\s*/run/docker.sock: permission denied\s*0.1", shown)

    def test_a_bundle_is_named(self) -> None:
        """A bundle is named."""
        assert "5 containers run; bundle us1.tar.gz" in render(healthy(), Style(source="us1.tar.gz"))


class TestCause:
    """The parts of a cause."""

    def test_parts_and_their_order(self, pages: dict[str, str]) -> None:
        """Parts and their order."""
        outline = outline_of(pages["forwarding-off"])
        cause = outline.all("article.cause")[0]
        labels = re.findall(r"^(hits|works|why|since|not|also|cure|then)", cause, re.MULTILINE)
        assert labels == ["hits", "works", "why", "since", "not", "cure", "then"]
        assert "08:41:18 (99-cis.conf written); dockerd turned it on at 08:40:10" in cause
        assert "safe: nothing stops. Turns forwarding on." in cause
        assert "for good, in /etc/sysctl.d/99-cis.conf, line 3:" in cause

    def test_commands_are_lines_to_copy(self, pages: dict[str, str]) -> None:
        """Commands are lines to copy."""
        assert outline_of(pages["forwarding-off"]).all("pre.cmd") == [
            "sysctl -w net.ipv4.ip_forward=1",
            "sysctl -w net.ipv4.ip_forward=0",
            "doctor check --only NET034",
        ]
        assert "doctor rules --missing | iptables-restore --noflush" in outline_of(pages["two-causes"]).all("pre.cmd")

    def test_an_edit_is_a_diff(self, pages: dict[str, str]) -> None:
        """An edit is a diff."""
        outline = outline_of(pages["forwarding-off"])
        assert outline.all("del") == ["- net.ipv4.ip_forward = 0"]
        assert outline.all("ins") == ["+ net.ipv4.ip_forward = 1"]

    def test_an_edit_of_a_key(self) -> None:
        """An edit of a key."""
        report = forwarding_off()
        step = EditKey("/etc/docker/daemon.json", "/live-restore", "true")
        cause = report.diagnoses[0]
        changed = replace(report, diagnoses=(replace(cause, remedy=replace(cause.remedy, steps=(step,))),))
        outline = Outline(render(changed))
        assert '+ "live-restore": true' in outline.all("ins")
        assert "until the next boot, in /etc/docker/daemon.json, set the key:" in outline.shown

    def test_consequences_stand_below_their_cause(self, pages: dict[str, str]) -> None:
        """Consequences stand below their cause."""
        causes = outline_of(pages["two-causes"]).all("article.cause")
        assert "containers of shop are not masked" in causes[1]
        assert "containers of shop are not masked" not in causes[0]

    def test_the_order_of_cures(self, pages: dict[str, str]) -> None:
        """The order of cures."""
        assert outline_of(pages["two-causes"]).all("p.order") == ["Cure LAY002 before NET021."]
        report = two_causes()
        names = ("web1", "db", "api")
        last = report.diagnoses[1]
        remedy = replace(last.remedy, risk="disruptive", restarts="dockerd", stops=names)
        changed = replace(report, diagnoses=(report.diagnoses[0], replace(last, remedy=remedy)))
        assert Outline(render(changed)).all("p.order") == [
            "Do not restart Docker before LAY002 is cured: 3 containers would stop, and could fail to start again."
        ]

    def test_long_lists_of_names_are_whole(self) -> None:
        """Long lists of names are whole."""
        report = forwarding_off()
        names = tuple(f"worker-{number}" for number in range(40))
        cause = report.diagnoses[0]
        remedy = replace(cause.remedy, risk="disruptive", stops=names)
        hits = (replace(cause.hits[0], names=names),)
        shown = Outline(render(replace(report, diagnoses=(replace(cause, remedy=remedy, hits=hits),)))).shown
        assert "disruptive: 40 containers stop, and come back: worker-0 worker-1" in shown
        assert "and 28 more" in shown
        assert all(len(re.findall(rf"\b{name}\b", shown)) >= 2 for name in names)

    def test_warnings_are_one_line_each(self) -> None:
        """Warnings are one line each."""
        report = many(20)
        entries = sort_findings(report).warnings
        assert [(family.code, len(family.entries), family.folded) for family in entries] == [("NET065", 3, False)]
        assert sort_findings(many(60)).warnings[0].folded

    def test_an_ignored_finding_says_why(self) -> None:
        """An ignored finding says why."""
        report = healthy()
        noted = replace(report.findings[0], ignored="rotated by the host")
        counts = replace(report.counts, ignored=1, notes=1)
        outline = Outline(render(replace(report, findings=(noted, report.findings[1]), counts=counts)))
        assert "ignored: rotated by the host" in outline.shown
        assert {"ignored", "notes"} <= set(outline.ids)

    def test_an_error_without_a_cause_is_shown(self) -> None:
        """An error without a cause is shown."""
        report = replace(two_causes(), diagnoses=())
        outline = Outline(render(report))
        assert outline.all("h1") == ["3 errors"]
        assert "Errors that no cause accounts for" in outline.all("h2")

    def test_a_cause_whose_root_is_missing_is_shown(self) -> None:
        """A cause whose root is missing is shown."""
        report = replace(forwarding_off(), findings=())
        assert "IPv4 forwarding is off" in Outline(render(report)).all("h2")


class TestTime:
    """Moments are the host's."""

    def test_timeline(self, pages: dict[str, str]) -> None:
        """Timeline."""
        rows = re.findall(r"<time[^>]*>([^<]*)</time></td><td>([^<]*)<", pages["forwarding-off"])
        assert rows == [
            ("08:40:10", "dockerd turned it on"),
            ("08:41:18", "99-cis.conf written"),
            ("08:43:00", "this evidence was collected"),
        ]

    def test_another_day_has_its_date(self) -> None:
        """Another day has its date."""
        clock = Clock(at("00:10:00"), 3600)
        assert clock.time(at("22:30:00", day=23)) == "2026-11-23 23:30:00"
        assert clock.time(at("23:30:00", day=23)) == "00:30:00"
        assert clock.stamp(at("00:10:00")) == "2026-11-24 01:10:00 +0100"
        assert clock.iso(at("00:10:00")) == "2026-11-24T01:10:00+01:00"

    @pytest.mark.parametrize("moment", [1e300, -1e300, float("nan"), float("inf")])
    def test_no_such_time(self, moment: float) -> None:
        """No such time."""
        assert Clock(0.0, 0).iso(moment) == ""
        assert Clock(0.0, 0).time(moment).endswith(" s")
        assert Clock(0.0, 10**9).time(0.0) == "0 s"

    @pytest.mark.parametrize(
        ("since", "says"),
        [
            (Since(latest=Moment(at("08:00:00"), "b")), "08:00:00 at the latest (b)"),
            (Since(earliest=Moment(at("07:00:00"), "a")), "later than 07:00:00 (a)"),
            (Since(latest=Moment(at("08:00:00"), "b"), exact=True), "08:00:00 (b)"),
            (
                Since(earliest=Moment(at("07:00:00"), "a"), latest=Moment(at("08:00:00", day=23), "b")),
                "between 07:00:00 (a) and 2026-11-23 08:00:00 (b)",
            ),
        ],
    )
    def test_since(self, since: Since, says: str) -> None:
        """Since."""
        report = forwarding_off()
        changed = replace(report, diagnoses=(replace(report.diagnoses[0], since=since),))
        assert says in Outline(render(changed)).shown


class TestTicket:
    """The text for a ticket."""

    @pytest.mark.parametrize("name", SAMPLES)
    def test_at_most_twelve_lines_of_ascii(self, name: str) -> None:
        """At most twelve lines of ascii."""
        lines = ticket(SAMPLES[name]())
        assert 2 <= len(lines) <= 12
        assert all(line.isascii() for line in lines)

    def test_many_causes(self) -> None:
        """Many causes."""
        report = two_causes()
        lines = ticket(replace(report, diagnoses=report.diagnoses * 4))
        assert len(lines) == 12
        assert lines[-2] == "and 5 more"
        assert lines[-1].startswith("8 causes") or lines[-1].startswith("2 causes")

    def test_many_warnings(self) -> None:
        """Many warnings."""
        report = many(100)
        warned = [finding for finding in report.findings if finding.severity is Severity.WARNING]
        like = report.diagnoses[0]
        diagnoses = (
            *report.diagnoses,
            *(replace(like, severity=Severity.WARNING, root=each.id, code=each.code) for each in warned),
        )
        lines = ticket(replace(report, diagnoses=diagnoses))
        assert len(lines) == 12
        assert lines[-2] == f"and {len(warned) - 3} more"

    def test_commands_are_not_cut(self) -> None:
        """Commands are not cut."""
        report = forwarding_off()
        cause = report.diagnoses[0]
        long = Command(("echo", "x" * 3000))
        lines = ticket(replace(report, diagnoses=(replace(cause, remedy=replace(cause.remedy, steps=(long,))),)))
        assert any(line.endswith("x" * 3000) for line in lines)


class TestPicture:
    """The broken edge."""

    def test_forwarding(self) -> None:
        """Forwarding."""
        report = forwarding_off()
        drawn = picture(sort_findings(report).causes[0], report.host)
        assert drawn
        assert drawn.title == "where NET034 breaks"
        assert drawn.words == (
            "outside, host us1, bridge, containers web1, api, mail, cron, db. "
            "Broken: between host us1 and bridge: not forwarded."
        )

    def test_a_layer(self) -> None:
        """A layer."""
        report = two_causes()
        drawn = picture(sort_findings(report).causes[0], report.host)
        assert drawn
        assert drawn.words.endswith("Broken: this layer be4ef0720b26: short link gone.")

    def test_a_code_that_is_no_place_has_none(self) -> None:
        """A code that is no place has none."""
        report = forwarding_off()
        entry = sort_findings(report).causes[0]
        other = replace(entry, shown=replace(entry.shown, code="SEC001"))
        assert picture(other, report.host) is None
        assert "<svg" not in render(replace(report, diagnoses=(replace(report.diagnoses[0], code="SEC001"),)))

    def test_a_daemon_that_does_not_run(self) -> None:
        """A daemon that does not run."""
        report = forwarding_off()
        entry = sort_findings(report).causes[0]
        daemon = replace(entry, shown=replace(entry.shown, code="DMN001"))
        assert picture(daemon, report.host) is None
        drawn = picture(daemon, replace(report.host, engine_state="not running"))
        assert drawn
        assert "not running" in drawn.words


class TestWords:
    """Escapes and commands."""

    def test_shortened(self) -> None:
        """Shortened."""
        assert shortened("x" * 2000) == "x" * 2000
        assert shortened("a" * 3000 + "b" * 3000, 10) == "aaaaa ... (cut: 6,000 characters in all) ... bbbbb"

    def test_visible_leaves_what_is_visible(self) -> None:
        """Visible leaves what is visible."""
        text = "caf\u00e9 \u65e5\u672c\tx\ny \\ <b>"
        assert visible(text) == text

    @pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
    def test_a_shell_reads_commands_back(self) -> None:
        """A shell reads commands back."""
        arguments = [text.replace("\0", "").replace("\ud800", "") for text in SPICE]
        line = command_line(Command(("printf", r"%s\0", *arguments)))
        assert "\n" not in line
        assert visible(line) == line
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
        )
        expected = [text.encode("utf-8", "surrogateescape") for text in arguments]
        assert done.stdout.split(b"\0")[:-1] == expected

    @pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
    @pytest.mark.parametrize("text", ["one\ntwo words\n", "no end", "a\nb", "\x1b[31m\n", "\n\n", "it's\n"])
    def test_a_shell_feeds_standard_input(self, text: str) -> None:
        """A shell feeds standard input."""
        line = command_line(Command(("sh", "-c", "cat"), text))
        assert "\n" not in line
        assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == text.encode()

    def test_counts_agree_with_what_is_shown(self) -> None:
        """Counts agree with what is shown."""
        assert _html.headline(not_root()) == "81 of 118 checks unknown"
        assert list(_html.summary(two_causes())) == [
            "0 warnings, 2 notes; 118 checks in 0.46 s",
            "Cure LAY002 before NET021.",
        ]
