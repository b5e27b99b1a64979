"""The report as JSON: the struct `doctor.model.Report` as it is, one object, indented. A contract; others parse it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from doctor.model import Report

if TYPE_CHECKING:
    from doctor.reports.text import Style


def render(report: Report, out: TextIO, style: Style | None = None) -> None:
    """Write the report and nothing else."""
    del style
    out.write(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")


def schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of the report, generated from the struct."""
    return msgspec.json.schema(Report)
