"""Write the part of docs/ that is made from code: a page for each check, the command line, what is read, the schema.

Run as `python -m tools.docs`; with `--check` nothing is written, and the exit code is 1 when a file is not as it would be.
"""

from __future__ import annotations

import json
import re
import sys
from inspect import cleandoc
from pathlib import Path
from typing import Any

from doctor import help as pages
from doctor import sources
from doctor.amounts import sized
from doctor.asking import MANY
from doctor.labs import catalogue
from doctor.labs.faults import KINDS
from doctor.labs.replaying import ROOT_ALONE
from doctor.registry import AREAS, Check, load, sections
from doctor.reports import reach, why
from doctor.reports.json import schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Made by `make docs`: change {}, not this file. -->\n"
COMMANDS = {"By hand"}
"""Headings whose text is commands."""

CHECKS: dict[str, Check] = load(plugins=False).checks


def made() -> dict[str, str]:
    """Give every generated file: its path below docs/, its text."""
    files = {f"checks/{code}.md": page(check) for code, check in CHECKS.items()}
    files["checks/README.md"] = index()
    files["cli.md"] = command_line()
    files["evidence.md"] = evidence()
    files["scenarios.md"] = scenarios()
    files["reach.schema.json"] = json.dumps(_clean(reach.schema()), indent=1, ensure_ascii=False) + "\n"
    files["why.schema.json"] = json.dumps(_clean(why.schema()), indent=1, ensure_ascii=False) + "\n"
    files["report.schema.json"] = json.dumps(_clean(schema()), indent=1, ensure_ascii=False) + "\n"
    return files


def _clean(value: Any, key: str = "") -> Any:
    """Take the indentation out of descriptions: they are docstrings, which the compiler cleans from 3.13 on only."""
    if isinstance(value, dict):
        return {name: _clean(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_clean(one) for one in value]
    return cleandoc(value) if key == "description" and isinstance(value, str) else value


def page(check: Check) -> str:
    """Give the page of a check."""
    module = check.run.__module__.replace(".", "/")
    lines = [
        NOTE.format(f"the docstring in {module}.py"),
        f"# {check.code} {check.name}\n",
        f"{check.summary}\n",
        f"{check.severity.value}, {check.area}; `doctor explain {check.code}` prints this page offline.\n",
    ]
    for heading, text in sections(check.page).items():
        lines.append(f"## {heading}\n")
        lines.append(f"```sh\n{text}\n```\n" if heading in COMMANDS else f"{_linked(_escaped(text))}\n")
        if heading == "What you see" and check.says:
            lines.append("Also: " + _escaped("; ".join(f'"{phrase}"' for phrase in check.says)) + "\n")
    if check.explains:
        lines.append("## Explains\n")
        lines.append("Where it is found, these are its consequences: " + _linked(", ".join(check.explains)) + "\n")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Keep Markdown from reading markup into text: outside of `code`, `<` and `*` and `_` stand for themselves."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_])", r"\\\1", part) for part in parts)


def _linked(text: str) -> str:
    """Link every code that has a page."""
    return re.sub(
        r"\b[A-Z]{3}\d{3}\b", lambda match: f"[{match[0]}]({match[0]}.md)" if match[0] in CHECKS else match[0], text
    )


def index() -> str:
    """Give the list of all checks by area."""
    lines = [NOTE.format("the checks"), f"# The {len(CHECKS)} checks\n"]
    for area in dict.fromkeys(AREAS.values()):
        held = [check for check in CHECKS.values() if check.area == area]
        if held:
            lines += [f"## {area.capitalize()}\n", "| code | name | | |", "| --- | --- | --- | --- |"]
            lines += [
                f"| [{one.code}]({one.code}.md) | `{one.name}` | {one.severity.value} | {_escaped(one.summary)} |"
                for one in held
            ]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def command_line() -> str:
    """Give what every --help prints."""
    lines = [NOTE.format("doctor/help.py"), "# The command line\n", f"```text\n{pages.TOP}```\n"]
    for name in ("check", "why", "trace", "explain", "rules", "collect", "lab", "runtime"):
        lines += [f"## doctor {name}\n", f"```text\n{pages.wanted([name, '--help'])}```\n"]
    return "\n".join(lines).rstrip() + "\n"


_HOW = {
    "file": "file",
    "tail": "end of a file",
    "tree": "small files below",
    "list": "names in",
    "command": "run",
    "api": "GET",
}


