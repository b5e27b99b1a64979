"""The command `doctor`. `--version` is answered here, before anything that takes time is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from doctor import __version__

        sys.stdout.write(f"doctor {__version__}\n")
        sys.exit(0)
    from doctor.start import run

    run()


if __name__ == "__main__":
    main()
