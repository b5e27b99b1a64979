"""What a program needs to be run: its interpreter and libraries, read from its own headers (elf(5), ld.so(8)).

Nothing is executed to find out, as ldd(1) would. Of a program for another machine, or a script, nothing is needed.
"""

from __future__ import annotations

import struct
from pathlib import Path

_FOLDERS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
_INTERP, _DYNAMIC, _LOAD = 3, 2, 1
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29
_HEADER = 64


def needs(program: Path) -> list[Path]:
    """Give the files that a program needs beside itself, each by the path under which it is looked for.

    Raises OSError where the program or one of them cannot be read.
    """
    found: dict[str, Path] = {}
    waiting = [program]
    while waiting:
        path = waiting.pop()
        interpreter, names, folders = _read(path.read_bytes(), str(path.parent))
        if interpreter and interpreter not in found:
            found[interpreter] = Path(interpreter)
        for name in names:
            if any(Path(one).name == name for one in found):
                continue
            place = _find(name, (*folders, *_multiarch()))
            if place is None:
                raise FileNotFoundError(2, "no such library", name)
            found[str(place)] = place
            waiting.append(place)
    return list(found.values())


def _multiarch() -> tuple[str, ...]:
    own = [str(folder) for folder in Path("/lib").glob("*-linux-gnu*")]
    return (*own, *(f"/usr{folder}" for folder in own), *_FOLDERS)


def _find(name: str, folders: tuple[str, ...]) -> Path | None:
    return next((Path(folder, name) for folder in folders if Path(folder, name).is_file()), None)


def _read(data: bytes, origin: str) -> tuple[str, list[str], list[str]]:
    """Give interpreter, names of libraries, and folders that the file names; nothing for what is no ELF of 64 bits."""
    if data[:5] != b"\x7fELF\x02" or len(data) < _HEADER or data[5] != 1:
        return "", [], []
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, offset + at * size) for at in range(count)]
    interpreter = ""
    dynamic: list[tuple[int, int]] = []
    for kind, _, start, _, _, length in segments:
        if kind == _INTERP:
            interpreter = data[start : start + length].rstrip(b"\0").decode()
        elif kind == _DYNAMIC:
            dynamic = [struct.unpack_from("<QQ", data, start + at) for at in range(0, length, 16)]
    table = next((value for tag, value in dynamic if tag == _STRTAB), 0)
    for kind, _, start, address, _, length in segments:
        if kind == _LOAD and address <= table < address + length:
            table += start - address
            break

    def text(at: int) -> str:
        return data[table + at : data.index(b"\0", table + at)].decode("utf-8", "replace")

    folders = [text(at) for tag, at in dynamic if tag in {_RPATH, _RUNPATH}]
    ways = [one.replace("$ORIGIN", origin) for folder in folders for one in folder.split(":")]
    return interpreter, [text(at) for tag, at in dynamic if tag == _NEEDED], ways
