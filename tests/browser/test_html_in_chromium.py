"""The HTML report as a browser treats it: no requests, no complaints, complete without JavaScript, legible, printable."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.reports import html
from doctor.reports._picture import _PLACES as PLACES
from tests.browser.chromium import BINARY, Chromium, Page, chromium
from tests.reports.samples import SAMPLES, SPICE, hostile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from doctor.model import Report

    Opener = Callable[..., Page]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="Chromium is not installed (apt-get install chromium)"),
]

SMALL = [name for name in SAMPLES if name != "five-thousand"]

CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const it = node.parentElement;
    if (!node.data.trim() || it.closest('script, style, title, desc, .vh')) continue;
    seen += 1;
    const box = it.closest('svg') ? document.querySelector('.edge .box') : null;
    const ink = rgb(box ? getComputedStyle(it).fill : getComputedStyle(it).color);
    const paper = box ? rgb(getComputedStyle(box).fill) : behind(it);
    const [dark, bright] = [light(ink), light(paper)].sort((a, b) => a - b);
    const ratio = (bright + .05) / (dark + .05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${it.tagName} ${node.data.slice(0, 30)}`);
  }
  return {seen, bad};
})()"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests, with an empty profile."""
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def open_page(browser: Chromium, tmp_path: Path) -> Iterator[Opener]:
    """Render a report into a file, and open it."""
    opened: list[Page] = []

    def opener(report: Report, **options: object) -> Page:
        path = tmp_path / f"doctor-{len(opened)}.html"
        out = io.StringIO()
        html.render(report, out)
        path.write_text(out.getvalue(), "ascii")
        opened.append(Page(browser, path.as_uri(), **options))  # type: ignore[arg-type]
        return opened[-1]

    yield opener
    for page in opened:
        page.close()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
@pytest.mark.parametrize("name", SMALL)
def test_no_requests_and_no_complaints(open_page: Opener, name: str, *, scripts: bool) -> None:
    """The page asks for nothing, and the console stays empty."""
    page = open_page(SAMPLES[name](), scripts=scripts)
    assert page.requests() == []
    assert page.complaints() == []


@pytest.mark.parametrize("turn", range(0, len(SPICE), 2))
def test_nothing_of_a_hostile_host_comes_alive(open_page: Opener, turn: int) -> None:
    """No script runs, no element appears that the template has not, and the text is there to read."""
    page = open_page(hostile(turn, SPICE[1]))
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.complaints() == []
    assert page.requests() == []
    assert (
        page.run("document.querySelectorAll('img, iframe, object, embed, link, base, form, input, textarea').length")
        == 0
    )
    assert page.run("document.scripts.length") == 2
    assert (
        page.run(
            "[...document.querySelectorAll('*')].filter((e) => e.getAttributeNames().some((a) => /^on|^style$/.test(a))).length"
        )
        == 0
    )
    assert "<script>alert(1)</script>" in page.run("document.body.innerText")
    assert page.run("document.compatMode") == "CSS1Compat"


