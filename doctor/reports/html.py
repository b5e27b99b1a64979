"""The report as one HTML file: complete without a network and without JavaScript, and with the report's JSON inside.

The page's policy allows its own style and script, by hash, and nothing else. Every value goes through one place,
`_shown`, and is escaped by jinja2 after it; the file is ASCII, whatever the encoding it is written with.
"""

from __future__ import annotations

import gzip
import re
import zlib
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from doctor.model import Report
from doctor.reports import _html, words
from doctor.reports._picture import picture
from doctor.reports.text import seconds

if TYPE_CHECKING:
    from doctor.reports.text import Style

PLAIN = 512 << 10
"""Bytes of JSON up to which the report is embedded as it is; above, as a JSON string of its gzip in base64."""

LARGEST = 256 << 20
"""Bytes of JSON that `embedded` unpacks, at most."""

_TEMPLATES = Path(__file__).parent / "templates"
_OPEN, _CLOSE = '<script type="application/json" id="doctor-report">', "</script>"


def render(report: Report, out: TextIO, style: Style | None = None) -> None:
    """Write the page; of the style it uses only the name of the bundle."""
    css, script = (_part(name) for name in ("report.css", "report.js"))
    findings = _html.sort_findings(report)
    source = style.source if style else ""
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            host=report.host,
            line=words.host_line(report.host) + (f"; bundle {source}" if source else ""),
            title=_html.title(report),
            headline=_html.headline(report),
            summary=list(_html.summary(report)),
            ticket="\n".join(_html.ticket(report)),
            findings=findings,
            pictures=[picture(entry, report.host) for entry in findings.causes],
            unknowns=_html.unknowns(report),
            broken=_html.broken(report),
            timeline=_html.timeline(report),
            cited=_html.cited(report),
            clock=_html.Clock(report.host.collected_at, report.host.utc_offset),
            took=seconds(report.ms),
            css=css,
            script=script,
            policy=f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(script)}; "
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
    except (ValueError, zlib.error) as error:  # msgspec's and base64's errors are ValueErrors
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
    """Give the report as JSON that no HTML parser stumbles over. A lone surrogate, which is no JSON, becomes `\\udc80`."""
    try:
        data = msgspec.json.encode(report)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_whole(msgspec.to_builtins(report)))
    if len(data) > PLAIN:
        return f'"{b64encode(gzip.compress(data, mtime=0)).decode()}"'
    return _UNSAFE.sub(lambda match: msgspec_escape(match.group()), data.decode())
