r"""Scrubbing: no secret reaches the snapshot. Sources of one collect share one `Redactor`.

A secret becomes a token that says how long it is and nothing else; equal secrets have equal tokens, in whatever record
they stand (environment, file, command line, log):

    >>> from doctor.snapshot import Record
    >>> redactor = Redactor()
    >>> data, count = redactor.scrub(b'{"Env":["PATH=/bin","DB_PASSWORD=Winter-2026!","SHOP_MODE=blue"]}', "inspect")
    >>> record = Record("api/containers/web1", "api", "/containers/web1/json", data=data, redactions=count)
    >>> print(redactor.finish([record])[0].text)
    {"Env":["PATH=/bin","DB_PASSWORD=«secret 1, 9–16 chars»","SHOP_MODE=«value»"]}
    >>> print(removed_text(redactor.removed))
    1 secret (1 in an environment)

Three passes:

1. By structure (`scrub`): fields that hold secrets are known by name. JSON is edited in place, never printed anew: line
   numbers, order, number forms and what cannot be parsed (a broken daemon.json, a cut answer) stay as they are.
2. By pattern (`scrub`): what is left, and all other text. Each pattern starts with a literal that the regex engine finds
   at 1-3 GB/s; the rest of it runs only there.
3. By value (`finish`): a value that was seen as a secret anywhere is replaced everywhere, and tokens are numbered in the
   order of the sources, whichever thread was first.

No pattern may need more than linear time, and hostile text of nothing but candidates is withheld beyond `_BUDGET`.
Text inside here is bytes: evidence need not be UTF-8.
"""  # noqa: RUF002 - the token's dash is an en dash

from __future__ import annotations

import base64
import binascii
import html
import re
import threading
from bisect import bisect_right
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from doctor.snapshot import Record

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
"""What a secret was, and how one and several of them are called."""

_FOUND = "z"
"""The code of a token that was put where a known secret stood, for no reason of its own."""
_CODES = {kind: chr(ord("a") + number) for number, kind in enumerate(KINDS)}
_KIND_OF = {code: kind for kind, code in _CODES.items()}

WITHHELD = "«value»".encode()
"""Stands for a value that is no secret by its looks, and nobody's business either."""

_OPEN = "«~".encode()
_GUILLEMET = "«".encode()
_CLOSING = "»".encode()
_TOKEN = re.compile("«(?:secret |~[a-z])\\d{1,9}, (?:1–8|9–16|17–32|33–64|65\\+) chars»|«value»".encode())  # noqa: RUF001
_COUNTED = re.compile("«(?:secret |~[a-z])\\d{1,9}, [^»]{1,8} chars»".encode())
_PROVISIONAL = re.compile("«~([a-z])(\\d{1,9}),".encode())
_BUCKETS = ((8, "1–8"), (16, "9–16"), (32, "17–32"), (64, "33–64"))  # noqa: RUF001
_LONGEST = "65+"

_CMDLINE = re.compile(rb"^\d+/cmdline\tf\t[\d.]+\t([^\n]+)", re.MULTILINE)

_BUDGET, _BUDGET_PER = 20_000, 800
"""Candidates looked at in one record, and one more for so many bytes. What is replaced costs as much as three that are not."""
_ACCEPTED = 3
_MEMO, _SHORT_TEXT = 5_000, 2048
"""Entries kept of what was decided before, and how long a text is remembered."""
_QUOTED = 4096
"""The longest quoted value; text that opens a quote and never closes it is hostile or cut."""
_PEM = 16_384
_MANY, _MOST_FIELDS, _LARGEST_UNIT = 10_000, 50_000, 1 << 20
"""Words of a command line, fields of a JSON text, bytes of a unit: who has more is hostile, and what is beyond is withheld."""
_TRACKED = 8
"""Shorter secrets are not looked for elsewhere: they would be found in everything."""
_SOME = 32
"""So few secrets are searched one by one; more by the set of words of the text."""
_TOGETHER = 1 << 17
"""Bytes of evidence that are searched for known secrets at a time."""


# -- names -------------------------------------------------------------------------------------------------------------

_STRONG, _WEAK, _PLAIN = 2, 1, 0

_WORD = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STRONG_WORDS = frozenset(
    b"password passwords passwd passphrase passcode passwort kennwort pass pwd psw secret secrets token credential "
    b"credentials creds cred apikey authkey accesskey secretkey privatekey passkey dsn jwt bearer cookie cookies otp totp "
    b"psk pw htpasswd masterauth".split()
)
_WEAK_WORDS = frozenset(
    b"key keys tokens auth authorization basicauth private access salt license licence sig signature session sessionid "
    b"sid phpsessid jsessionid hmac webhook webhooks hook seed pin users conn certificate pem".split()
)
_GLUED = re.compile(
    rb"password|passwd|passphrase|passcode|secret|credential|"
    rb"(?:api|access|private|encryption|signing|auth|account|license|master|stream)keys?(?!id)|accesskeyid|"
    rb"(?:access|auth|refresh|id|identity|registry|bot|api)token|token$|(?<!by)(?<!com)(?<!sur)pass$|pwd$|psk$|"
    rb"(?:bind|db|root|admin|user|proxy)pw$|"
    rb"connection(?:string|str|uri)|connstr"
)
_KEY_OWNERS = frozenset(
    b"access account admin anthropic api app application auth aws azure client consumer crypto datadog dd deploy encrypt "
    b"encryption hmac host ingest integration jwt license licence mailgun master maps openai private recovery registration "
    b"root rsa secret sendgrid service session shared sign signing ssh storage stripe unseal user write".split()
)
_ABOUT = frozenset(
    b"age algo algorithm attempts audience count dir directory disabled driver enable enabled endpoint "
    b"endpoints env error errors exp expiration expires expiry failures field file files format header helper "
    b"helpers hint history host interval issuer kind len length lifetime limit manager max method min mode "
    b"name names parallelism path paths plugin plugins policy port prefix prompt provider realm region "
    b"required reset retries rotation scope scopes server service size sock state status stdin store suffix "
    b"timeout ttl type uri url version".split()
)
"""A name that ends so speaks about a secret: TOKEN_TTL, passwordFile, credsStore."""
_PUBLIC = frozenset(b"gpg gpgkey pgp public pub pubkey fingerprint known".split())
_HARMLESS = frozenset(
    b"sandboxkey snapshotkey cachekey sortkey primarykey foreignkey mapkey routingkey partitionkey hotkey authorizedkeys "
    b"credsstore credhelpers passenvironment passcredentials passsecurity passpacketinfo loadcredential setcredential "
    b"importcredential loadcredentialencrypted setcredentialencrypted keyring keyringmode "
    b"certissuersubject certissuerpublickey trustkey accessmode accesslog authorizationplugin authorizationplugins "
    b"sshauthsock xauthority".split()
)

_SUFFIXES = frozenset(b"b id data value string code hash hex raw list".split())
"""What may come after the word that counts: AUTH_ID, key_b64."""
_ENV_SECRET = _WEAK_WORDS | frozenset(b"cert private access license licence connection sas vault sentry".split())
"""Further words that make an environment variable secret; there the value is withheld in any case."""
_KEPT_ENV = frozenset(
    b"PATH HOME LANG LANGUAGE TERM TZ HOSTNAME USER LOGNAME SHELL SHLVL PWD OLDPWD _ NO_PROXY CONTAINER DEBIAN_FRONTEND "
    b"GOPATH GOROOT GOTOOLCHAIN GODEBUG GOGC GOMAXPROCS GOMEMLIMIT GOTRACEBACK JAVA_HOME JRE_HOME CATALINA_HOME "
    b"CARGO_HOME RUSTUP_HOME GEM_HOME NODE_ENV NODE_PATH PYTHONPATH PYTHONHOME PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE "
    b"PYTHONIOENCODING PGDATA LD_LIBRARY_PATH LD_PRELOAD COLUMNS LINES TMPDIR TEMP UMASK NOTIFY_SOCKET MAINPID "
    b"INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH DOCKER_TLS_VERIFY DOCKER_TLS DOCKER_CERT_PATH "
    b"DOCKER_CONFIG DOCKER_TMPDIR DOCKER_RAMDISK DOCKER_CONTENT_TRUST DOCKER_BUILDKIT DOCKER_API_VERSION DOCKER_CONTEXT "
    b"DOCKER_DRIVER DOCKER_MIN_API_VERSION DOCKER_NOFILE DOCKER_LOGFILE DOCKER_SSD_PIDFILE BUILDKIT_PROGRESS "
    b"DOCKER_ALLOW_SCHEMA1_PUSH_DONOTUSE DOCKER_INSECURE_NO_IPTABLES_RAW DOCKER_IGNORE_BR_NETFILTER_ERROR".split()
)
_KEPT_PREFIXES = (b"LC_", b"XDG_", b"LISTEN_", b"DOCKERD_ROOTLESS_", b"NVIDIA_", b"SNAP_", b"MOBY_", b"OTEL_TRACES_")
_FLAG_ENV = frozenset(
    b"DOCKER_OPTS DOCKERD_OPTS DOCKER_ARGS OPTIONS DOCKER_STORAGE_OPTIONS DOCKER_NETWORK_OPTIONS DOCKER_ULIMITS".split()
)
"""Flags of dockerd in a file of the distribution: they are evidence, so only the secrets in them go."""
_VERSION_VALUE = re.compile(rb"[vV]?\d[\w.+~:\-]{0,40}\Z")


def _words(name: bytes) -> list[bytes]:
    """Split a name at case changes, digits and punctuation: `splunkToken_2` is splunk, token."""
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return words


_levels: dict[bytes, int] = {}


def _level(name: bytes) -> int:
    """Judge a name: `_STRONG` holds a secret, `_WEAK` only when the value looks random, `_PLAIN` none."""
    level = _levels.get(name)
    if level is not None:
        return level
    if len(_levels) > _MEMO:
        _levels.clear()
    level = _levels[name] = _judge(_words(name)) if _SUSPECT.search(name.lower()) else _PLAIN
    return level


_SUSPECT = re.compile(
    rb"pass|pw|psk|psw|secre|token|cred|key|dsn|jwt|bearer|cookie|otp|kennwort|auth|private|access|salt|licen|sig|sess|sid|hmac|"
    rb"hook|seed|pin|user|conn|cert|pem"
)


def _judge(words: list[bytes]) -> int:
    joined = b"".join(words)
    found = set(words)
    if not words or joined in _HARMLESS or found & _PUBLIC:
        return _PLAIN
    if words[-1] in _ABOUT:
        return _STRONG if found & {b"webhook", b"hook"} else _PLAIN
    if found & _STRONG_WORDS or _GLUED.search(joined):
        return _STRONG
    for before, word in pairwise(words):
        if (word in {b"key", b"keys"} and before in _KEY_OWNERS) or (
            word in {b"string", b"str"} and before[:4] == b"conn"
        ):
            return _STRONG
    last = words[-2] if len(words) > 1 and words[-1] in _SUFFIXES else words[-1]
    return _WEAK if last in _WEAK_WORDS or last[-4:] == b"auth" else _PLAIN


_env_levels: dict[bytes, int] = {}


def _env_level(name: bytes) -> int:
    """Judge the name of an environment variable, where more words are suspicious."""
    level = _env_levels.get(name)
    if level is None:
        if len(_env_levels) > _MEMO:
            _env_levels.clear()
        words = _words(name)
        level = _judge(words)
        if (
            level == _PLAIN
            and _ENV_SECRET.intersection(words)
            and not (_PUBLIC.intersection(words) or words[-1] in _ABOUT)
        ):
            level = _WEAK
        _env_levels[name] = level
    return level


