"""How much is looked at and remembered: hostile evidence costs no more than large evidence does."""

from __future__ import annotations

BUDGET, BUDGET_PER = 20_000, 800
"""Candidates looked at in one record, and one more for so many bytes. What is replaced costs as much as three that are not."""
ACCEPTED = 3
MEMO, SHORT_TEXT = 5_000, 2048
"""Entries kept of what was decided before, and how long a text is remembered."""
QUOTED = 4096
"""The longest quoted value; text that opens a quote and never closes it is hostile or cut."""
PEM = 16_384
MANY_WORDS, MOST_FIELDS, LARGEST_UNIT = 10_000, 50_000, 1 << 20
"""Words of a command line, fields of a JSON text, bytes of a unit: who has more is hostile, and what is beyond is withheld."""
TRACKED = 8
"""Shorter secrets are not looked for elsewhere: they would be found in everything."""
SOME = 32
"""So few secrets are searched one by one; more by the set of words of the text."""
TOGETHER = 1 << 17
"""Bytes of evidence that are searched for known secrets at a time."""

LONG = 512
"""Longer values under a name are not prose, and are not judged."""
FEW = 32
"""Bytes looked at before it is worth to look at all, and tries before a search is left to one that costs more."""
