"""Many files in one record (`doctor.lines`): what each is, its path says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from doctor.redact.edits import Edit, apply, cut_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.redact.settings import Settings
    from doctor.redact.texts import Texts

_CMDLINE = re.compile(rb"^\d+/cmdline\tf\t[\d.]+\t([^\n]+)", re.MULTILINE)

_OWN = re.compile(
    rb"(?:/[\w.+/-]*/)?(?:"
    rb"docker-proxy(?:\0-(?:proto|host-ip|host-port|container-ip|container-port)\0(?:tcp|udp|sctp|[0-9a-f.:]{1,45}))+"
    rb"(?:\0-use-listen-fd)?"
    rb"|containerd-shim-runc-v2\0-namespace\0moby\0-id\0[0-9a-f]{64}\0-address\0/[\w./-]{1,128}"
    rb")\0?\Z"
)
"""Command lines that the engine writes, of numbers, addresses and ids: two of three on a host, and nobody's secret."""

_FIELD_COUNT = 4
_TREE_ESCAPE = re.compile(rb"\\([\\tnr])")
_TREE_FROM = {b"\\": b"\\", b"t": b"\t", b"n": b"\n", b"r": b"\r"}


def tree(data: bytes, texts: Texts, scrub: Callable[[bytes, str], tuple[bytes, int]]) -> bytes:
    """Scrub the content of each line by what its path or its first character says it is."""
    files: list[Edit] = []
    end = 0
    while (at := data.find(b"\tf\t", end)) >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        fields = data[start:end].split(b"\t")
        how = _tree_how(fields[0], fields[3]) if len(fields) == _FIELD_COUNT else ""
        if how:
            old = tree_unescape(fields[3])
            new, _ = scrub(old, how)
            if new is not old:
                files.append(Edit(end - len(fields[3]), end, tree_escape(new)))
    new = apply(data, files)
    spans, limit = texts.spans(new, new.lower(), "text", everything=True)
    edits: list[Edit] = []
    done = 0
    for span in spans:
        if span.start < done:
            continue
        start = max(new.rfind(b"\n", 0, span.start), new.rfind(b"\t", 0, span.start)) + 1
        ends = [end for end in (new.find(b"\n", span.start), new.find(b"\t", span.start)) if end >= 0]
        done = min(ends, default=len(new))
        old = new[start:done]
        scrubbed = texts.text(tree_unescape(old))
        if scrubbed != tree_unescape(old):
            edits.append(Edit(start, done, tree_escape(scrubbed)))
    return cut_off(new, edits, limit)


def processes(data: bytes, settings: Settings) -> bytes:
    """Scrub the command lines of a scan of /proc; nothing else in it is anybody's word but the kernel's."""
    edits = []
    scrubbed: dict[bytes, bytes] = {}
    for line in _CMDLINE.finditer(data):
        old = line[1]
        if _OWN.match(old):
            continue
        new = scrubbed.get(old)
        if new is None:
            plain = tree_unescape(old)
            clean = settings.cmdline(plain)
            new = scrubbed[old] = old if clean == plain else tree_escape(clean)
        if new != old:
            edits.append(Edit(line.start(1), line.end(1), new))
    return apply(data, edits)


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


def tree_unescape(content: bytes) -> bytes:
    """Do what `doctor.snapshot.unescape` does, on bytes."""
    return _TREE_ESCAPE.sub(lambda match: _TREE_FROM[match[1]], content) if b"\\" in content else content


def tree_escape(content: bytes) -> bytes:
    """Do what `doctor.snapshot.escape` does, on bytes."""
    return content.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