# -- values ------------------------------------------------------------------------------------------------------------

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
_PATH = re.compile(
    rb"(?:~|\.{1,2}|\$\w{1,32}|\$\{\w{1,32}\})?/(?:(?:run|etc|var|usr|opt|home|root|tmp|srv|mnt|data|app|secrets?|proc|sys|dev|"
    rb"certs?|vault|config|bin|sbin|lib|lib64|workspace|docker|boot|snap|media|ssl|keys?|src|code|www|build)"
    rb"(?:/[\w.@+,:~ \-]*)*\Z|[\w.@/\-]*" + _EXTENSION + rb"\Z)|[\w.\-]+(?:/[\w.\-]+)+" + _EXTENSION + rb"\Z"
)
_ANY_PATH = re.compile(rb"(?:~|\.{0,2})/[\w.@+/,:~\-]*\Z")
_URL = re.compile(rb"(?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]{0,20}://")
_HEXES = re.compile(
    rb"(?:sha\d+:)?(?:[0-9a-f]{12}|[0-9a-f]{40}|[0-9a-f]{64})\Z|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z"
)
_NUMBER = re.compile(rb"[+\-]?[\d.,:_]+(?:ns|us|ms|s|m|h|d|[kKMGT]i?[bB]?|%)?\Z")
_ADDRESS = re.compile(
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


def _trivial(value: bytes) -> bool:
    """Tell whether a value says nothing: a switch, a mask, a reference to a variable, a token of ours."""
    return bool(_TRIVIAL.match(value) or _REFERENCE.match(value) or _TOKEN.match(value))


def _random(value: bytes) -> bool:
    """Tell whether a value looks made by a machine: what a weak name needs to be taken for a secret."""
    if len(value) > _QUOTED:
        return True
    if len(value) < _RANDOM_LEAST or len(set(value)) < _DISTINCT or _CODE.search(value):
        return False
    for known in (_NAMELIKE, _NUMBER, _HEXES, _ADDRESS, _ANY_PATH, _PATH, _DATE):
        if known.match(value):
            return False
    if _URL.match(value):
        return False
    if _IMAGE.match(value) and not _alternating(value):
        return False
    return len(_VARIED.findall(value)) > 1 or (len(value) >= _RANDOM_HEX and value.isalnum())


def _alternating(value: bytes) -> bool:
    """Tell whether one word of a name-like value mixes letters and digits as no name does (`a8f3k29d`)."""
    return any(len(_VARIED.findall(word)) > 2 and len(word) >= _RANDOM_LEAST for word in re.split(rb"[._/:\-]", value))  # noqa: PLR2004


def _followed(value: bytes, *, strong: bool) -> bool:
    """Tell whether a secret is so much its own that it may be replaced wherever it stands.

    A password `wordpress` is not: an image, a network and a thousand log lines are called so.
    """
    if not _TRACKED <= len(value) <= _PEM or len(set(value)) < _DISTINCT or _TOKEN.search(value):
        return False
    if _random(value):
        return True
    if not strong or any(known.match(value) for known in (_NAMELIKE, _NUMBER, _ADDRESS, _PATH, _DATE)):
        return False
    return not (_URL.match(value) and b"@" not in value) and not (_IMAGE.match(value) and _REFERENCE_MARK.search(value))


# -- JSON strings ------------------------------------------------------------------------------------------------------

_ESCAPED = {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
    b"\b": b"\\b",
    b"\f": b"\\f",
}
_TO_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_TO_UNESCAPE = re.compile(rb'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})')
_FROM = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_NEEDLESS = re.compile(rb"\\(?:/|u00(?!22|26|3[cCeE]|5[cC])[2-7][0-9a-fA-F])")
_BACKSLASHES = re.compile(rb"(?:\\\\)++|" + _NEEDLESS.pattern)
_ITEM = re.compile(rb'\s*,?\s*"([^"\\\n]*)(["\\\n]|\Z)')
_PAIR = re.compile(rb'\s*,?\s*"([^"\\]*+(?:\\.[^"\\]{0,256}){0,64})"\s*:\s*(?:"([^"\\\n]*+)(["\\\n]|\Z))?')
_KEYS = re.compile(rb'"([^"\\]*)"\s*:')
_SCALAR = re.compile(rb"[A-Za-z0-9.+\-]+")
_LITERAL = re.compile(rb'[^"\\\n]*+(?:\\.[^"\\\n]*+){0,200}"')
_UNESCAPED_QUOTE = re.compile(rb'(?<!\\)(?:\\\\){0,4096}"')
_FEW = 32


def _json_escape(value: bytes) -> bytes:
    return _TO_ESCAPE.sub(lambda m: _ESCAPED.get(m[0]) or b"\\u%04x" % m[0][0], value)


def _json_unescape(literal: bytes) -> bytes:
    """Read what stands between the quotes of a JSON string; what is no JSON stays as it is, as far as it is none."""
    if b"\\" not in literal:
        return literal
    try:
        return msgspec.json.decode(b'"' + literal + b'"', type=str).encode()
    except (msgspec.DecodeError, UnicodeError, ValueError):
        return _TO_UNESCAPE.sub(_one_escape, literal)


def _one_escape(match: re.Match[bytes]) -> bytes:
    body = match[1]
    if len(body) == 1:
        return _FROM.get(body, body)
    code = int(body[1:], 16)
    return match[0] if 0xD800 <= code <= 0xDFFF else chr(code).encode()  # noqa: PLR2004 - surrogates, RFC 8259 section 7


def _plain_escapes(data: bytes) -> bytes:
    r"""Write `\/` and `\u0070` as the characters they are: a name must be readable to be judged. Go escapes only <>&."""

    def plain(match: re.Match[bytes]) -> bytes:
        text = match[0]
        if text.startswith(b"\\\\"):
            return text
        return b"/" if text == b"\\/" else bytes([int(text[4:], 16)])

    return _BACKSLASHES.sub(plain, data) if _NEEDLESS.search(data) else data


def _backslashes(data: bytes, start: int, end: int) -> int:
    """Count the backslashes that stand right before `end`, not before `start`."""
    tail = data[max(start, end - _FEW) : end]
    count = len(tail) - len(tail.rstrip(b"\\"))
    if count == _FEW:
        tail = data[start:end]
        count = len(tail) - len(tail.rstrip(b"\\"))
    return count


def _literal_end(data: bytes, position: int) -> int:
    """Find the quote that ends the JSON string whose content starts at `position`; the end of the line if there is none."""
    simple = _LITERAL.match(data, position)
    if simple:
        return simple.end() - 1
    line = data.find(b"\n", position)
    stop = line if line >= 0 else len(data)
    start = position
    for _ in range(_FEW):
        end = data.find(b'"', position, stop)
        if end < 0:
            return stop
        if _backslashes(data, start, end) % 2 == 0:
            return end
        position = end + 1
    found = _UNESCAPED_QUOTE.search(data, position, stop)
    return found.end() - 1 if found else stop


def _literal_start(data: bytes, position: int) -> int:
    """Find where the content of the JSON string around `position` starts."""
    while True:
        quote_at = data.rfind(b'"', 0, position)
        count = _backslashes(data, 0, quote_at) if quote_at > 0 else 0
        if count % 2 == 0:
            return quote_at + 1
        position = quote_at - count


class _Edit(NamedTuple):
    start: int
    end: int
    new: bytes


def _apply(data: bytes, edits: list[_Edit]) -> bytes:
    """Make edits that are sorted and do not overlap."""
    if not edits:
        return data
    out: list[bytes] = []
    done = 0
    for start, end, new in edits:
        out += (data[done:start], new)
        done = end
    out.append(data[done:])
    return b"".join(out)


# -- patterns ----------------------------------------------------------------------------------------------------------


def _past(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    """Give where a pattern stops that matches nothing too."""
    match = pattern.match(data, position)
    return match.end() if match else position


class _Span(NamedTuple):
    """A secret found in text: where, and what it is called in the count.

    `strong` is false when only its looks speak for it, `bare` says that it is a number of JSON, `url` that it may be
    percent-encoded.
    """

    start: int
    end: int
    kind: str
    strong: bool = True
    bare: bool = False
    url: bool = False


_TAIL = rb"[a-z0-9_.\-]{0,24}+"
_SEPARATOR = (
    rb"(?=[\s\"'`\\)\]=:>,%])((?:\\{0,8}[\"'][ ]?,?[ ]?\\{0,8}\"?|[ \t]{0,4}\r?\n[ \t]{1,32})value\\{0,8}\"?[ ]?[:=][ ]?"
    rb"|\\{0,8}[\"'`]?\)?\]?[ \t]{0,8}(?:=>|:=|<-|==?|:|%3[ad])[ \t]{0,8}+"
    rb"|\\{0,8}[\"']?,?[ \t]{1,4}+(?:(?:is|was|set to)(?::[ ]?|[ ]))?\\{0,8}"
    rb"|>)(?!\xc2\xab)"
)
"""Words that names of secrets hold are followed by the rest of the name, and by what separates it from a value."""
_P_WORDS = re.compile(
    rb"p(?:(?:ass|wd|sk|w(?=[\"']?[ ]?[=:]))"
    + _TAIL
    + rb"(?:"
    + _SEPARATOR
    + rb"|(?=[\n\"';|&)\\]|\Z))|ypi-age[a-z0-9_\-]{20,})"
)
"""Password and its kin, with nothing after it too (`| chpasswd`); tokens of PyPI."""
_S_WORDS = re.compile(rb"secre(?<!\xc2\xabsecre)" + _TAIL + _SEPARATOR)
_K_WORDS = re.compile(
    rb"k(?:ia(?<=akia)(?:(?<![a-z0-9]akia)|(?<=\\[nrt]akia))[a-z0-9]{16}(?![a-z0-9])"
    rb"|-(?<=sk-)(?:(?<![a-z0-9]sk-)|(?<=\\[nrt]sk-))[a-z0-9_\-]{20,}"
    rb"|n-1-(?<=swmtkn-1-)[a-z0-9\-]{16,}|ey-1-(?<=swmkey-1-)[a-z0-9+/]{16,}={0,2}"
    rb"|ey(?: block)?-----"
    rb"|s\.slack\.com/services/([^\s\"'<>\\]{20,})|s/\d{10,}/([\w\-]{30,})"
    rb"|(?:ey(?<!sandboxkey)|en|ie)" + _TAIL + _SEPARATOR + rb")"
)
"""Key, token, cookie; key ids of AWS, keys of OpenAI and its kin, swarm's tokens, private keys, webhooks of Slack and Discord:
one letter finds them all."""
_A_WORDS = re.compile(rb"auth" + _TAIL + _SEPARATOR)
_C_WORDS = re.compile(rb"c(?:red" + _TAIL + _SEPARATOR + rb"|om/receiver/v1/http/([\w=\-]{20,}))")
"""Credentials; the collectors of Sumo Logic."""
_SESSION_WORDS = re.compile(rb"s(?:ess|ig)" + _TAIL + _SEPARATOR)
_B_WORDS = re.compile(
    rb"b(?:earer[ +]+([a-z0-9._~+/=\-]{8,})|ot(\d{6,12}:aa[a-z0-9_\-]{30,})|y (?:password )?\\{0,4}'([^'\n]{1,256})')"
)
"""Bearer; Telegram's bots; `IDENTIFIED BY 'x'`."""
_NAME_CHARS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
_NAME_LONGEST = 48
_BARE = re.compile(rb"[^\s\"'`<>|,;&()\[\]{}\\\x00-\x1f\x7f]*")
_ON = re.compile(rb"[,;&()\[\]{}](?![\s\"'`,;&()\[\]{}<>|\\]|\Z|[\w.\-]{1,32}[=:])|\\(?![nrtu\"'\\])")
_UNESCAPED = re.compile(rb"(?<!\\)\"")
_OPENING = re.compile(rb"\\{0,8}[\"'`]")
_SCHEME = re.compile(rb"(?i)(bearer|basic|token|digest|negotiate|apikey|aws4-hmac-sha256)[ +]+")
_ANY_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9\-]{1,20})[ +]+(?=[^\s\"']{6})")
_NON_QUOTE = re.compile(rb"[^\r\n\"'`\x00\\]*")
_LINE = re.compile(rb"[^\r\n\x00]{0,1024}")
_NON_BLANK = re.compile(rb"\S*")
_BLANKS = re.compile(rb"[ \t]*")
_ELEMENT = re.compile(rb"[^<\s]{1,512}(?=<)")
_CLOSED_KEY = re.compile(rb"\"\s*:")
_LONG = 512
"""Longer values under a name are not prose, and are not judged."""
_PIN = 4
_MIXED = re.compile(rb"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)")
_MASK = re.compile(rb"(?i)x{3,}\Z|[*]+\Z|<[^>]*>\Z|\[\w*\]\Z|redacted\Z|\.{3}\Z|%2a+\Z")
_STATIC = re.compile(rb"v?\d+(?:\.\d+)+[\w.\-+]*\Z|v\d[\w.\-]*\Z|latest\Z|sha256\Z|r[ow]\Z|[rR][wWoO],[zZ]\Z")
_WORDLIKE = re.compile(rb"[a-z]+[.!?:]?\Z|[A-Z][a-z]+[.!?:]?\Z|[a-z]+(?:[/_\-][a-z]+)*[.:]?\Z")
_LINE_START = re.compile(rb"(?:\A|[\n{,]|\\n)[ \t\-]*[\"']?\Z")
_QUOTES = frozenset((b'"', b"'"))
_DIRECTIVES = frozenset((b"requirepass", b"masterauth", b"masterpass", b"primaryauth"))

_USERINFO = re.compile(rb"://(?:[^\s\"'<>/?#@`]{1,512}+@|[a-z0-9._%+\-]{1,64}+:(?!\d{1,5}/)[^\s\"'<>@`:]{1,96}+@)")
_HOST_PORTS = re.compile(rb"\d{1,5},")
_ESCAPE_IN = re.compile(rb"(?<!\\)\\[nrtu]")
_MORE_USERINFO = re.compile(rb"[^\s\"'<>/?#@\\`,;]{0,96}@")
_NO_PASSWORD = frozenset((b"", b"x-oauth-basic", b"x-token-auth", b"x-access-token", b"oauth2"))
_PEM_BODY = re.compile(rb"[A-Za-z0-9+/=\s\\:,.\-]*")
_PEM_END = re.compile(rb"-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_GO_DSN = re.compile(rb"@(?:(?:tcp|unix)\(|(?=[\w./\-]{0,64}:\d{2,5}[:/]))")
_DSN_USER = re.compile(rb"(?<![\w.\-])[\w.\-]{1,64}:([^\s\"'`\\/]{1,128})\Z")
_ORACLE_USER = re.compile(rb"thin:[\w.\-]{1,64}/([^\s\"'`\\@]{1,128})\Z")
_GENERATED = re.compile(rb"generated for \S{1,64}: (\S{1,128})")
_ECHOED = re.compile(
    rb"echo\s+(?:-\w{1,4}\s+)?(?:\\?\"(?:[\w.\-]{1,32}:)?([^\"\\\n]{1,128})\\?\"|'(?:[\w.\-]{1,32}:)?([^'\n]{1,128})'"
    rb"|(?:[\w.\-]{1,32}:)?([^\s\"'|:\\]{1,128}))\s*\|[^\n|;]{0,96}\Z"
)
_ECHO_BEFORE = 320


def _starts(prefix: bytes) -> bytes:
    r"""Match only where a word starts: after no name character, or after one of the escapes `\n \r \t` of JSON."""
    return rb"(?:(?<![A-Za-z0-9_\-]" + prefix + rb")|(?<=\\[nrt]" + prefix + rb"))"


_FORM_JWT = re.compile(
    rb"J(?<=eyJ)" + _starts(rb"eyJ") + rb"(?:[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?"
    rb"|[A-Za-z0-9_+/\-]{36,}={0,2})"
)
"""JWT, X-Registry-Auth."""
_FORM_UNDERSCORE = re.compile(
    rb"_(?=[A-Za-z0-9]{16})(?:(?<=gh[pousr]_)|(?<=github_pat_)|(?<=dckr_[po]at_)|(?<=npm_)|(?<=hf_)|"
    rb"(?<=[srpw]k_live_)|(?<=[srpw]k_test_)|(?<=whsec_)|(?<=do[por]_v1_)|(?<=glsa_)|(?<=glc_)|(?<=shp[acps][ats]_)|"
    rb"(?<=lin_api_)|(?<=rubygems_)|(?<=sntry[su]_)|(?<=figd_)|(?<=pul_))[A-Za-z0-9_\-]{16,}"
)
"""GitHub, Docker Hub, npm, Hugging Face, Stripe, DigitalOcean, Grafana, Shopify, and what took after them."""
_FORM_G = re.compile(rb"g(?<![A-Za-z0-9]g)l(?:pat|ptt|rt|dt|cbt|oas|ft|soat|agent)-[A-Za-z0-9_\-.]{16,}")
"""GitLab."""
_FORM_X = re.compile(rb"x(?:ox[abeoprs]-[A-Za-z0-9\-]{10,}|app-\d-[A-Za-z0-9\-]{20,})")
"""Slack."""
_FORM_CRYPT = re.compile(rb"\$(?:apr1|2[abxy]|[156y7]|argon2(?:id|i|d))\$[./A-Za-z0-9$=,+\-]{16,}")
"""crypt(3) and its kin, in htpasswd and basic authentication of proxies."""
_FORM_A = re.compile(rb"A(?:SIA[A-Z0-9]{16}(?![A-Za-z0-9])|Iza[A-Za-z0-9_\-]{30,}|TATT3[A-Za-z0-9_\-=]{20,})")
_FORM_SG = re.compile(rb"SG\.[A-Za-z0-9_\-]{16,64}+\.[A-Za-z0-9_\-]{16,}")
_FORM_HV = re.compile(rb"hv[sbr]\.[A-Za-z0-9_\-]{20,}")
"""AWS, Google, Atlassian; SendGrid; Vault."""
_WORD_CHARS = b"abcdefghijklmnopqrstuvwxyz0123456789_"


# -- command lines -----------------------------------------------------------------------------------------------------

_PROGRAMS: dict[bytes, dict[bytes, str]] = {
    b"mysql": {b"-p": "glued"},
    b"redis-cli": {b"-a": "next", b"--pass": "next"},
    b"curl": {b"-u": "user", b"--user": "user", b"-U": "user", b"--proxy-user": "user"},
    b"wget": {b"--user": "user"},
    b"sshpass": {b"-p": "both"},
    b"mongo": {b"-p": "next"},
    b"ldap": {b"-w": "both"},
    b"docker": {b"-e": "env", b"--env": "env", b"--build-arg": "env"},
    b"podman": {b"-e": "env", b"--env": "env", b"--build-arg": "env"},
    b"nerdctl": {b"-e": "env", b"--env": "env", b"--build-arg": "env"},
    b"login": {b"-p": "next"},
    b"sqlcmd": {b"-P": "both"},
    b"ipmitool": {b"-P": "next"},
    b"smbclient": {b"-U": "percent"},
    b"etcdctl": {b"--user": "user"},
    b"influx": {b"-password": "next"},
    b"7z": {b"-p": "glued"},
    b"zip": {b"-P": "next"},
    b"unzip": {b"-P": "next"},
    b"useradd": {b"-p": "next"},
    b"usermod": {b"-p": "next"},
    b"htpasswd": {},
    b"rabbitmqctl": {b"add_user": "second", b"change_password": "second"},
}
"""Short flags that hold a password: glued to it, the next word, the one after that, either, `user:password`, or
`user%password`."""
_FAMILIES = ((b"mysql", b"mysql"), (b"mariadb", b"mysql"), (b"mongo", b"mongo"), (b"ldap", b"ldap"))
_COMMAND_M = re.compile(rb"m(?:ariadb|ongo)[a-z\-]{0,16} ")
_COMMAND_Y = re.compile(rb"ysql[a-z\-]{0,16}[ \"']")
_COMMAND_L = re.compile(rb"l(?:dap[a-z]{3,12} |ogin |i (?<=redis-cli )|cmd (?<=sqlcmd )| (?<=curl |dctl |qctl ))")
"""Where programs that take passwords are called inside a text (the last letters of some suffice to find them)."""
_PASSWORD_FLAG = re.compile(rb"-[a-z]{0,8}[abpuw]|user|password")
_COMMAND_WORD = re.compile(rb"(?:\"(?:[^\"\\]|\\.){0,512}\"|'[^']{0,512}'|[^\s\"'|;&\\]+|\\.)+")
_LISTED = re.compile(rb"[\"',\s]{0,8}([^\"'\n\\]{1,256})[\"']")
_COMMAND_LONGEST, _FLAG_WITHIN = 1024, 256
_BATCH = re.compile(rb"-[A-Za-z]{0,8}b[A-Za-z]{0,8}\Z")
"""htpasswd takes the password from its last word."""
_CLUSTER = re.compile(rb"-[A-Za-z]{2,8}\Z")


def _flags_of(word: bytes) -> dict[bytes, str] | None:
    """Give the password flags of a program by its path; None when it is no program known for such."""
    name = word[word.rfind(b"/") + 1 :]
    for prefix, family in _FAMILIES:
        if name.startswith(prefix):
            return _PROGRAMS[family]
    return _PROGRAMS.get(name)


# -- fields ------------------------------------------------------------------------------------------------------------

_ENV, _ARGV, _OPTIONS, _HISTORY, _LOG_CONFIG = range(5)

_FIELDS: dict[bytes, tuple[int, str]] = {
    b"Env": (_ENV, "environment"),
    b"env": (_ENV, "environment"),
    b"Cmd": (_ARGV, "command line"),
    b"Entrypoint": (_ARGV, "command line"),
    b"Args": (_ARGV, "command line"),
    b"args": (_ARGV, "command line"),
    b"arguments": (_ARGV, "command line"),
    b"runtimeArgs": (_ARGV, "command line"),
    b"Test": (_ARGV, "health check"),
    b"OnBuild": (_HISTORY, "image history"),
    b"Labels": (_OPTIONS, "label"),
    b"labels": (_OPTIONS, "label"),
    b"annotations": (_OPTIONS, "label"),
    b"Annotations": (_OPTIONS, "label"),
    b"Options": (_OPTIONS, "driver option"),
    b"DriverOpts": (_OPTIONS, "driver option"),
    b"storage-opts": (_OPTIONS, "driver option"),
    b"exec-opts": (_OPTIONS, "driver option"),
    b"log-opts": (_OPTIONS, "log option"),
    b"LogConfig": (_LOG_CONFIG, "log option"),
    b"LogDriver": (_LOG_CONFIG, "log option"),
    b"HttpHeaders": (_OPTIONS, "registry login"),
}
"""Lists and objects by name, wherever they stand: config.v2.json, inspect, image configs, /info, daemon.json share them."""
_STRING_KINDS = {
    b"Output": "health check",
    b"Command": "command line",
    b"created_by": "image history",
    b"CreatedBy": "image history",
}
"""What a secret in these strings is called."""


def _anchors(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """Make a pattern for the start of a field's value; by first letters, or it would take thrice as long.

    Strings are few: instructions of a Dockerfile that set something (group 2), and the content of swarm configs (3).
    """
    tails: dict[bytes, list[bytes]] = {}
    for name in names:
        tails.setdefault(name[:1], []).append(re.escape(name[1:]))
    tree = b"|".join(first + rb"(?:" + b"|".join(rest) + rb")" for first, rest in tails.items())
    instruction = rb'"(?:/bin/sh -c )?(?:#\(nop\)\s+)?(?:(?i:ENV|ARG|LABEL)\s|(?:RUN )?\|\d)'
    return re.compile(
        rb'"(?:('
        + tree
        + rb')"\s*:\s*(?=[\[{])|[cC]reated_?[bB]y("\s*:\s*)(?='
        + instruction
        + rb')|Data("\s*:\s*)(?="))'
    )


_ANCHOR = _anchors(_FIELDS)
_CLOSERS = {ord("["): b'"]', ord("{"): b'"}', ord('"'): b'",'}
_LOGIN = re.compile(rb'"(?i:(auth|identitytoken|registrytoken|password)|username|email)"\s*:\s*"')
_LOG_OPTIONS = re.compile(rb'\s*\{\s*(?:"(?:Type|Name)"\s*:\s*"[^"\\]*"\s*,\s*)?"(?:Config|Options)"\s*:\s*(?=\{)')

_NOP = re.compile(rb"(?:/bin/sh -c )?#\(nop\)\s+")
_INSTRUCTION = re.compile(rb"(ENV|ARG|LABEL)\s+", re.IGNORECASE)
_BUILD_ARGS = re.compile(rb"(?:RUN )?\|(\d{1,4}) ")
_ASSIGNMENT = re.compile(rb"(?:\A|(?<=\s))[\"']?([A-Za-z_][\w.\-/]*)[\"']?=")
_SHELL = re.compile(rb"\s(?=/\S*sh -\w*c\b|/\S+ -\w*c )")
_SECTION = re.compile(rb"^[ \t]*\[[A-Za-z\-]+\][ \t]*\r?$", re.MULTILINE)
_UNIT_ENV = re.compile(rb"[ \t#;]*(?:Environment|DefaultEnvironment|ManagerEnvironment)[ \t]*=[ \t]*")
_UNIT_CREDENTIAL = re.compile(rb"[ \t]*SetCredential[ \t]*=[ \t]*[\w.\-]+:")
_FILE_ENV = re.compile(rb"[ \t#]*(?:export[ \t]+|set[ \t]+-x[ \t]+)?([A-Za-z_]\w*)=(.*?)[ \t\r]*\Z", re.DOTALL)
_ANY_TOKEN = "«[^»]{1,40}»".encode()
_UNIT_WORD = re.compile(
    rb"\"((?:[^\"\\]|\\.){0,4096})\"|'([^']{0,4096})'|((?:[^\s\"'\\]|\\.)(?:" + _ANY_TOKEN + rb"|[^\s\\]|\\\S)*)"
)
_FIELD_COUNT = 4
_TREE_ESCAPE = re.compile(rb"\\([\\tnr])")
_TREE_FROM = {b"\\": b"\\", b"t": b"\t", b"n": b"\n", b"r": b"\r"}
_NEXT_URL = re.compile(rb"([,\s]+)(?=(?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]{0,20}://)")
_URL_PARTS = re.compile(
    rb"((?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]{0,20}:(?:[a-z0-9]{1,16}:)?//)"
    rb"(?:([^/?#]*|[^/?#@:]+:(?!\d{1,5}/)[^@\s]*)@)?([^/?#@]*)(.*)\Z",
    re.DOTALL,
)
_LOCAL_SCHEMES = frozenset((b"unix://", b"fd://", b"file://", b"npipe://"))
_HOSTS = re.compile(rb"[\w.\-:\[\]%,*]*\Z")
_SHORT = re.compile(rb"[A-Za-z0-9._/+\-]{0,15}\Z|\d*\Z|[0-9a-f]{64}\Z|sha256:[0-9a-f]{64}\Z")
"""Values too short or too plain for any pattern: not worth trying them all."""


class _Secret:
    """One secret value: its number in the order of discovery, what it was first seen as, and the words for its length."""

    __slots__ = ("followed", "kind", "number", "size", "value")

    def __init__(self, number: int, value: bytes, kind: str) -> None:
        self.number = number
        self.value = value
        self.kind = kind
        self.followed = False
        chars = len(value[: 4 * _BUCKETS[-1][0] + 4].decode("utf-8", "replace"))
        self.size = next((name for most, name in _BUCKETS if chars <= most), _LONGEST).encode()

    def token(self, code: str) -> bytes:
        return b"%s%s%d, %s chars%s" % (_OPEN, code.encode(), self.number, self.size, _CLOSING)

    def forms(self) -> set[bytes]:
        """Give the spellings in which it may stand in evidence and in reports: raw, JSON, Go's JSON, URL, HTML."""
        value = self.value
        if _UNRESERVED.fullmatch(value):
            return {value}
        text = value.decode("utf-8", "replace")
        escaped = _json_escape(value)
        go = escaped.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
        forms = {value, escaped, go, quote(value, safe="").encode(), quote(value, safe="/!$*()',;:@&=+").encode()}
        forms |= {html.escape(text).encode(), text.translate(_HTML_JINJA).encode()}
        return {form for form in forms if len(form) >= _TRACKED}


_UNRESERVED = re.compile(rb"[A-Za-z0-9_.\-]+")
_HTML_JINJA = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("'"): "&#39;", ord('"'): "&#34;"}


class _Index:
    """Finds known secrets in text: a few by searching each, many by the words of the text, in the same time for all."""

    _SEPARATE = bytes(code if chr(code).isalnum() and code < 0x80 else 0x20 for code in range(256))  # noqa: PLR2004 - ASCII

    def __init__(self, secrets: Iterable[_Secret]) -> None:
        self._forms = {form: secret for secret in secrets if secret.followed for form in secret.forms()}
        self._wordless = []
        self._by_word: dict[bytes, list[tuple[frozenset[bytes], frozenset[bytes], bytes]]] = {}
        split = {form: form.translate(self._SEPARATE).split() for form in self._forms}
        shared = Counter(word for words in split.values() for word in set(words))
        for form, words in split.items():
            if words:
                rarest = min(words, key=lambda word: (shared[word], -len(word)))
                # Of the words at its two ends one may be grown together with what stands beside it.
                needs = frozenset(words[1:]), frozenset(words[:-1])
                self._by_word.setdefault(rarest, []).append((*needs, form))
            else:
                self._wordless.append(form)
        self._words = frozenset(shared)

    def find(self, data: bytes) -> list[tuple[bytes, _Secret]]:
        """Give what is in the text, the longest first."""
        if not self._forms:
            return []
        if len(self._forms) <= _SOME:
            maybe = list(self._forms)
        else:
            text = data.replace(WITHHELD, b" ") if WITHHELD in data else data
            words = self._words.intersection(text.translate(self._SEPARATE).split())
            maybe = self._wordless + [
                form
                for word in words
                for end, start, form in self._by_word.get(word, ())
                if end <= words or start <= words
            ]
        found = [(form, self._forms[form]) for form in maybe if form in data]
        return sorted(found, key=lambda pair: (-len(pair[0]), pair[0]))


class Redactor:
    """Scrubs the evidence of one collect. `scrub` may be called from several threads, `finish` once, at the end."""

    def __init__(self) -> None:
        """Start with no secrets known."""
        self.removed: dict[str, int] = {}
        """Distinct secrets by kind, as they are in the evidence; filled by `finish`."""
        self._lock = threading.Lock()
        self._secrets: dict[bytes, _Secret] = {}
        self._by_number: list[_Secret] = []
        self._final: dict[int, int] = {}
        self._kinds: dict[int, str] = {}
        self._envs: dict[bytes, bytes] = {}
        self._instructions: dict[bytes, bytes] = {}
        self._texts: dict[tuple[str, bytes], bytes] = {}
        self.fields: dict[tuple[int, str, bytes], tuple[int, list[tuple[int, int, bytes]]]] = {}
        """What was decided about fields: where they end, and their edits, both counted from their start."""
        self._argvs: dict[tuple[bytes, ...], list[bytes]] = {}
        self._options: dict[tuple[bytes, bytes, str], bytes] = {}

    def __repr__(self) -> str:
        """Never show what is inside."""
        return f"<Redactor: {len(self._secrets)} secrets>"

    # -- the three passes ----------------------------------------------------------------------------------------------

    def scrub(self, data: bytes, how: str) -> tuple[bytes, int]:
        """Take the secrets out of one record; give what is left and the number of places where one stood.

        `how` names the structure: `inspect` (any JSON of the Engine API and of the data root), `daemon-json`,
        `docker-config`, `environ`, `cmdline`, `unit`, `tree`, `processes`; anything else is text. Never raises.
        """
        if not data:
            return data, 0
        if how in {"inspect", "daemon-json", "docker-config"}:
            new = self._json(data, how)
        else:
            ways: dict[str, Callable[[bytes], bytes]] = {
                "environ": self._environ,
                "cmdline": self._cmdline,
                "unit": self._unit,
                "tree": self._tree,
                "processes": self._processes,
            }
            new = ways.get(how, self.text)(data)
        if new == data:
            return data, 0
        return new, max(0, len(_COUNTED.findall(new)) - len(_COUNTED.findall(data)))

    def finish(self, records: Iterable[Record], ids: Container[str] = ()) -> list[Record]:
        """Replace what was learnt to be secret wherever it stands, and number the tokens in the order of `records`.

        `ids` names records that hold nothing but what the engine made up itself; they are not searched.
        """
        index = _Index(self._by_number)
        done: list[Record] = []
        batch: list[Record] = []
        size = 0
        # Most records are small, and hold nothing of the kind: a batch is searched as one text.
        for record in records:
            batch.append(record)
            size += len(record.data)
            if size > _TOGETHER:
                done += self._finished(batch, index, ids)
                batch, size = [], 0
        done += self._finished(batch, index, ids)
        kinds = [self._kinds.get(number) or self._by_number[number].kind for number in self._final]
        self.removed = {kind: kinds.count(kind) for kind in KINDS if kind in kinds}
        return done

    def _finished(self, batch: list[Record], index: _Index, ids: Container[str]) -> list[Record]:
        read = [
            (
                b"" if record.name in ids else record.data,
                record.target.encode("utf-8", "replace"),
                self.text(record.why.encode("utf-8", "replace")) if record.why else b"",
            )
            for record in batch
        ]
        known = index.find(b"\n".join(text for texts in read for text in texts))
        return [self._cleaned(record, *texts, known) for record, texts in zip(batch, read, strict=True)]

    def _cleaned(
        self, record: Record, data: bytes, target: bytes, why: bytes, known: list[tuple[bytes, _Secret]]
    ) -> Record:
        count = 0
        for form, secret in known:
            if form in data:
                count += data.count(form)
                data = data.replace(form, secret.token(_FOUND))
            if form in target or form in why:
                target, why = (text.replace(form, secret.token(_FOUND)) for text in (target, why))
        if _OPEN in data:
            data = _PROVISIONAL.sub(self._number, data)
        changed: dict[str, object] = {}
        if data and data is not record.data:
            changed |= {"data": data, "redactions": record.redactions + count}
        for field, text in (("target", target), ("why", why)):
            new = (_PROVISIONAL.sub(self._number, text) if _OPEN in text else text).decode()
            if new != getattr(record, field):
                changed[field] = new
        return msgspec.structs.replace(record, **changed) if changed else record

    def _number(self, match: re.Match[bytes]) -> bytes:
        number = int(match[2])
        if number >= len(self._by_number):
            return match[0]  # not ours: somebody wrote it so
        final = self._final.setdefault(number, len(self._final) + 1)
        kind = _KIND_OF.get(match[1].decode())
        if kind is not None:
            self._kinds.setdefault(number, kind)
        return b"\xc2\xabsecret %d," % final

    def found(self, artefact: bytes) -> list[str]:
        """Name the secrets that stand in an artefact, by number, never by value."""
        numbers = {secret.number for _, secret in _Index(self._by_number).find(artefact)}
        names = [
            (
                self._final.get(number, 0),
                f"secret {self._final[number]}" if number in self._final else "an unnumbered secret",
            )
            for number in numbers
        ]
        return [name for _, name in sorted(names)]

    # -- the table of secrets ------------------------------------------------------------------------------------------

    def _learn(self, value: bytes, kind: str, *, strong: bool = True) -> _Secret:
        """Note a secret; the same value is the same secret, whoever saw it first."""
        secret = self._secrets.get(value)
        if secret is None:
            with self._lock:
                secret = self._secrets.get(value)
                if secret is None:
                    secret = _Secret(len(self._by_number), value, kind)
                    self._by_number.append(secret)
                    self._secrets[value] = secret
        if not secret.followed and _followed(value, strong=strong):
            secret.followed = True
        return secret

    def token(self, value: bytes, kind: str, *, strong: bool = True) -> bytes:
        """Give what stands for a secret until `finish`."""
        return self._learn(value, kind, strong=strong).token(_CODES[kind])

    def learn_login(self, value: bytes) -> None:
        """Note the password inside the base64 of `user:password`."""
        try:
            _, colon, password = base64.b64decode(value, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return
        if colon and password:
            self._learn(password, "registry login")

    # -- by structure --------------------------------------------------------------------------------------------------

    def _json(self, data: bytes, how: str) -> bytes:
        plain = _plain_escapes(data) if b"\\" in data else data
        fields = _Fields(self, plain)
        fields.judge()
        if how == "docker-config":
            fields.judge_logins()
        judged = plain if fields.given_up else _apply(plain, fields.edits)
        spans, limit = self.spans(judged, judged.lower(), "text", everything=False)
        if limit < len(judged) or fields.given_up:
            return b'"' + WITHHELD + b'"'
        new = self._strings(judged, spans, fields.regions()) if spans else judged
        return data if new == plain else new

    def _strings(self, data: bytes, spans: list[_Span], regions: list[tuple[int, int, str]]) -> bytes:
        """Scrub what patterns found in the strings of a JSON text, whose fields are judged already."""
        if not _is_json(data):
            return _apply(data, self.edits(data, spans))
        edits: list[_Edit] = []
        done = 0
        for span in spans:
            if span.start < done:
                continue
            if span.bare:
                edits.append(_Edit(span.start, span.end, b"0"))
                continue
            start = _literal_start(data, span.start)
            at = bisect_right(regions, (span.start, len(data), "")) - 1
            kind = regions[at][2] if at >= 0 and span.start < regions[at][1] else _kind_of_string(data, start)
            end = _literal_end(data, start)
            literal = new = data[start:end]
            named = span._replace(kind=kind if span.kind in {"text", "URL"} and kind != "text" else span.kind)
            done = min(span.end, end)
            if (span.start, span.end) == (start, end):
                new = self.token(_canonical(_json_unescape(literal), span), named.kind, strong=span.strong)
            elif b"\\" in literal:
                new = _json_escape(self.text(_json_unescape(literal), kind))
            if new == literal:
                edits += self.edits(data, [named._replace(end=done)])
            else:
                edits.append(_Edit(start, end, new))
                done = end
        return _apply(data, edits)

    def env(self, text: bytes) -> bytes:
        """Scrub `NAME=value` of an environment: a value is kept only when its name is known to be harmless."""
        new = self._envs.get(text)
        if new is None:
            if len(self._envs) > _MEMO:
                self._envs.clear()
            name, equals, value = text.partition(b"=")
            new = self._envs[text] = name + equals + self._env_value(name, value) if value else text
        return new

    def _env_value(self, name: bytes, value: bytes) -> bytes:
        bare = name.strip().upper()
        if bare in _KEPT_ENV or bare.startswith(_KEPT_PREFIXES) or _only_tokens(value):
            return value
        if bare.endswith(b"_VERSION") and _VERSION_VALUE.match(value):
            return value
        level = _env_level(name)
        if level and not _trivial(value) and not _PATH.match(value) and (level == _STRONG or not _NUMBER.match(value)):
            if b"=" in value or b"@" in value:
                self.text(value, "environment")  # learns what a connection string has in it
            return self.token(value, "environment", strong=level == _STRONG)
        if _URL.match(value):
            return self._env_urls(name, value)
        if bare.startswith(b"DOCKER") and (_ANY_PATH.match(value) or _NUMBER.match(value)):
            return value
        if _SHORT.match(value):
            return WITHHELD
        tokens = _COUNTED.findall(self.text(value, "environment"))
        return b" ".join([WITHHELD, *dict.fromkeys(tokens)]) if tokens else WITHHELD

    def _env_urls(self, name: bytes, value: bytes) -> bytes:
        """Keep scheme, host and port of one or more URLs: they are what a proxy or a daemon's address is read for."""
        kind = "proxy password" if b"PROXY" in name.upper() else "environment"
        return b"".join(self._env_url(part, kind) for part in _NEXT_URL.split(value))

    def _env_url(self, url: bytes, kind: str) -> bytes:
        if not url.strip(b", \t"):
            return url
        match = _URL_PARTS.match(url)
        if match is None:
            return WITHHELD
        scheme, info, host, rest = match.groups()
        if scheme.lower() in _LOCAL_SCHEMES:
            return url
        if info is None:
            login = b""
        else:
            user, colon, password = info.partition(b":")
            if _login_in_user(user, password):
                user = self.token(unquote_to_bytes(user), kind)
            elif user and not _only_tokens(user):
                user = WITHHELD
            if password and not _masked(password):
                password = self.token(unquote_to_bytes(password), kind)
            login = user + colon + password + b"@"
        if not _HOSTS.match(host):
            host = WITHHELD
        if rest not in {b"", b"/"} and not _only_tokens(rest.lstrip(b"/")):
            tokens = [] if _SHORT.match(rest) else _COUNTED.findall(self.text(b"//" + host + rest, kind))
            rest = b"/" + (b" ".join(dict.fromkeys(tokens)) or WITHHELD)
        return scheme + login + host + rest

    def pair(self, text: bytes, kind: str) -> bytes:
        """Scrub `name=value` of a label or an option."""
        name, equals, value = text.partition(b"=")
        return name + equals + self.option(name, value, kind) if equals else text

    def option(self, name: bytes, value: bytes, kind: str) -> bytes:
        """Scrub the value of a label, an option, a build argument: it is kept unless its name or itself looks secret."""
        key = (name, value, kind)
        new = self._options.get(key)
        if new is None:
            if len(self._options) > _MEMO:
                self._options.clear()
            new = self._options[key] = self._option_value(name, value, kind)
        return new

    def _option_value(self, name: bytes, value: bytes, kind: str) -> bytes:
        if not value or _trivial(value):
            return value
        level = _level(name)
        if (level == _STRONG and not _PATH.match(value)) or (level == _WEAK and _random(value.replace(b"$$", b"$"))):
            return self.token(value, kind)
        return value if _SHORT.match(value) else self.text(value, kind)

    def argv(self, args: list[bytes], kind: str) -> list[bytes]:
        """Scrub a command line that is already split into words."""
        key = (kind.encode(), *args)
        news = self._argvs.get(key)
        if news is None:
            if len(self._argvs) > _MEMO:
                self._argvs.clear()
            news = self._argvs[key] = self._argv_words(args, kind)
        return news

    def _argv_words(self, args: list[bytes], kind: str) -> list[bytes]:
        news = list(args)
        if args and _BUILD_ARGS.match(args[0] + b" "):
            kind = "build argument"
        for part in _secrets_in(args):
            arg = args[part.word]
            if part.environment:
                news[part.word] = arg[: part.start] + self.env(arg[part.start :])
            else:
                news[part.word] = arg[: part.start] + self.token(arg[part.start : part.end], kind) + arg[part.end :]
        for number, (old, new) in enumerate(zip(args, news, strict=True)):
            if new == old and old.startswith((b"#(nop)", b"|")):
                news[number] = self.history(old, kind)
            elif new == old and b" " in old:
                news[number] = self.text(old, kind)
        return news

    def instruction(self, text: bytes) -> bytes:
        """Scrub one line of an image's history; images that were built on one another share many."""
        new = self._instructions.get(text)
        if new is None:
            if len(self._instructions) > _MEMO:
                self._instructions.clear()
            new = self._instructions[text] = self.history(text, "image history")
        return new

    def history(self, text: bytes, kind: str) -> bytes:
        """Scrub one line of an image's history or one instruction of ONBUILD."""
        nop = _NOP.match(text)
        start = nop.end() if nop else 0
        arguments = _BUILD_ARGS.match(text, start)
        if arguments:
            shell = _SHELL.search(text, arguments.end())
            end = shell.start() if shell else len(text)
            known = self._assignments(text, arguments.end(), end, "ARG")
            return text[: arguments.end()] + known + self.text(text[end:], kind)
        instruction = _INSTRUCTION.match(text, start)
        if instruction is None:
            return self.text(text, kind)
        what = instruction[1].decode().upper()
        return text[: instruction.end()] + self._assignments(text, instruction.end(), len(text), what)

    def _assignments(self, text: bytes, start: int, end: int, what: str) -> bytes:
        """Scrub `A=x B=y`, where a value reaches to the next name; `ENV A x y` too."""
        found = list(_ASSIGNMENT.finditer(text, start, end))
        if not found or found[0].start() > start:
            name, blank, value = text[start:end].partition(b" ")
            if b"=" in name or not blank:
                return self.text(text[start:end], "image history")
            return name + blank + self._assigned(name, value, what)
        out: list[bytes] = []
        for number, match in enumerate(found):
            stop = found[number + 1].start() if number + 1 < len(found) else end
            value = text[match.end() : stop]
            bare = value.strip()
            if _quoted(bare):
                bare = bare[1:-1]
            out.append(match[0] + (value.replace(bare, self._assigned(match[1], bare, what), 1) if bare else value))
        return b"".join(out)

    def _assigned(self, name: bytes, value: bytes, what: str) -> bytes:
        if what == "ENV":
            return self.env(name + b"=" + value)[len(name) + 1 :]
        return self.option(name, value, "label" if what == "LABEL" else "build argument")

    def _environ(self, data: bytes) -> bytes:
        separator = b"\0" if b"\0" in data else b"\n"
        new = separator.join([self.env(text) if text else text for text in data.split(separator)])
        return self.text(new, "environment", everything=False)

    def _cmdline(self, data: bytes) -> bytes:
        args = data.split(b"\0")
        if len(args) > _MANY:
            args = [*args[:_MANY], WITHHELD]
        new = b"\0".join(self.argv(args, "command line"))
        return self.text(new, "command line", everything=False)

    def _unit(self, data: bytes) -> bytes:
        """Scrub a unit, a drop-in (both have sections), or a file of environment variables (it has none)."""
        if len(data) > _LARGEST_UNIT:
            return WITHHELD
        lines = data.split(b"\n")
        unit = _SECTION.search(data) is not None
        continued = False
        for number, line in enumerate(lines):
            if not unit:
                lines[number] = self._file_variable(line)
                continue
            match = _UNIT_ENV.match(line)
            if match or continued:
                start = match.end() if match else 0
                lines[number] = line[:start] + _UNIT_WORD.sub(self._unit_word, line[start:])
                continued = line.rstrip().endswith(b"\\")
            elif credential := _UNIT_CREDENTIAL.match(line):
                value = line[credential.end() :].strip()
                if value and not _TOKEN.fullmatch(value):
                    lines[number] = line[: credential.end()] + self.token(value, "environment")
        return self.text(b"\n".join(lines))

    def _unit_word(self, match: re.Match[bytes]) -> bytes:
        content = match[match.lastindex or 0]
        return match[0].replace(content, self.env(content), 1) if b"=" in content else match[0]

    def _file_variable(self, line: bytes) -> bytes:
        match = _FILE_ENV.match(line)
        if match is None:
            return line
        name, value = match.groups()
        start, end = match.span(2)
        if _quoted(value):
            start, end = start + 1, end - 1
        if name.upper() in _FLAG_ENV:
            return line[:start] + self.text(line[start:end], "command line") + line[end:]
        return line[:start] + self.env(name + b"=" + line[start:end])[len(name) + 1 :] + line[end:]

    def _tree(self, data: bytes) -> bytes:
        """Scrub the content of each line by what its path or its first character says it is."""
        files: list[_Edit] = []
        end = 0
        while (at := data.find(b"\tf\t", end)) >= 0:
            start = data.rfind(b"\n", 0, at) + 1
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            fields = data[start:end].split(b"\t")
            how = _tree_how(fields[0], fields[3]) if len(fields) == _FIELD_COUNT else ""
            if how:
                old = _tree_unescape(fields[3])
                new, _ = self.scrub(old, how)
                if new is not old:
                    files.append(_Edit(end - len(fields[3]), end, _tree_escape(new)))
        new = _apply(data, files)
        spans, limit = self.spans(new, new.lower(), "text", everything=True)
        edits: list[_Edit] = []
        done = 0
        for span in spans:
            if span.start < done:
                continue
            start = max(new.rfind(b"\n", 0, span.start), new.rfind(b"\t", 0, span.start)) + 1
            ends = [end for end in (new.find(b"\n", span.start), new.find(b"\t", span.start)) if end >= 0]
            done = min(ends, default=len(new))
            old = new[start:done]
            scrubbed = self.text(_tree_unescape(old))
            if scrubbed != _tree_unescape(old):
                edits.append(_Edit(start, done, _tree_escape(scrubbed)))
        return _cut(new, edits, limit)

    def _processes(self, data: bytes) -> bytes:
        """Scrub the command lines of a scan of /proc; nothing else in it is anybody's word but the kernel's."""
        edits = []
        for line in _CMDLINE.finditer(data):
            old = _tree_unescape(line[1])
            new = self._cmdline(old)
            if new != old:
                edits.append(_Edit(line.start(1), line.end(1), _tree_escape(new)))
        return _apply(data, edits)

    # -- by pattern ----------------------------------------------------------------------------------------------------

    def text(self, data: bytes, kind: str = "text", *, everything: bool = True) -> bytes:
        """Scrub text by pattern; short ones are remembered, for images and containers repeat each other."""
        key = (kind, data)
        if len(data) <= _SHORT_TEXT and everything:
            known = self._texts.get(key)
            if known is not None:
                return known
        spans, limit = self.spans(data, data.lower(), kind, everything=everything)
        new = _cut(data, self.edits(data, spans), limit)
        if len(data) <= _SHORT_TEXT and everything:
            if len(self._texts) > _MEMO:
                self._texts.clear()
            self._texts[key] = new
        return new

    def edits(self, data: bytes, spans: list[_Span]) -> list[_Edit]:
        """Put a token for each span."""
        return [
            _Edit(
                span.start,
                span.end,
                self.token(_canonical(data[span.start : span.end], span), span.kind, strong=span.strong),
            )
            for span in spans
            if span.end > span.start
        ]

    def spans(self, data: bytes, low: bytes, kind: str, *, everything: bool) -> tuple[list[_Span], int]:
        """Find secrets by pattern; give them in order, and where the search was given up (normally the end)."""
        search: _Search | None = None
        for rule in _RULES if everything else _RULES_OF_JSON:
            pattern, reads, _, _, needs = rule
            if needs and needs not in data:
                continue
            where = low if reads == "low" else data
            match = pattern.search(where)
            if match is not None:
                if search is None:
                    search = _Search(data, low, kind, json=not everything)
                search.run(rule, where, match)
        if search is None:
            return [], len(data)
        for login in search.logins:
            self.learn_login(login)
        spans = _merged(search.spans)
        return (_tokenless(data, spans) if _GUILLEMET in data else spans), search.limit


class _Fields:
    """The fields of one JSON text that are known by name, edited in place."""

    def __init__(self, redactor: Redactor, data: bytes) -> None:
        self.redactor = redactor
        self.data = data
        self.edits: list[_Edit] = []
        self.given_up = False
        """There were more fields than any engine has containers: hostile."""
        self._places: list[tuple[int, int, str]] = []

    def judge(self) -> None:
        """Judge every known field."""
        data = self.data
        done = 0
        for match in _ANCHOR.finditer(data):
            start = match.end()
            if match.start() < done or data[start : start + 2] in {b"[]", b"{}", b'""'}:
                continue
            if match[1] is None:
                done = self._string(start, instruction=match[2] is not None)
                continue
            if len(self._places) >= _MOST_FIELDS:
                self.given_up = True
                return
            what, kind = _FIELDS[match[1]]
            done = self._remembered(start, what, kind)
            self._places.append((start, done, kind))

    def regions(self) -> list[tuple[int, int, str]]:
        """Give where these fields are after the edits, and what a secret in them is called."""
        regions: list[tuple[int, int, str]] = []
        shift = 0
        edits = iter(self.edits)
        edit = next(edits, None)
        for start, end, kind in self._places:
            begin = start + shift
            while edit is not None and edit.start < end:
                shift += len(edit.new) - (edit.end - edit.start)
                edit = next(edits, None)
            regions.append((begin, end + shift, kind))
        return regions

    def _remembered(self, start: int, what: int, kind: str) -> int:
        """Judge a field, or know it from another text: inspect and config.v2.json say the same, and so do images."""
        data, memo = self.data, self.redactor.fields
        stop = data.find(_CLOSERS[data[start]], start, start + _SHORT_TEXT) + 2
        region = data[start:stop]
        if stop < start or b"\\" in region:
            return self._field(start, what, kind)
        if what == _OPTIONS and region.startswith(b"{") and kind != "log option" and b"{" not in region[1:]:
            if not any(map(_level, _KEYS.findall(region))):
                return stop
            return self._field(start, what, kind)
        key = (what, kind, region)
        known = memo.get(key)
        if known is None:
            before = len(self.edits)
            end = self._compact(region, start, what, kind) or self._field(start, what, kind)
            if stop - 1 <= end <= stop:
                if len(memo) > _MEMO:
                    memo.clear()
                memo[key] = (end - start, [(a - start, b - start, new) for a, b, new in self.edits[before:]])
            return end
        size, edits = known
        if edits:
            self.edits += [_Edit(a + start, b + start, new) for a, b, new in edits]
        return start + size

    def _compact(self, region: bytes, start: int, what: int, kind: str) -> int:
        """Judge a list of strings as Go prints it, all at once; 0 when it is not printed so."""
        olds = region[2:-2].split(b'","')
        if not region.startswith(b'["') or region.count(b'"') != 2 * len(olds):
            return 0
        news = self._judged(olds, what, kind)
        if news != olds:
            self.edits.append(_Edit(start + 2, start + len(region) - 2, b'","'.join(map(_json_escape, news))))
        return start + len(region)

    def _judged(self, olds: list[bytes], what: int, kind: str) -> list[bytes]:
        redactor = self.redactor
        if what == _ENV:
            return [redactor.env(old) for old in olds]
        if what == _ARGV:
            return redactor.argv(olds, kind)
        if what == _OPTIONS:
            return [redactor.pair(old, kind) for old in olds]
        return [redactor.history(old, kind) for old in olds]

    def _put(self, start: int, end: int, old: bytes, new: bytes) -> None:
        if new != old:
            self.edits.append(_Edit(start, end, _json_escape(new)))

    def _field(self, start: int, what: int, kind: str) -> int:
        """Judge the list or object that starts at `start`; give where to read on."""
        if what == _LOG_CONFIG:
            match = _LOG_OPTIONS.match(self.data, start)
            if match is None:
                return start
            start, what = match.end(), _OPTIONS
        if self.data[start : start + 1] == b"[":
            return self._array(start + 1, what, kind)
        return self._object(start + 1, what, kind) if what in {_OPTIONS, _ENV} else start

    def _string(self, start: int, *, instruction: bool) -> int:
        """Judge an instruction of an image's history; withhold the content of a swarm config."""
        end = _literal_end(self.data, start + 1)
        literal = self.data[start + 1 : end]
        old = _json_unescape(literal)
        new = self.redactor.instruction(old) if instruction else WITHHELD
        self._put(start + 1, end, old, new)
        return end + 1

    def _array(self, position: int, what: int, kind: str) -> int:
        """Judge a list of strings: an environment, a command line, labels, instructions."""
        data = self.data
        places: list[tuple[int, int]] = []
        olds: list[bytes] = []
        while (match := _ITEM.match(data, position)) is not None:
            start, end = match.span(1)
            text = match[1]
            if match[2] == b"\\":
                end = _literal_end(data, start)
                text = _json_unescape(data[start:end])
            places.append((start, end))
            olds.append(text)
            position = end + 1
        news = self._judged(olds, what, kind)
        if news != olds:
            for (start, end), old, new in zip(places, olds, news, strict=True):
                self._put(start, end, old, new)
        return position

    def _object(self, position: int, what: int, kind: str) -> int:
        """Judge an object of strings: labels, options; what is nested in it is not read."""
        data, redactor = self.data, self.redactor
        while (match := _PAIR.match(data, position)) is not None:
            start, end = match.span(2)
            if start < 0:
                scalar = _SCALAR.match(data, match.end())
                if scalar is None:
                    return match.end()
                position = scalar.end()
                continue
            if match[3] == b"\\":
                end = _literal_end(data, start)
            name = match[1]
            if what == _ENV or kind == "log option" or _level(name):
                name, old = _json_unescape(name), _json_unescape(data[start:end])
                new = (
                    redactor.env(name + b"=" + old)[len(name) + 1 :]
                    if what == _ENV
                    else redactor.option(name, old, kind)
                )
                self._put(start, end, old, new)
            position = end + 1
        return position

    def judge_logins(self) -> None:
        """Judge what `docker login` wrote: the names of its fields say nothing elsewhere, and all here."""
        for match in _LOGIN.finditer(self.data):
            start = match.end()
            end = _literal_end(self.data, start)
            value = new = _json_unescape(self.data[start:end])
            if match[1] is None:
                new = WITHHELD if value else value
            elif value and not _TOKEN.fullmatch(value):
                self.redactor.learn_login(value)
                new = self.redactor.token(value, "registry login")
            self._put(start, end, value, new)
        self.edits = _sorted(self.edits)


class _Search:
    """The search of one text by pattern: a candidate is where a pattern matches, a span what is a secret there."""

    def __init__(self, data: bytes, low: bytes, kind: str, *, json: bool) -> None:
        self.data = data
        self.low = low
        self.json = json
        self.string = (0, 0)
        self.kind = kind
        self.spans: list[_Span] = []
        self.logins: list[bytes] = []
        self.limit = len(data)
        self.budget = _BUDGET + len(data) // _BUDGET_PER

    def run(self, rule: _Rule, where: bytes, match: re.Match[bytes] | None) -> None:
        """Look at every candidate of one pattern; what was taken or read over is not looked at again."""
        judge: Callable[[re.Match[bytes], int], int] = getattr(self, rule.judge)
        while match is not None:
            self.budget -= 1
            if self.budget < 0:
                self.limit = min(self.limit, match.start())
                return
            known = len(self.spans)
            position = max(match.end(), judge(match, rule.before))
            self.budget -= _ACCEPTED * (len(self.spans) - known)
            match = rule.pattern.search(where, position)

    def _back(self, position: int, chars: bytes) -> int:
        """Find where the word starts that reaches to here."""
        start = max(0, position - _NAME_LONGEST)
        return start + len(self.data[start:position].rstrip(chars))

    def _string_end(self, position: int) -> int:
        """Find the end of the JSON string around here; once for a string, however many candidates are in it."""
        start, end = self.string
        if not start <= position < end:
            end = _literal_end(self.data, position)
            self.string = (position, end)
        return end

    def _add(self, start: int, end: int, kind: str = "", *, strong: bool = True) -> None:
        if start < end:
            self.spans.append(_Span(start, end, kind or self.kind, strong=strong))

    # -- names and values ----------------------------------------------------------------------------------------------

    def named(self, match: re.Match[bytes], group: int) -> int:
        """Judge `password=x`, `"token": "x"`, `--secret x`, `Authorization: Basic x`, `<key>x</key>` and the like."""
        group = group or 1
        data, end = self.data, match.end()
        begin = self._back(match.start(), _NAME_CHARS)
        name = data[begin : match.start(group)]
        level = _level(name)
        if level == _WEAK and name.lower() in {b"key", b"keys"} and data[begin - 1 : begin] == b" ":
            level = _level(data[self._back(begin - 1, _NAME_CHARS) : match.start(group)])
        if level == _WEAK and name.lower() in {b"key", b"keys"} and data[begin - 1 : begin] not in {b"?", b"&"}:
            return end  # of a map, a snapshot, a header: `key=moby/12/...`
        relation = _relation(match[group]) if level else ""
        if relation == "blank" and level == _STRONG and data[end - 1 : end + 1].strip() in _QUOTES:
            # `using password 'x'`, `define("DB_PASSWORD", "x")`; not `secret "x" not found`
            relation = "said" if b"," in match[group] or b"pass" in name.lower() else ""
        if not relation or (relation == "blank" and not self._takes_a_word(name, begin)):
            return end
        first = data[end : end + 1]
        if first in _QUOTES and first not in match[group] and data[begin - 1 : begin] == first:
            return end  # "password=" is all there is in the string
        if relation == "element":
            element = _ELEMENT.match(data, end) if data[begin - 1 : begin] == b"<" else None
            start, stop, quoted = (*element.span(), True) if element else (end, end, True)
        else:
            last = name[-6:].lower()
            start, stop, quoted, scheme = self._value(
                end, cookie=last in {b"cookie", b"ookies"}, header=last == b"zation" and relation == "colon"
            )
            if scheme or (level and data[begin - 1 : begin] in {b"?", b"&"}):
                level = _STRONG  # a header with its scheme, a signed URL
        if self.json and not _UNESCAPED.search(match[group]):
            within = self._string_end(match.start())  # the string that the name stands in has the value, too
            start, stop = min(start, within), min(stop, within)
        if start == stop:
            if b"\\" in data[end : start + 1]:
                self.spans.append(_Span(start, start, self.kind))  # the string must be unescaped to be read
            return end
        bare = not quoted and _CLOSED_KEY.match(match[group]) is not None
        closed = quoted or bare
        if stop - start <= _LONG and not self._secret(name, level, relation, start, stop, begin, quoted=closed):
            return end
        kind = "proxy password" if b"proxy" in name.lower() else self.kind
        self.spans.append(_Span(start, stop, kind, strong=level == _STRONG, bare=bare))
        return stop

    def p_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge a name, or what was piped into chpasswd, `--password-stdin`, `passwd --stdin`; or a generated password."""
        tail = match[0]
        if tail.startswith(b"pypi"):
            self._add(*match.span())
            return match.end()
        if b"passwd" in tail or b"stdin" in tail:
            echo = self.low.rfind(b"echo", max(0, match.start() - _ECHO_BEFORE), match.start())
            echoed = _ECHOED.match(self.low, echo, match.start()) if echo >= 0 else None
            span = echoed.span(echoed.lastindex or 0) if echoed else (0, 0)
            if not _trivial(self.data[slice(*span)]):
                self._add(*span)
        if match[1] is None:
            return match.end()
        before = self.low[max(0, match.start() - 3) : match.start()]
        if (tail.startswith(b"pass ") and before == b"ssh") or (tail.startswith(b"passwd ") and before.endswith(b"ht")):
            return self.command(match, 0)
        generated = _GENERATED.match(self.low, match.end())
        if generated:
            self._add(*generated.span(1))
            return generated.end()
        return self.named(match, 0)

    def k_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge a name, or what else is found by its k."""
        start, end, text = match.start(), match.end(), match[0]
        if text.startswith(b"k-"):
            if _MIXED.match(self.data[start + 2 : end]):
                self._add(start - 1, end)
        elif text.startswith(b"kia"):
            if self.data[start - 1 : end].isupper():
                self._add(start - 1, end)
        elif text.startswith((b"kn-1-", b"key-1-")):
            self._add(start - (4 if text.startswith(b"kn") else 3), end, "swarm token")
        elif text.endswith(b"-----") and match.lastindex is None:
            return self._private_key(start, end)
        elif match[3] is not None:
            return self.named(match, 3)
        elif match.lastindex:
            self._add(*match.span(match.lastindex), "URL" if self.kind == "text" else "")
        return end

    def c_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge credentials, or the URL of a collector."""
        if match[1] is not None:
            return self.named(match, 0)
        self._add(*match.span(2), "URL" if self.kind == "text" else "")
        return match.end()

    def b_words(self, match: re.Match[bytes], _: int) -> int:
        """Judge `Bearer x` where no header's name stands before it, the token of a bot, a password in SQL."""
        span = match.span(match.lastindex or 0)
        if match[1]:
            if not _WORDLIKE.match(match[1]):
                self._add(*span)
        elif match[2] or b"identified" in self.low[max(0, match.start() - 80) : match.start()]:
            self._add(*span)
        return match.end()

    def _private_key(self, start: int, end: int) -> int:
        """Take a private key from `-----BEGIN`, to its end or as far as it looks like one."""
        self.budget -= 10 * _ACCEPTED
        begin = self.low.rfind(b"-----begin ", max(0, start - _NAME_LONGEST), start)
        if begin < 0 or b"private" not in self.low[begin:start]:
            return end
        most = end + _PEM
        found = _PEM_END.search(self.data, end, most) or _PEM_BODY.match(self.data, end, most)
        stop = found.end() if found else end
        self._add(begin, stop, "private key")
        return stop

    def _takes_a_word(self, name: bytes, begin: int) -> bool:
        """Tell whether a blank after the name can be followed by the secret: a flag, a directive, a .netrc."""
        low = name.lower()
        if name.startswith(b"-") or low in {b"aws_secret_access_key", b"aws_session_token"}:
            return True
        if low in _DIRECTIVES:
            return _LINE_START.search(self.data, max(0, begin - 24), begin) is not None or begin == 0
        before = self.low[max(0, begin - 128) : begin]
        return before.endswith((b"env ", b"arg ")) or (
            low == b"password" and (b"login " in before or before.endswith((b" with ", b" encrypted ")))
        )

    def _value(self, position: int, *, cookie: bool, header: bool) -> tuple[int, int, bool, bool]:
        """Find start and end of the value that starts here, quotes and scheme (Bearer, Basic) left out."""
        data = self.data
        if data[position : position + 1] == b"[" and data[position + 1 : position + 2] in {b'"', b"'"}:
            position += 1
        schemes = _ANY_SCHEME if header else _SCHEME
        position, scheme = self._past(schemes, position, len(data))
        opening = _OPENING.match(data, position)
        start = opening.end() if opening else position
        if opening:
            end = self._closing(opening[0], start)
            if not scheme:
                start, scheme = self._past(schemes, start, end)
        elif cookie or scheme == b"digest":
            end = _past(_NON_QUOTE if cookie else _LINE, data, start)
        else:
            end = self._bare(start)
        token = data.find(_GUILLEMET, start, end)
        if token >= 0 and (token == start or not opening):
            end = token
        if scheme == b"basic" and end - start <= _LONG:
            self.logins.append(data[start:end])
        return start, end, opening is not None, bool(scheme)

    def _past(self, schemes: re.Pattern[bytes], start: int, end: int) -> tuple[int, bytes]:
        scheme = schemes.match(self.data, start, end)
        return (scheme.end(), scheme[1].lower()) if scheme else (start, b"")

    def _closing(self, delimiter: bytes, start: int) -> int:
        """Find where a quoted value ends: at the same quote, unescaped, on the same line, not too far away."""
        data = self.data
        line = data.find(b"\n", start, start + _QUOTED)
        stop = line if line >= 0 else min(len(data), start + _QUOTED)
        position = start
        for _ in range(_FEW):
            end = data.find(delimiter, position, stop)
            if end < 0:
                break
            escaped = _backslashes(data, start, end)
            if escaped == 0 or (escaped % 2 == 0 and delimiter[:1] != b"\\"):
                return end
            position = end + 1
        return stop

    def _bare(self, start: int) -> int:
        """Find where an unquoted value ends; `,;&)` belong to it when something follows that is no next name."""
        data, position = self.data, start
        for _ in range(2 * _FEW):
            position = _past(_BARE, data, position)
            further = _ON.match(data, position) if position > start else None
            if further is None:
                return position
            position = further.end()
        return _past(_NON_BLANK, data, position)

    def _secret(
        self, name: bytes, level: int, relation: str, start: int, stop: int, begin: int, *, quoted: bool
    ) -> bool:
        """Tell whether a value under a name is one, or prose, a path, an image's tag."""
        value = self.data[start:stop]
        if _trivial(value) or _PATH.match(value) or value.startswith(b"//"):
            return False
        if relation == "blank" and value.startswith((b"-", b"=", b":")):
            return False
        if level == _WEAK:
            return _random(value) or (name.endswith(b"-auth") and b":" in value and not _ADDRESS.match(value))
        password = b"pass" in name.lower()
        if value.isdigit() and stop - start < _PIN:
            return False
        if name.lower().endswith(b"pwd") and _ANY_PATH.match(value):
            return False
        if relation == "said":
            return not _WORDLIKE.match(value)
        if relation != "colon" or quoted:
            return True
        if value.startswith(b"/") and self.data[start - 1 : start] == b":":
            return False  # a volume: `auth-token:/data:rw`
        if _STATIC.match(value) or self.data[begin - 1 : begin] == b"/" or (value.isdigit() and not password):
            return False
        return (
            not _WORDLIKE.match(value) or begin == 0 or bool(_LINE_START.search(self.data, max(0, begin - 24), begin))
        )

    # -- forms ---------------------------------------------------------------------------------------------------------

    def form(self, match: re.Match[bytes], before: int) -> int:
        """Judge a secret that is known by its form."""
        start = match.start() - before if before >= 0 else self._back(match.start(), _WORD_CHARS)
        text = self.data[start : match.end()]
        if not (text.startswith(b"eyJ") and b"." not in text and not _is_login(text)):
            self._add(start, match.end())
        return match.end()

    def userinfo(self, match: re.Match[bytes], _: int) -> int:
        """Judge `scheme://user:password@`."""
        start, end = match.start() + 3, match.end()
        for _more in range(4):
            more = _MORE_USERINFO.match(self.low, end)
            if more is None:
                break
            end = more.end()
        if _ESCAPE_IN.search(self.data, start, end):
            return match.end()  # two lines of an escaped text
        user, _colon, password = self.data[start : end - 1].partition(b":")
        near = self.low[max(0, start - _NAME_LONGEST) : start] + self.low[end : end + 16]
        kind = "proxy password" if b"proxy" in near else "URL" if self.kind == "text" else self.kind
        if _login_in_user(user, password):
            self.spans.append(_Span(start, start + len(user), kind, url=True))
        if password not in _NO_PASSWORD and not _masked(password) and not _HOST_PORTS.match(password):
            self.spans.append(_Span(start + len(user) + 1, end - 1, kind, url=True))
        return end

    def dsn(self, match: re.Match[bytes], _: int) -> int:
        """Judge `user:password@tcp(host:port)` of Go, `thin:user/password@host:port:sid` of Oracle."""
        self.budget -= _ACCEPTED
        form = _DSN_USER if match[0].endswith(b"(") else _ORACLE_USER
        user = form.search(self.data, max(0, match.start() - 192), match.start())
        if user and not _masked(user[1]):
            self._add(*user.span(1))
        return match.end()

    def command(self, match: re.Match[bytes], _: int) -> int:
        """Judge a command line inside a text: `mysql -uroot -px`, `curl -u user:x`."""
        data, end = self.data, match.end()
        within = end + _FLAG_WITHIN
        if self.json:
            within = data.find(b'"', end, within) if match[0][-1:] != b'"' else within
        if not _PASSWORD_FLAG.search(self.low, end, within):
            return end
        position = self._back(match.start(), _NAME_CHARS)
        last = position + _COMMAND_LONGEST
        words: list[tuple[int, bytes]] = []
        if match[0][-1:] in _QUOTES:
            for listed in _LISTED.finditer(data, position, min(last, len(data))):
                words.append((listed.start(1), listed[1]))
                position = listed.end()
        while match[0][-1:] not in _QUOTES and position < last:
            word = _COMMAND_WORD.match(data, position)
            if word is None:
                break
            text = word[0]
            quoted = _quoted(text)
            words.append((position + quoted, text[1:-1] if quoted else text))
            position = _past(_BLANKS, data, word.end())
        self.budget -= len(words)
        for part in _secrets_in([text for _, text in words]):
            offset, text = words[part.word]
            glued = part.start > 0 and _quoted(text[part.start : part.end])
            if not part.environment:
                self._add(offset + part.start + glued, offset + part.end - glued)
        if any(b"\\" in text for _, text in words):
            self.spans.append(_Span(match.start(), match.start(), self.kind))  # in JSON: read it unescaped
        return position


class _Rule(NamedTuple):
    """A pattern, whether it reads the text in lower case, and the method of `_Search` that judges what it finds."""

    pattern: re.Pattern[bytes]
    reads: Literal["low", "as is"]
    judge: str
    before: int = 0
    needs: bytes = b""
    """A byte without which it cannot match; looking for one byte costs nothing."""


_RULES_OF_JSON = (
    _Rule(_P_WORDS, "low", "p_words"),
    _Rule(_S_WORDS, "low", "named"),
    _Rule(_K_WORDS, "low", "k_words"),
    _Rule(_A_WORDS, "low", "named"),
    _Rule(_USERINFO, "low", "userinfo", needs=b"@"),
    _Rule(_FORM_JWT, "as is", "form", 2, needs=b"J"),
    _Rule(_FORM_UNDERSCORE, "as is", "form", -1),
    _Rule(_FORM_G, "as is", "form"),
    _Rule(_FORM_X, "as is", "form"),
    _Rule(_FORM_CRYPT, "as is", "form", needs=b"$"),
    _Rule(_COMMAND_Y, "low", "command"),
    _Rule(_COMMAND_L, "low", "command"),
)
"""Half a millisecond for each megabyte and rule: the fewer, the better, so one letter finds several kinds."""
_RULES = (
    *_RULES_OF_JSON,
    _Rule(_C_WORDS, "low", "c_words"),
    _Rule(_SESSION_WORDS, "low", "named"),
    _Rule(_B_WORDS, "low", "b_words"),
    _Rule(_FORM_A, "as is", "form"),
    _Rule(_FORM_SG, "as is", "form"),
    _Rule(_FORM_HV, "as is", "form"),
    _Rule(_COMMAND_M, "low", "command"),
    _Rule(_GO_DSN, "as is", "dsn", needs=b"@"),
)
"""What is too rare to be looked for in every container's JSON; there names of fields tell."""


class _Part(NamedTuple):
    """What is secret in a command line: a word, from where to where; or a variable that it hands to a container."""

    word: int
    start: int
    end: int
    environment: bool = False


def _secrets_in(args: list[bytes]) -> Iterator[_Part]:
    """Find secrets by flags and names in a command line that is split into words."""
    flags: dict[bytes, str] = {}
    wanted = ""
    if any(arg.endswith(b"htpasswd") for arg in args) and any(_BATCH.match(arg) for arg in args):
        yield _Part(len(args) - 1, 0, len(args[-1]))
    for number, arg in enumerate(args):
        want, wanted = wanted, ""
        if _GUILLEMET in arg and _TOKEN.search(arg):
            continue
        if want == "second":
            wanted = "next"
            continue
        part = _wanted_part(number, arg, want) if want else None
        if part is not None:
            yield part
        elif arg.startswith(b"-"):
            wanted, part = _flag(number, arg, flags)
        elif arg in flags:
            wanted = flags[arg]
        elif not want:
            known = _flags_of(arg)
            flags = flags if known is None else known
            script = b" " in arg and not args[0].startswith(b"|")  # `sh -c "PASSWORD=x psql"`: read as text
            part = _named_part(number, arg) if known is None and b"=" in arg and not script else None
        if part is not None and not want:
            yield part


def _flag(number: int, arg: bytes, flags: dict[bytes, str]) -> tuple[str, _Part | None]:
    """Judge a flag: what it wants of the next word, or the secret that it has in it."""
    name, equals, value = arg.partition(b"=")
    action = flags.get(name, "")
    if not action and _CLUSTER.match(name) and flags.get(b"-" + name[-1:]) == "user":
        action = "user"
    if equals:
        part = _wanted_part(number, value, action) if action in {"user", "env"} else None
        if part is None:
            return "", _named_part(number, arg)
        shift = len(name) + 1
        return "", part._replace(start=part.start + shift, end=part.end + shift)
    if action and action != "glued":
        return ("next" if action == "both" else action), None
    for flag, way in flags.items():
        if (
            way in {"glued", "both"}
            and arg.startswith(flag)
            and len(arg) > len(flag)
            and not _trivial(arg[len(flag) :])
        ):
            return "", _Part(number, len(flag), len(arg))
    return {_STRONG: "strong", _WEAK: "weak"}.get(_level(name), ""), None


def _wanted_part(number: int, arg: bytes, want: str) -> _Part | None:
    """Judge the word after a flag that wants one."""
    if want in {"user", "percent"}:
        at = arg.find(b":" if want == "user" else b"%") + 1
        return _Part(number, at, len(arg)) if 0 < at < len(arg) and not _masked(arg[at:]) else None
    if want == "env":
        return _Part(number, 0, len(arg), environment=True) if b"=" in arg else None
    if not arg or _trivial(arg) or (want != "next" and (arg.startswith(b"-") or _PATH.match(arg))):
        return None
    return _Part(number, 0, len(arg)) if want != "weak" or _random(arg) else None


def _named_part(number: int, arg: bytes) -> _Part | None:
    """Judge `name=value` and `--name=value`."""
    name, _, value = arg.partition(b"=")
    level = _level(name) if len(name) <= _LONG else _PLAIN
    if not value or not level or _trivial(value) or _PATH.match(value) or (value.isdigit() and len(value) < _PIN):
        return None
    start = len(name) + 1
    quoted = _quoted(value)
    return _Part(number, start + quoted, len(arg) - quoted) if level == _STRONG or _random(value) else None


def _relation(separator: bytes) -> str:
    """Say how a name and what follows it belong together."""
    if b"value" in separator:
        return "equals"
    bare = separator.strip(b" \t\\\"'`)],")
    if bare == b">":
        return "element"
    if bare in {b":", b"%3a"}:
        return "colon"
    if bare[:2] == b"is" or bare[:3] in {b"was", b"set"}:
        return "said"
    return "equals" if bare else "blank"


def _quoted(text: bytes) -> bool:
    """Tell whether a word is one quoted string."""
    return len(text) > 1 and text[:1] in {b'"', b"'"} and text.find(text[:1], 1) == len(text) - 1


def _masked(value: bytes) -> bool:
    """Tell whether a password in a URL is none: masked, a variable, a token of ours."""
    return bool(_MASK.match(value) or _REFERENCE.match(value) or _TOKEN.match(value))


def _login_in_user(user: bytes, password: bytes) -> bool:
    """Tell whether the user's name in a URL is the secret: `https://TOKEN@host`, `https://TOKEN:x-oauth-basic@host`."""
    return len(user) >= _RANDOM_HEX and (password in _NO_PASSWORD or len(user) >= 2 * _RANDOM_HEX) and _random(user)


def _only_tokens(value: bytes) -> bool:
    return value.startswith(_GUILLEMET) and not _TOKEN.sub(b"", value).strip()


def _is_login(text: bytes) -> bool:
    """Tell whether base64 is the JSON of a login, as in X-Registry-Auth."""
    try:
        inside = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)).lower()
    except (binascii.Error, ValueError):
        return True
    return any(word in inside for word in (b"password", b"token", b'"auth'))


def _canonical(value: bytes, span: _Span) -> bytes:
    return unquote_to_bytes(value) if span.url and b"%" in value else value


def _merged(spans: list[_Span]) -> list[_Span]:
    """Sort, and make one of those that overlap."""
    out: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if out and span.start < out[-1].end:
            if span.end > out[-1].end:
                out[-1] = out[-1]._replace(end=span.end)
        else:
            out.append(span)
    return out


def _tokenless(data: bytes, spans: list[_Span]) -> list[_Span]:
    """Leave out what a token stands in: it was judged before."""
    tokens = [match.span() for match in _TOKEN.finditer(data)]
    out = []
    for span in spans:
        at = bisect_right(tokens, (span.end, -1)) - 1
        if at < 0 or tokens[at][1] <= span.start:
            out.append(span)
    return out


def _sorted(edits: list[_Edit]) -> list[_Edit]:
    out: list[_Edit] = []
    for edit in sorted(edits):
        if not out or edit.start >= out[-1].end:
            out.append(edit)
    return out


def _cut(data: bytes, edits: list[_Edit], limit: int) -> bytes:
    """Make the edits; withhold what comes after `limit`, from the start of its line."""
    if limit >= len(data):
        return _apply(data, edits)
    cut = data.rfind(b"\n", 0, limit) + 1
    cut = min([cut, *(edit.start for edit in edits if edit.start < cut < edit.end)])
    return _apply(data[:cut], [edit for edit in edits if edit.end <= cut]) + WITHHELD


def _kind_of_string(data: bytes, start: int) -> str:
    """Say what a secret is called in the string of JSON whose content starts at `start`, by the string's name."""
    before = data[max(0, start - _FEW) : start - 1].rstrip(b" :")
    return _STRING_KINDS.get(before[before.rfind(b'"', 0, -1) + 1 : -1], "text")


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return False
    return True


def _tree_how(path: bytes, content: bytes) -> str:
    """Say what a file in a tree is."""
    name = path[path.rfind(b"/") + 1 :]
    if name in {b"environ", b"cmdline"}:
        return name.decode()
    if content[:1] in {b"{", b"["}:
        if name == b"daemon.json":
            return "daemon-json"
        return "docker-config" if path.endswith(b".docker/config.json") else "inspect"
    if name.endswith((b".service", b".socket", b".env")) or (name.endswith(b".conf") and b"systemd/" in path):
        return "unit"
    return "unit" if path.endswith((b"default/docker", b"sysconfig/docker", b"default/containerd")) else ""


def _tree_unescape(content: bytes) -> bytes:
    """Do what `doctor.snapshot.unescape` does, on bytes."""
    return _TREE_ESCAPE.sub(lambda match: _TREE_FROM[match[1]], content) if b"\\" in content else content


def _tree_escape(content: bytes) -> bytes:
    """Do what `doctor.snapshot.escape` does, on bytes."""
    return content.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def removed_text(removed: dict[str, int]) -> str:
    """Say what was removed: `7 secrets (5 in environments, 1 proxy password, 1 label)`."""
    total = sum(removed.values())
    if not total:
        return "no secrets"
    order = sorted(removed.items(), key=lambda item: -item[1])
    parts = [f"{count} {KINDS.get(kind, (kind, kind + 's'))[count != 1]}" for kind, count in order if count]
    return f"{total} {'secret' if total == 1 else 'secrets'} ({', '.join(parts)})"


def leaks(artefact: bytes | str, redactor: Redactor) -> list[str]:
    """Name the secrets of a collect that stand in a finished report or bundle: who gets any must not write it.

    Never the values: `secret 7`.
    """
    return redactor.found(artefact.encode("utf-8", "replace") if isinstance(artefact, str) else artefact)
