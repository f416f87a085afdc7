#!/usr/bin/env python3
"""Is a role of the gateway alive? Exit code 0: yes; 1: no, with the reason on standard output.

    guantong-health                       the API on its default port
    guantong-health collect               collect's /health/live; ingest and serve likewise
    guantong-health http://127.0.0.1:8000/health/live
    guantong-health tcp://simulators:48401

It answers for life only. Whether the gateway is *ready* (devices, broker and store reached) is said with reasons by /health/ready;
restarting a container because a machine is switched off would help nobody.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT = 4.0


def address_of(what: str) -> str:
    """The URL to ask for a role's name; a URL stays what it is. Ports are those that the environment sets, else the defaults."""
    if "://" in what:
        return what
    if what == "serve":
        return f"http://127.0.0.1:{os.environ.get('GUANTONG_API_PORT') or 8000}/health/live"
    if what in ("collect", "ingest"):
        default = {"collect": "9101", "ingest": "9102"}[what]
        return f"http://127.0.0.1:{os.environ.get(f'GUANTONG_METRICS_{what.upper()}_PORT') or default}/health/live"
    raise ValueError(f"{what!r} is no role; write collect, ingest, serve, or a URL of http:// or tcp://")


def trouble(what: str) -> str:
    """Empty when it answers, else why not."""
    try:
        url = urllib.parse.urlsplit(address_of(what))
        if url.scheme == "tcp":
            with socket.create_connection((url.hostname, url.port or 0), timeout=TIMEOUT):
                return ""
        with urllib.request.urlopen(url.geturl(), timeout=TIMEOUT) as answer:
            answer.read(1)
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.url} answers {error.code}"
    except (OSError, ValueError) as error:
        return f"{what}: {error}"


def main() -> int:
    """Asks for each name or URL on the command line."""
    reasons = [reason for what in sys.argv[1:] or ["serve"] if (reason := trouble(what))]
    for reason in reasons:
        sys.stdout.write(reason + "\n")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
