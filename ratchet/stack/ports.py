"""Free loopback ports that stay free until their server binds them, as far as that can be had."""

import contextlib
import random
import socket
from pathlib import Path

LOWEST = 15_000


def _below_ephemeral() -> int:
    # Outgoing connections take ports from here upwards, at any moment: ours lie below.
    with contextlib.suppress(OSError, ValueError, IndexError):
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if low >= LOWEST + 1000:
            return low
    return 32_768


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could bind the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """So many different free ports. Drawn at random, so that two stacks which start at once do not meet."""
    draw = random.SystemRandom()
    found: list[int] = []
    for _ in range(10_000):
        if len(found) == count:
            return found
        port = draw.randrange(LOWEST, _below_ephemeral())
        if port not in found and is_free(port):
            found.append(port)
    raise OSError(f"no {count} free ports between {LOWEST} and {_below_ephemeral()}")


def free_port() -> int:
    """One free port."""
    return free_ports(1)[0]
