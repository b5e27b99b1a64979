"""What free text is searched for: patterns, each of which starts with a literal, and who judges what they find."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

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

_USERINFO = re.compile(rb"://(?:[^\s\"'<>/?#@`]{1,512}+@|[a-z0-9._%+\-]{1,64}+:(?!\d{1,5}/)[^\s\"'<>@`:]{1,96}+@)")

_GO_DSN = re.compile(rb"@(?:(?:tcp|unix)\(|(?=[\w./\-]{0,64}:\d{2,5}[:/]))")

_COMMAND_M = re.compile(rb"m(?:ariadb|ongo)[a-z\-]{0,16} ")
_COMMAND_Y = re.compile(rb"ysql[a-z\-]{0,16}[ \"']")
_COMMAND_L = re.compile(rb"l(?:dap[a-z]{3,12} |ogin |i (?<=redis-cli )|cmd (?<=sqlcmd )| (?<=curl |dctl |qctl ))")
"""Where programs that take passwords are called inside a text (the last letters of some suffice to find them)."""


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


class Rule(NamedTuple):
    """A pattern, whether it reads the text in lower case, and the method of `Search` that judges what it finds."""

    pattern: re.Pattern[bytes]
    reads: Literal["low", "as is"]
    judge: str
    before: int = 0
    needs: bytes = b""
    """A byte without which it cannot match; looking for one byte costs nothing."""


RULES_OF_JSON = (
    Rule(_P_WORDS, "low", "p_words"),
    Rule(_S_WORDS, "low", "named"),
    Rule(_K_WORDS, "low", "k_words"),
    Rule(_A_WORDS, "low", "named"),
    Rule(_USERINFO, "low", "userinfo", needs=b"@"),
    Rule(_FORM_JWT, "as is", "form", 2, needs=b"J"),
    Rule(_FORM_UNDERSCORE, "as is", "form", -1),
    Rule(_FORM_G, "as is", "form"),
    Rule(_FORM_X, "as is", "form"),
    Rule(_FORM_CRYPT, "as is", "form", needs=b"$"),
    Rule(_COMMAND_Y, "low", "command"),
    Rule(_COMMAND_L, "low", "command"),
)
"""Half a millisecond for each megabyte and rule: the fewer, the better, so one letter finds several kinds."""
RULES = (
    *RULES_OF_JSON,
    Rule(_C_WORDS, "low", "c_words"),
    Rule(_SESSION_WORDS, "low", "named"),
    Rule(_B_WORDS, "low", "b_words"),
    Rule(_FORM_A, "as is", "form"),
    Rule(_FORM_SG, "as is", "form"),
    Rule(_FORM_HV, "as is", "form"),
    Rule(_COMMAND_M, "low", "command"),
    Rule(_GO_DSN, "as is", "dsn", needs=b"@"),
)
"""What is too rare to be looked for in every container's JSON; there names of fields tell."""
