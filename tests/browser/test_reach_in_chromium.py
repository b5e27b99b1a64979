"""The page of `doctor reach` in a browser: legible at a hundred containers, and it asks for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import BINARY, Page, chromium
from tests.reports.test_reach_page import HUNDRED, judged, page

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="Chromium is not installed (apt-get install chromium)"),
]

OVERLAPS = """(() => {
  const texts = [...document.querySelectorAll('.map text')].map((node) => [node.textContent, node.getBoundingClientRect()]);
  const crosses = [...document.querySelectorAll('.map .cross')].map((node) => ['cross', node.getBoundingClientRect()]);
  const frame = document.querySelector('.map svg').getBoundingClientRect();
  const bad = [];
  for (const [text, it] of texts) {
    if (it.right > frame.right || it.bottom > frame.bottom || it.left < frame.left) bad.push(`outside: ${text}`);
    if (it.height < 9) bad.push(`small: ${text}`);
  }
  const all = [...texts, ...crosses];
  for (let at = 0; at < all.length; at += 1) for (let after = at + 1; after < all.length; after += 1) {
    const [one, a] = all[at], [other, b] = all[after];
    const apart = a.left >= b.right - 1 || b.left >= a.right - 1 || a.top >= b.bottom - 3 || b.top >= a.bottom - 3;
    if (!apart) bad.push(`${one} | ${other}`);
  }
  return {seen: texts.length, bad};
})()"""


def test_a_hundred_containers_are_legible(tmp_path: Path) -> None:
    """No text of the drawing lies on another one or leaves it; the page scrolls down only; nothing is asked for."""
    path = tmp_path / "reach.html"
    path.write_text(page(judged(HUNDRED)), "ascii")
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile") as browser:
        opened = Page(browser, path.as_uri())
        for width, dark in ((1200, False), (1200, True), (390, False)):
            opened.look(width, dark=dark)
            found = opened.run(OVERLAPS)
            assert found["seen"] > 8 * 3
            assert found["bad"] == []
            assert opened.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert opened.run("document.documentElement.scrollHeight") < 6000
        assert opened.run("[...document.querySelectorAll('details')].every((one) => !one.open)")
        assert opened.complaints() == []
        assert [one for one in opened.requests() if not one.startswith("file:")] == []
        opened.close()