_ALSO = """\
Each with a bound on time and size; what is in braces is where this host's dockerd has it. Also, as often as there are any:

- by the API: `/_ping`, and `GET {list}` first and again last, then each container's inspect
- of each container on disk: {files}; of one that the daemon does not tell of, {state} too
- of each process: `/proc/PID/stat` and its network namespace; the command line, cgroup and namespaces only of an engine and
  of what runs in containers, the threads' states only of dockerd
- of each network namespace, by netlink: links, addresses, routes, rules, neighbours, listening sockets; its firewall rules
  where it has any
- of the files that `tlscert` and `tlscacert` name the certificates and nothing else; of `tlskey` its rights, never its content
- of whoever runs doctor, or called sudo for it, where docker(1) goes: `DOCKER_HOST`, `DOCKER_CONTEXT`, of `~/.docker` the
  name and the address of the current context; names of users in addresses are left out
- the names and kinds of the sandboxes in `{{exec_root}}/netns`
- how many files dockerd holds open (`/proc/{{pid}}/fd`, counted), and where in its PATH the programs are that it starts
- with `--sample` the files of control groups twice more, as far apart as it says
- with `--probe` only, and the only thing that is sent: one question to each nameserver of this host and of its running
  containers, by UDP and by TCP, from the network namespace that asks it; {many} pairs of namespace and server at most, 2 s
"""


def evidence() -> str:
    """Give the table of what is read, run and asked."""
    files = ", ".join(f"`{name}`" for name, _ in sources.CONTAINER_FILES)
    state = ", ".join(f"`{name}`" for name, _ in sources.CONTAINER_STATE)
    lines = [
        NOTE.format("doctor/sources.py"),
        "# What is read\n",
        _ALSO.format(many=MANY, list=sources.LIST, files=files, state=state),
        "| | what | for | at most | only where the kernel has |",
        "| --- | --- | --- | --- | --- |",
    ]
    seen = set()
    for one in sources.SOURCES:
        if one.name in seen:
            continue
        seen.add(one.name)
        lines.append(
            f"| {_HOW[one.kind]} | `{one.target}` | {one.area} | {sized(one.limit)}, {one.seconds:g} s"
            f" | {', '.join(one.touches)} |"
        )
    return "\n".join(lines) + "\n"


_PLAYED = {"20.10": "20.10", "26": "26.1", "28": "28.5"}
"""The dialect of a scenario → the live engine of the tests that speaks it."""

_SCENARIOS = """\
Each is a host that is healthy, then broken; `doctor lab run NAME` leaves a shell in it. Each is proved: the healthy host is
silent, the fault changes what is measured, its code is found, its cause is the first, its neighbours are silent, the cure as
printed heals, and nothing is left. `doctor lab replay NAME` does so in labs, in every dialect of the table;
`tests/engine/test_scenarios.py` does so on live engines.

A dialect is the generation of the engine whose rules and words the lab has. *Engines* are those that the fault can be put
on; *who* may play it in a lab: anybody whom the kernel lets have namespaces, or root alone; or nobody, as long as the
runtime cannot do it, and then it is played on live engines alone.
"""


def scenarios() -> str:
    """Give the table of all scenarios, and what is said of each."""
    every = list(catalogue.scenarios())
    lines = [NOTE.format("scenarios/"), f"# The {len(every)} scenarios\n", _SCENARIOS]
    for area in sorted({one.area for one in every}):
        lines += [f"## {area.capitalize()}\n", "| scenario | code | dialects | engines | who | |", "|" + " --- |" * 6]
        for one in every:
            if one.area != area:
                continue
            code = one.expect.root or one.expect.codes[0]
            engines = [] if one.live else [_PLAYED[name] for name in one.dialects if name in _PLAYED]
            who = "nobody yet" if one.lab else "root" if ROOT_ALONE & {*one.needs} else "anybody"
            cells = (f"`{one.name}`", f"[{code}](checks/{code}.md)", ", ".join(one.dialects), ", ".join(engines), who)
            lines.append("| " + " | ".join(cells) + f" | {_escaped(one.title)} |")
        lines.append("")
    lines += [
        "## Faults\n",
        "What may stand in a file behind `kind` in `[[fault]]`, `[[prepare]]` and `[[person]]`, with its keys. Words in",
        "braces, as `{veth:web}`, are filled in when the host is up.\n",
        "| kind | keys | |",
        "| --- | --- | --- |",
    ]
    for kind, fault in KINDS.items():
        keys = ", ".join(f"`{name}`" for name in fault.__struct_fields__)
        lines.append(f"| `{kind}` | {keys} | {_escaped(cleandoc(fault.__doc__ or '').split(chr(10) * 2)[0])} |")
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    """Write what differs, and remove pages of checks that are gone; or only say so."""
    checking = "--check" in arguments
    files = made()
    stale = []
    for name, text in files.items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not checking:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in sorted((DOCS / "checks").glob("*.md")):
        if f"checks/{path.name}" not in files:
            stale.append(f"checks/{path.name}")
            if not checking:
                path.unlink()
    for name in stale:
        print(f"docs/{name}: {'is stale: make docs' if checking else 'written'}")
    return 1 if checking and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
