"""Reports: one model, many formats. Each module has `render(report, out)`; the format's name is the module's."""

from __future__ import annotations
