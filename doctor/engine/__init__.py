"""Pure knowledge of moby, per generation: options, names, the words of its errors, the chains it writes.

Nothing here does I/O. Its truth is tested against live engines (`tests/engine/`), never against our own labs.
"""

from __future__ import annotations
