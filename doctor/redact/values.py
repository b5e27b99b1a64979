"""Which values are secrets by their looks, and which say nothing."""

from __future__ import annotations

import base64
import binascii
import re

from doctor.redact.limits import PEM, QUOTED, TRACKED
from doctor.redact.tokens import TOKEN

_TRIVIAL = re.compile(
    rb"(?i)(?:true|false|yes|no|on|off|none|null|nil|undefined|required|optional|enabled|disabled|auto|default|empty|unset|"
    rb"bearer|basic|negotiate|redacted|hidden|masked|filtered|sensitive|prompt|stdin|env|-|\.{2,}|x{3,}|[*]+|[#]+|<[^>]*>|\[\w*\]|"
    rb"\(\w*\)|\{\w*\}|[a-z]?)\Z"
)
_REFERENCE = re.compile(
    rb"\$\{[^}]*\}?\Z|\$\([^)]*\)?\Z|\$[A-Z_][A-Z0-9_]*\Z|\$[a-z_]{1,30}\Z|\{\{.*|%[A-Za-z]\Z|%\(\w+\)s\Z|<no value>\Z"
)
_EXTENSION = (
    rb"\.(?:pem|key|crt|cer|csr|p12|pfx|jks|txt|json|ya?ml|toml|conf|cfg|ini|env|pass|sock|secret|token|db|pub)"
)
PATH = re.compile(
    rb"(?:~|\.{1,2}|\$\w{1,32}|\$\{\w{1,32}\})?/(?:(?:run|etc|var|usr|opt|home|root|tmp|srv|mnt|data|app|secrets?|proc|sys|dev|"
    rb"certs?|vault|config|bin|sbin|lib|lib64|workspace|docker|boot|snap|media|ssl|keys?|src|code|www|build)"
    rb"(?:/[\w.@+,:~ \-]*)*\Z|[\w.@/\-]*" + _EXTENSION + rb"\Z)|[\w.\-]+(?:/[\w.\-]+)+" + _EXTENSION + rb"\Z"
)
ANY_PATH = re.compile(rb"(?:~|\.{0,2})/[\w.@+/,:~\-]*\Z")
URL = re.compile(rb"(?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]{0,20}://")
_HEXES = re.compile(
    rb"(?:sha\d+:)?(?:[0-9a-f]{12}|[0-9a-f]{40}|[0-9a-f]{64})\Z|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z"
)
NUMBER = re.compile(rb"[+\-]?[\d.,:_]+(?:ns|us|ms|s|m|h|d|[kKMGT]i?[bB]?|%)?\Z")
ADDRESS = re.compile(
    rb"(?:\d{1,3}\.){3}\d{1,3}(?::\d+|/\d+)?\Z|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?:/\d+)?\Z|[\w\-]+(?:\.[\w\-]+)*:\d{1,5}\Z"
)
_NAMELIKE = re.compile(
    rb"(?:[A-Z]?[a-z]+|[A-Z]+)(?:[\-_. /:@](?:[A-Z]?[a-z]+|[A-Z]+)){0,64}[\-_.]?\d{0,3}\Z"
    rb"|(?:[A-Z]*+[a-z]{2,}+|[A-Z]{2,}+){1,64}\d{0,3}\Z"
)
"""Words as people write them, camel case too."""
_DATE = re.compile(rb"\d{4}-\d\d-\d\d(?:[T ].*)?\Z")
_IMAGE = re.compile(rb"[a-z0-9]+(?:[._/\-][a-z0-9]+)*(?::[\w.\-]{1,60})?(?:@sha256:[0-9a-f]{64})?\Z")
_REFERENCE_MARK = re.compile(rb"[.:/]")
_CODE = re.compile(rb"[ (\[{]")
_RANDOM_LEAST, _RANDOM_HEX, _DISTINCT = 8, 16, 5
_VARIED = re.compile(rb"(?:[A-Za-z]\d|\d[A-Za-z]|[a-z][A-Z]{1,4}[a-z0-9]|[^\w\s])")

PIN = 4

_MASK = re.compile(rb"(?i)x{3,}\Z|[*]+\Z|<[^>]*>\Z|\[\w*\]\Z|redacted\Z|\.{3}\Z|%2a+\Z")

NO_PASSWORD = frozenset((b"", b"x-oauth-basic", b"x-token-auth", b"x-access-token", b"oauth2"))


def trivial(value: bytes) -> bool:
    """Tell whether a value says nothing: a switch, a mask, a reference to a variable, a token of ours."""
    return bool(_TRIVIAL.match(value) or _REFERENCE.match(value) or TOKEN.match(value))


def looks_random(value: bytes) -> bool:
    """Tell whether a value looks made by a machine: what a weak name needs to be taken for a secret."""
    if len(value) > QUOTED:
        return True
    if len(value) < _RANDOM_LEAST or len(set(value)) < _DISTINCT or _CODE.search(value):
        return False
    for known in (_NAMELIKE, NUMBER, _HEXES, ADDRESS, ANY_PATH, PATH, _DATE):
        if known.match(value):
            return False
    if URL.match(value):
        return False
    if _IMAGE.match(value) and not _alternating(value):
        return False
    return len(_VARIED.findall(value)) > 1 or (len(value) >= _RANDOM_HEX and value.isalnum())


def _alternating(value: bytes) -> bool:
    """Tell whether one word of a name-like value mixes letters and digits as no name does (`a8f3k29d`)."""
    return any(len(_VARIED.findall(word)) > 2 and len(word) >= _RANDOM_LEAST for word in re.split(rb"[._/:\-]", value))  # noqa: PLR2004


def followed_everywhere(value: bytes, *, strong: bool) -> bool:
    """Tell whether a secret is so much its own that it may be replaced wherever it stands.

    A password `wordpress` is not: an image, a network and a thousand log lines are called so.
    """
    if not TRACKED <= len(value) <= PEM or len(set(value)) < _DISTINCT or TOKEN.search(value):
        return False
    if looks_random(value):
        return True
    if not strong or any(known.match(value) for known in (_NAMELIKE, NUMBER, ADDRESS, PATH, _DATE)):
        return False
    return not (URL.match(value) and b"@" not in value) and not (_IMAGE.match(value) and _REFERENCE_MARK.search(value))


def is_quoted(text: bytes) -> bool:
    """Tell whether a word is one quoted string."""
    return len(text) > 1 and text[:1] in {b'"', b"'"} and text.find(text[:1], 1) == len(text) - 1


def masked(value: bytes) -> bool:
    """Tell whether a password in a URL is none: masked, a variable, a token of ours."""
    return bool(_MASK.match(value) or _REFERENCE.match(value) or TOKEN.match(value))


def login_in_user(user: bytes, password: bytes) -> bool:
    """Tell whether the user's name in a URL is the secret: `https://TOKEN@host`, `https://TOKEN:x-oauth-basic@host`."""
    return len(user) >= _RANDOM_HEX and (password in NO_PASSWORD or len(user) >= 2 * _RANDOM_HEX) and looks_random(user)


def is_login(text: bytes) -> bool:
    """Tell whether base64 is the JSON of a login, as in X-Registry-Auth."""
    try:
        inside = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)).lower()
    except (binascii.Error, ValueError):
        return True
    return any(word in inside for word in (b"password", b"token", b'"auth'))
