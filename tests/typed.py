"""What a person types at doctor, answered in this process: what a start costs is no part of most tests."""

from __future__ import annotations

import io
import sys
from subprocess import CompletedProcess

from doctor.start import execute


def typed(*words: str, stdin: bytes = b"") -> CompletedProcess[str]:
    """Carry out `doctor WORDS`; the streams are pipes, as those of a process whose output is captured.

    That a process says the same is a test of tests/cli/; what it imports, one of tests/meta/test_start.py.
    """
    streams = [io.TextIOWrapper(io.BytesIO(one), "utf-8", errors="backslashreplace") for one in (stdin, b"", b"")]
    held = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = streams
    try:
        code = execute(list(words))
        said = []
        for stream in streams[1:]:
            stream.flush()
            said.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]  # BytesIO, see above
    finally:
        sys.stdin, sys.stdout, sys.stderr = held
    return CompletedProcess(words, code, *said)
