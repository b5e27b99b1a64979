"""How many and how much, in words for a person: reports and findings say it alike."""

from __future__ import annotations


def plural(count: int, one: str, many: str = "") -> str:
    """Say how many: `1 cause`, `2 causes`.

    >>> plural(1, "cause"), plural(0, "cause")
    ('1 cause', '0 causes')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def sized(count: int) -> str:
    """Print a number of bytes as df -h counts them.

    >>> sized(7838315315), sized(32454996), sized(5120), sized(17)
    ('7.3 GiB', '30 MiB', '5 KiB', '17 bytes')
    """
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    for unit, shift in (("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"
