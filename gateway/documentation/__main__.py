"""`python -m gateway.documentation FOLDER` writes the documentation as HTML that needs no server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.documentation.site import site


def main(arguments: list[str] | None = None) -> int:
    """Writes the files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway.documentation", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    number = site(served=False).write(folder)
    sys.stdout.write(f"{number} files in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
