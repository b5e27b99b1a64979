"""What stands for a secret, and what kinds there are."""

from __future__ import annotations

import re

KINDS: dict[str, tuple[str, str]] = {
    "environment": ("in an environment", "in environments"),
    "proxy password": ("proxy password", "proxy passwords"),
    "label": ("label", "labels"),
    "command line": ("in a command line", "in command lines"),
    "log option": ("log option", "log options"),
    "driver option": ("driver option", "driver options"),
    "build argument": ("build argument", "build arguments"),
    "image history": ("in an image history", "in image histories"),
    "health check": ("in a health check", "in health checks"),
    "registry login": ("registry login", "registry logins"),
    "swarm token": ("swarm token", "swarm tokens"),
    "private key": ("private key", "private keys"),
    "URL": ("in a URL", "in URLs"),
    "text": ("in other text", "in other text"),
}

FOUND = "z"
"""The code of a token that was put where a known secret stood, for no reason of its own."""
CODES = {kind: chr(ord("a") + number) for number, kind in enumerate(KINDS)}
"""The letter that says a kind in a token until `finish`."""
KIND_OF = {code: kind for kind, code in CODES.items()}

WITHHELD = "«value»".encode()
"""Stands for a value that is no secret by its looks, and nobody's business either."""

OPEN = "«~".encode()
"""How a token begins until `finish`."""
GUILLEMET = "«".encode()
TOKEN = re.compile("«(?:secret |~[a-z])\\d{1,9}, (?:1–8|9–16|17–32|33–64|65\\+) chars»|«value»".encode())  # noqa: RUF001
"""A token, before `finish` and after it, or `WITHHELD`."""
COUNTED = re.compile("«(?:secret |~[a-z])\\d{1,9}, [^»]{1,8} chars»".encode())
"""A token of a secret, and of nothing else."""
PROVISIONAL = re.compile("«~([a-z])(\\d{1,9}),".encode())
"""Code and number of a token that waits for `finish`."""

_BUCKETS = ((8, "1–8"), (16, "9–16"), (32, "17–32"), (64, "33–64"))  # noqa: RUF001
_LONGEST = "65+"


def size_of(value: bytes) -> bytes:
    """Give the words for the length of a value, counted in characters."""
    chars = len(value[: 4 * _BUCKETS[-1][0] + 4].decode("utf-8", "replace"))
    return next((name for most, name in _BUCKETS if chars <= most), _LONGEST).encode()


def write(code: str, number: int, size: bytes) -> bytes:
    """Write the token of a secret as it is until `finish`."""
    return "«~%s%d, %s chars»".encode() % (code.encode(), number, size)


def only_tokens(value: bytes) -> bool:
    """Tell whether tokens are all there is."""
    return value.startswith(GUILLEMET) and not TOKEN.sub(b"", value).strip()


def removed_text(removed: dict[str, int]) -> str:
    """Say what was removed: `7 secrets (5 in environments, 1 proxy password, 1 label)`."""
    total = sum(removed.values())
    if not total:
        return "no secrets"
    order = sorted(removed.items(), key=lambda item: -item[1])
    parts = [f"{count} {KINDS.get(kind, (kind, kind + 's'))[count != 1]}" for kind, count in order if count]
    return f"{total} {'secret' if total == 1 else 'secrets'} ({', '.join(parts)})"
