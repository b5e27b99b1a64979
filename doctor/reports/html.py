"""The report as one HTML file: complete without a network and without JavaScript, and with the report's JSON inside.

The page's policy allows its own style and script, by hash, and nothing else. Every value goes through one place,
`_shown`, and is escaped by jinja2 after it; the file is ASCII, whatever the encoding it is written with.
"""

from __future__ import annotations

import gzip
import re
import zlib
from base64 import b64decode, b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from doctor.model import Moment, Report
from doctor.reports import _html, words
from doctor.reports._paste import ticket
from doctor.reports._picture import picture
from doctor.reports._visible import Clock, shortened, visible

if TYPE_CHECKING:
    from jinja2 import Environment

    from doctor.reports.text import Style

PLAIN = 512 << 10
"""Bytes of JSON up to which the report is embedded as it is; above, as a JSON string of its gzip in base64."""

LARGEST = 256 << 20
"""Bytes of JSON that `embedded` unpacks, at most."""

_ALWAYS = ("host", "timeline", "evidence", "checks", "origin", "ticket")
_TEMPLATES = Path(__file__).parent / "templates"
_OPEN, _CLOSE = '<script type="application/json" id="doctor-report">', "</script>"


def render(report: Report, out: TextIO, style: Style | None = None) -> None:
    """Write the page; of the style it uses only the name of the bundle."""
    css, script = part("report.css"), part("report.js")
    clock = Clock(report.host.collected_at, report.host.utc_offset)
    findings = _html.sort_findings(report)
    unknown = list(_html.unknown_tables(report))
    sections = {
        "causes": findings.causes,
        "errors": findings.errors,
        "warnings": findings.warnings,
        "unknown": unknown or report.unsettled or report.faults,
        "notes": findings.notes,
        "ignored": findings.ignored,
    }
    source = f"; bundle {style.source}" if style and style.source else ""
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            title=_html.title(report),
            line=words.host_line(report.host) + source,
            headline=_html.headline(report),
            summary=list(_html.summary(report)),
            ticket="\n".join(ticket(report)),
            findings=findings,
            pictures=[picture(entry, report.host) for entry in findings.causes],
            unknown=unknown,
            sudo=bool(unknown and report.host.unreadable and not source),
            sections=[*(name for name, held in sections.items() if held), *_ALWAYS],
            host=list(_html.host_facts(report)),
            timeline=_html.timeline(report),
            cited=_html.cited(report),
            outcomes=_html.outcomes(report),
            origin=list(_html.origin(report, clock)),
            clock=clock,
            css=css,
            script=script,
            policy=f"default-src 'none'; style-src {digest(css)}; script-src {digest(script)}; "
            "base-uri 'none'; form-action 'none'",
            data=_data(report),
        )
    )
    out.write(page.encode("ascii", "xmlcharrefreplace").decode("ascii"))


def embedded(html: str) -> Report:
    """Give back the report inside a page. Raises ValueError, with the offset, when there is none or it is not whole."""
    start = html.rfind(_OPEN)
    if start < 0:
        raise ValueError("no report of doctor in this page")
    start += len(_OPEN)
    end = html.find(_CLOSE, start)
    if end < 0:
        raise ValueError(f"the report in this page begins at offset {start} and has no end")
    try:
        data = html[start:end].encode()
        if data.lstrip().startswith(b'"'):
            data = _unpacked(msgspec.json.decode(data, type=str))
        return msgspec.json.decode(data, type=Report)
    except (ValueError, RecursionError, zlib.error) as error:  # msgspec's and base64's errors are ValueErrors
        raise ValueError(f"the report in this page, at offset {start}: {error}") from error


def _unpacked(text: str) -> bytes:
    engine = zlib.decompressobj(wbits=31)  # 31: gzip
    data = engine.decompress(b64decode(text, validate=True), LARGEST)
    if engine.unconsumed_tail:
        raise ValueError(f"more than {LARGEST:,} bytes")
    if not engine.eof:
        raise ValueError("it is cut")
    return data


_UNSAFE = re.compile(r"[<>&\x7f-\U0010ffff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _data(report: Report) -> str:
    r"""Give the report as JSON that an HTML parser passes over. A lone surrogate is no JSON: it becomes `\udc80`."""
    try:
        data = msgspec.json.encode(report)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_whole(msgspec.to_builtins(report)))
    if len(data) > PLAIN:
        return f'"{b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode()}"'
    return _UNSAFE.sub(_unit, data.decode())


def _unit(match: re.Match[str]) -> str:
    digits = match.group().encode("utf-16-be").hex()
    return "".join(f"\\u{digits[at : at + 4]}" for at in range(0, len(digits), 4))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub(lambda match: visible(match.group()), value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, (list, tuple)) else value


def part(name: str) -> str:
    """Give a file of the templates."""
    return (_TEMPLATES / name).read_text("ascii")


def digest(text: str) -> str:
    """Give the hash by which the policy of a page lets a style or script in."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _shown(value: object) -> object:
    """What every expression of the template passes through; markup and what `|e` has escaped already does not."""
    return visible(shortened(value)) if type(value) is str else value


@cache
def environment() -> Environment:
    """Give what pages are made with."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        loader=FileSystemLoader(_TEMPLATES, encoding="ascii"),
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # there are no constants to fold, and looking for them takes a tenth of the whole time
    )
    made.tests["moment"] = lambda value: isinstance(value, Moment)
    made.globals["parts"] = _html.parts
    return made
