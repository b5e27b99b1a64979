"""Which names are those of secrets: of variables, labels, options, flags, fields."""

from __future__ import annotations

import re
from itertools import pairwise

from doctor.redact.limits import MEMO

STRONG, WEAK, PLAIN = 2, 1, 0

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
KEPT_ENV = frozenset(
    b"PATH HOME LANG LANGUAGE TERM TZ HOSTNAME USER LOGNAME SHELL SHLVL PWD OLDPWD _ NO_PROXY CONTAINER DEBIAN_FRONTEND "
    b"GOPATH GOROOT GOTOOLCHAIN GODEBUG GOGC GOMAXPROCS GOMEMLIMIT GOTRACEBACK JAVA_HOME JRE_HOME CATALINA_HOME "
    b"CARGO_HOME RUSTUP_HOME GEM_HOME NODE_ENV NODE_PATH PYTHONPATH PYTHONHOME PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE "
    b"PYTHONIOENCODING PGDATA LD_LIBRARY_PATH LD_PRELOAD COLUMNS LINES TMPDIR TEMP UMASK NOTIFY_SOCKET MAINPID "
    b"INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH DOCKER_TLS_VERIFY DOCKER_TLS DOCKER_CERT_PATH "
    b"DOCKER_CONFIG DOCKER_TMPDIR DOCKER_RAMDISK DOCKER_CONTENT_TRUST DOCKER_BUILDKIT DOCKER_API_VERSION DOCKER_CONTEXT "
    b"DOCKER_DRIVER DOCKER_MIN_API_VERSION DOCKER_NOFILE DOCKER_LOGFILE DOCKER_SSD_PIDFILE BUILDKIT_PROGRESS "
    b"DOCKER_ALLOW_SCHEMA1_PUSH_DONOTUSE DOCKER_INSECURE_NO_IPTABLES_RAW DOCKER_IGNORE_BR_NETFILTER_ERROR".split()
)
KEPT_PREFIXES = (b"LC_", b"XDG_", b"LISTEN_", b"DOCKERD_ROOTLESS_", b"NVIDIA_", b"SNAP_", b"MOBY_", b"OTEL_TRACES_")
FLAG_ENV = frozenset(
    b"DOCKER_OPTS DOCKERD_OPTS DOCKER_ARGS OPTIONS DOCKER_STORAGE_OPTIONS DOCKER_NETWORK_OPTIONS DOCKER_ULIMITS".split()
)
"""Flags of dockerd in a file of the distribution: they are evidence, so only the secrets in them go."""


def _words(name: bytes) -> list[bytes]:
    """Split a name at case changes, digits and punctuation: `splunkToken_2` is splunk, token."""
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return words


_levels: dict[bytes, int] = {}


def level_of(name: bytes) -> int:
    """Judge a name: `STRONG` holds a secret, `WEAK` only when the value looks random, `PLAIN` none."""
    level = _levels.get(name)
    if level is not None:
        return level
    if len(_levels) > MEMO:
        _levels.clear()
    level = _levels[name] = _judge(_words(name)) if _SUSPECT.search(name.lower()) else PLAIN
    return level


_SUSPECT = re.compile(
    rb"pass|pw|psk|psw|secre|token|cred|key|dsn|jwt|bearer|cookie|otp|kennwort|auth|private|access|salt|licen|sig|sess|sid|hmac|"
    rb"hook|seed|pin|user|conn|cert|pem"
)


def _judge(words: list[bytes]) -> int:
    joined = b"".join(words)
    found = set(words)
    if not words or joined in _HARMLESS or found & _PUBLIC:
        return PLAIN
    if words[-1] in _ABOUT:
        return STRONG if found & {b"webhook", b"hook"} else PLAIN
    if found & _STRONG_WORDS or _GLUED.search(joined):
        return STRONG
    for before, word in pairwise(words):
        if (word in {b"key", b"keys"} and before in _KEY_OWNERS) or (
            word in {b"string", b"str"} and before[:4] == b"conn"
        ):
            return STRONG
    last = words[-2] if len(words) > 1 and words[-1] in _SUFFIXES else words[-1]
    return WEAK if last in _WEAK_WORDS or last[-4:] == b"auth" else PLAIN


_env_levels: dict[bytes, int] = {}


def env_level(name: bytes) -> int:
    """Judge the name of an environment variable, where more words are suspicious."""
    level = _env_levels.get(name)
    if level is None:
        if len(_env_levels) > MEMO:
            _env_levels.clear()
        words = _words(name)
        level = _judge(words)
        if (
            level == PLAIN
            and _ENV_SECRET.intersection(words)
            and not (_PUBLIC.intersection(words) or words[-1] in _ABOUT)
        ):
            level = WEAK
        _env_levels[name] = level
    return level
