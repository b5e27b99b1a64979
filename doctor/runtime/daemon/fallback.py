"""What the built-in image is made of where a machine has no busybox: the Python that runs us, and the machine's own programs.

A shell and what goes with it is on every machine, linked to libraries of its own. What is not (httpd, nc, ...) is
`doctor.runtime.daemon.applets`, run by the interpreter that we are run by, with no more of its library than that imports: in
one archive, where an interpreter looks for it before all else (`sys.path`, pythonXY.zip).
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import sys
import zipfile
from pathlib import Path

from doctor.linux import spawn
from doctor.runtime.daemon import applets
from doctor.runtime.daemon.elf import needs
from doctor.runtime.daemon.tarsplit import Entry

_HOSTS = (
    "[ awk base64 basename cat chgrp chmod chown cmp cp cut date dd df diff dirname du echo env expr false find free grep "
    "head hostname id ip kill ln ls md5sum mkdir mkfifo mknod mktemp more mount mv nohup nproc od pgrep pidof pkill "
    "printf ps pwd readlink realpath rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync sysctl tail tee test "
    "timeout touch tr true truncate tty umount uname uniq unshare uptime wc which whoami xargs yes"
)
"""Programs of the machine that are taken where it has them."""
_ASKED = """\
import __future__, os, select, signal, socket, struct, sys, time, warnings
print(next(one for one in sys.path if one.endswith(".zip")))
for name, module in sorted(sys.modules.items()):
    spec = module.__spec__
    if spec is not None and spec.has_location:
        print(name, spec.submodule_search_locations is not None, spec.origin, sep="\\t")
"""
_STARTER = "#!/usr/bin/python3 -IS\nimport sys\nimport applets\nsys.exit(applets.main())\n"
_SECONDS, _BYTES = 20.0, 1 << 20


def files() -> tuple[dict[str, Entry], str]:
    """Give the files of the image, by path, and of what they were made. Raises OSError."""
    python = Path(os.path.realpath(sys.executable or ""))
    found = _interpreter(python)
    found |= {f"bin/{name}": Entry(f"bin/{name}", 0o755, _STARTER.encode()) for name in applets.NAMES}
    for name in _HOSTS.split():
        program = _program(name)
        if program is not None:
            found |= _with_libraries(program, f"bin/{name}")
    if "bin/sh" not in found:
        raise FileNotFoundError(2, "no busybox on this machine, and no shell", "/bin/sh")
    return found, f"{python} and programs of this machine"


def _interpreter(python: Path) -> dict[str, Entry]:
    """Give the interpreter at its own place, where it finds what it needs, and what it imports."""
    done = spawn.run((str(python), "-IS", "-c", _ASKED), deadline_seconds=_SECONDS, limit_bytes=_BYTES)
    if done.returncode:
        raise FileNotFoundError(2, "no busybox on this machine, and no Python", str(python))
    place, *lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    found = _with_libraries(python, str(python).lstrip("/"))
    found["usr/bin/python3"] = found.get("usr/bin/python3") or Entry("usr/bin/python3", 0o777, link=str(python))
    modules = {"applets.pyc": _compiled(Path(applets.__file__))}
    for line in lines:
        name, package, origin = line.split("\t")
        if origin.endswith(".py"):
            inside = name.replace(".", "/") + ("/__init__.pyc" if package == "True" else ".pyc")
            modules[inside] = _compiled(Path(origin))
        else:
            found |= _with_libraries(Path(origin), origin.lstrip("/"))
    path = place.lstrip("/")
    found[path] = Entry(path, 0o644, _archived(modules))
    return found


def _compiled(source: Path) -> bytes:
    """Compile a module, for which no source is looked for (PEP 552, a hash that is not checked)."""
    code = compile(source.read_bytes(), source.name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)


def _archived(modules: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in sorted(modules.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def _program(name: str) -> Path | None:
    """Find a program of the machine that is one: no script."""
    for folder in spawn.PATH.split(":"):
        path = Path(os.path.realpath(f"{folder}/{name}"))
        try:
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    return path
        except OSError:
            continue
    return None


def _with_libraries(program: Path, inside: str) -> dict[str, Entry]:
    """Give a program, or a library that is loaded, and what it needs."""
    found = {inside: Entry(inside, 0o755, program.read_bytes())}
    for library in needs(program):
        path = str(library).lstrip("/")
        found[path] = Entry(path, 0o755, library.read_bytes())
    return found