def test_the_policy_bites(open_page: Opener) -> None:
    """What got into the page all the same would neither run nor be fetched."""
    page = open_page(SAMPLES["healthy"]())
    page.run(
        """document.body.insertAdjacentHTML('beforeend',
        '<img src="http://192.0.2.1/a.png" onerror="window.bad = 1"><p style="color: red" id="p" onclick="window.bad = 1">x')"""
    )
    page.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.bad = 1'}))")
    page.run("document.getElementById('p').click()")
    page.browser.settle(0.5)
    assert page.run("window.bad === undefined")
    assert page.run("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
    assert not [url for url in page.requests() if not url.startswith("http://192.0.2.1/")]
    assert any("Content Security Policy" in line for line in page.complaints())


def test_complete_without_scripts(open_page: Opener) -> None:
    """Without JavaScript all is there, nothing that would need it is shown, and folds open."""
    report = SAMPLES["sixty"]()
    page = open_page(report, scripts=False)
    assert page.run("document.querySelectorAll('button').length") == 0
    text = page.run("document.querySelector('main').textContent")
    assert all(finding.id in text and finding.message in text for finding in report.findings)
    assert all(outcome.name in text for outcome in report.outcomes)
    assert page.run("document.querySelector('#notes').open") is False
    page.run("document.querySelector('#notes > summary').scrollIntoView()")
    spot = page.run(
        "(({x, y, height}) => ({x: x + 30, y: y + height / 2}))"
        "(document.querySelector('#notes > summary').getBoundingClientRect())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **spot)
    assert page.run("document.querySelector('#notes').open") is True


def test_the_first_screen_is_the_cause(open_page: Opener) -> None:
    """At 1280 by 900 the cause, its picture, its cure and the text for a ticket are seen without scrolling."""
    page = open_page(SAMPLES["forwarding-off"]())
    for what in ("h1", ".cause h2", ".cause svg", ".cause .ev", ".cause pre.cmd", ".cause pre.diff", "#ticket pre"):
        assert page.run(f"document.querySelector('{what}').getBoundingClientRect().bottom") < 900, what
    page.look(400, height=800)
    for what in ("h1", ".cause h2", ".cause svg"):
        assert page.run(f"document.querySelector('{what}').getBoundingClientRect().bottom") < 800, what


@pytest.mark.parametrize("width", [1280, 1000, 720, 400, 320])
@pytest.mark.parametrize("name", ["two-causes", "not-root", "hostile"])
def test_no_sideways_scrolling(open_page: Opener, name: str, width: int) -> None:
    """Only commands and edits may be wider than the window, inside boxes of their own."""
    page = open_page(SAMPLES[name](), width=width)
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.run("document.documentElement.scrollWidth") <= width
    wide = page.run(
        f"[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > {width + 1}"
        " && !e.closest('pre')).map((e) => e.tagName + ': ' + e.textContent.slice(0, 40))"
    )
    assert wide == []


def test_pictures_hold_their_words(open_page: Opener) -> None:
    """No word of any picture runs out of its box or of the drawing, with the widest of the usual fonts."""
    report = SAMPLES["forwarding-off"]()
    like = report.diagnoses[0]
    hits = (replace(like.hits[0], names=tuple(f"8080 -> {'w' * 40}{number}" for number in range(99))),)
    page = open_page(replace(report, diagnoses=tuple(replace(like, code=code, hits=hits) for code in PLACES)))
    assert page.run("document.querySelectorAll('.edge').length") == len(PLACES)
    out = page.run(
        """[...document.querySelectorAll('.edge text')].filter((e) => {
          const {x, width} = e.getBBox();
          return x + width > (e.matches('.says') && x > 100 ? 300 : 236);
        }).map((e) => e.textContent)"""
    )
    assert out == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["two-causes", "hung-daemon", "sixty"])
def test_contrast(open_page: Opener, name: str, *, dark: bool) -> None:
    """Every text has a contrast of 4.5 or more to what is behind it (WCAG 2.2, AA)."""
    page = open_page(SAMPLES[name](), dark=dark)
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    found = page.run(CONTRAST)
    assert found["seen"] > 100
    assert found["bad"] == []


def test_dark_is_dark(open_page: Opener) -> None:
    """The colours follow the reader's preference."""
    page = open_page(SAMPLES["healthy"](), dark=True)
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    page.look(1280)
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_print(open_page: Opener, *, scripts: bool) -> None:
    """On paper all is open, light and whole, even for who prefers dark."""
    page = open_page(SAMPLES["sixty"](), scripts=scripts)
    page.look(720, dark=True, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = page.run(
        "[...document.querySelectorAll('dl, table')].filter((e) => !e.checkVisibility() || !e.offsetHeight).length"
    )
    assert hidden == 0
    assert page.run("[...document.querySelectorAll('nav, button')].filter((e) => e.offsetHeight).length") == 0
    cut = page.run(
        "[...document.querySelectorAll('pre')].filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)"
    )
    assert cut == []


def test_pdf(open_page: Opener, tmp_path: Path) -> None:
    """Printing works, and takes the folded parts along."""
    page = open_page(SAMPLES["sixty"](), scripts=False)
    page.pdf(tmp_path / "a.pdf")
    folded = (tmp_path / "a.pdf").read_bytes()
    assert folded.startswith(b"%PDF")
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.pdf(tmp_path / "b.pdf")
    assert folded.count(b"/Type /Page\n") == (tmp_path / "b.pdf").read_bytes().count(b"/Type /Page\n") > 5


def test_keyboard(open_page: Opener) -> None:
    """Links, commands and folds are reached by Tab, seen when they are, and folds open by Enter."""
    page = open_page(SAMPLES["forwarding-off"](), scripts=False)

    def press(key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)

    reached = []
    for _ in range(40):
        press("Tab", 9)
        reached.append(page.run("document.activeElement.tagName + '.' + document.activeElement.className"))
        if page.run("document.activeElement.parentElement.id") == "notes":
            break
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached[-1] == "SUMMARY."
    assert reached.count("PRE.cmd") == 3
    assert "PRE.diff" in reached
    assert "A." in reached
    press("Enter", 13, "\r")
    assert page.run("document.querySelector('#notes').open") is True


def test_names_for_screen_readers(open_page: Opener) -> None:
    """Pictures have a name and a description, causes are articles with a name, tables have captions."""
    page = open_page(SAMPLES["forwarding-off"]())
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    said = {
        (node["role"]["value"], node["name"]["value"]): node.get("description", {}).get("value", "")
        for node in nodes
        if not node["ignored"] and "name" in node and "role" in node
    }
    image = next(name for role, name in said if role in {"image", "img"})
    assert image.startswith("where NET034 breaks outside, host us1, bridge, containers")
    assert "Broken: between host us1 and bridge: not forwarded." in image
    assert ("article", "IPv4 forwarding is off") in said
    assert ("navigation", "on this page") in said
    assert ("main", "") in said
    assert ("heading", "1 cause") in said
    assert {"evidence", "the host", "how this report was made"} <= {name for role, name in said if role == "table"}


def test_a_command_is_copied(open_page: Opener) -> None:
    """The script's buttons copy exactly what a shell should get."""
    page = open_page(SAMPLES["forwarding-off"]())
    page.browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.call("Page.bringToFront")
    assert (
        page.run("document.querySelector('.cause .copy').getAttribute('aria-label')")
        == "copy sysctl -w net.ipv4.ip_forward=1"
    )
    page.run("document.querySelector('.cause .copy').click()")
    page.browser.settle()
    assert page.run("document.querySelector('.cause .copy').textContent") in {"copied", "selected"}
    if page.run("document.querySelector('.cause .copy').textContent") == "copied":
        assert page.run("navigator.clipboard.readText()") == "sysctl -w net.ipv4.ip_forward=1"


def test_all_is_opened_and_closed(open_page: Opener) -> None:
    """One button opens everything, and closes it again."""
    page = open_page(SAMPLES["sixty"]())
    total = page.run("document.querySelectorAll('details').length")
    for opened in (total, 0):
        page.run("document.querySelector('nav button').click()")
        assert page.run("document.querySelectorAll('details[open]').length") == opened


def test_a_link_opens_what_it_leads_to(open_page: Opener) -> None:
    """The address of a finding opens the folds that it is in."""
    report = SAMPLES["sixty"]()
    page = open_page(report)
    finding = report.findings[-1].id
    page.run(f"location.hash = 'f-{finding}'")
    page.browser.settle()
    assert page.run(f"document.getElementById('f-{finding}').parentElement.closest('details').open") is True


def test_five_thousand_findings(open_page: Opener) -> None:
    """The largest report loads in seconds, and is whole."""
    report = SAMPLES["five-thousand"]()
    start = time.monotonic()
    page = open_page(report)
    assert time.monotonic() - start < 50  # three on a quiet machine
    assert page.run("document.querySelectorAll('[id^=f-]:not([id$=title]):not([id$=-t]):not([id$=-d])').length") == 5000
    assert page.complaints() == []
