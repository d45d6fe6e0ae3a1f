"""What the tests that start several processes share."""

from __future__ import annotations

import socket


def free_port() -> str:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
