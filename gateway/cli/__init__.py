"""The command `guantong`."""

from __future__ import annotations


def main() -> None:
    """Entry point of the command; imports late, so that `--help` is quick."""
    from gateway.cli.app import app

    app()
