"""The network: sockets of every kind, and what on the host they would reach.

Where a connection can be tried it is, to a listener on the host; elsewhere it counts if the kernel is asked at all.
"""

import functools
import secrets
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.attack.attack import (
    FILTER,
    HOST_NAMESPACES,
    HOST_ROOT,
    Attack,
    Program,
    Seen,
    excerpt,
    new_token,
)
from benchmarks.attack.service import Service

attack = functools.partial(Attack, category="network")
SECONDS = 1.0


def _receive(listener: socket.socket) -> bytes:
    """What the first connection (or datagram) brings."""
    listener.settimeout(SECONDS)
    try:
        if listener.type == socket.SOCK_DGRAM:
            return listener.recv(100)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(SECONDS)
            return connection.recv(100)
    except TimeoutError:
        return b""


@dataclass(frozen=True)
class Connects:
    """Whether the program's word arrives at a listener on the host, of which it is told the address."""

    family: socket.AddressFamily
    kind: socket.SocketKind = socket.SOCK_STREAM
    abstract: bool = False

    def __call__(self, service: Service) -> Seen:
        token = new_token()
        with (
            tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
            socket.socket(self.family, self.kind) as listener,
        ):
            listener.bind(self._address(folder))
            if self.kind == socket.SOCK_STREAM:
                listener.listen()
            given = {"FAMILY": int(self.family), "KIND": int(self.kind), "ADDRESS": listener.getsockname()}
            with ThreadPoolExecutor(1) as threads:
                heard = threads.submit(_receive, listener)
                answer = Program(CONNECT, given=given).answer(service, token)
                word = heard.result()
        return Seen(word == token[::-1].encode(), excerpt(answer["run_result"]))

    def _address(self, folder: str) -> tuple[str, int] | str:
        if self.family != socket.AF_UNIX:
            return ("::1" if self.family == socket.AF_INET6 else "127.0.0.1", 0)
        return "\0ratchet-attack-" + secrets.token_hex(8) if self.abstract else str(Path(folder) / "socket")


CONNECT = """
import socket
with socket.socket(FAMILY, KIND) as sock:
    sock.connect(ADDRESS)
    sock.send(TOKEN[::-1].encode())
"""


def reaches_the_service(service: Service) -> Seen:
    """Asks the service itself, over its own port."""
    given = {"PORT": service.http.base_url.port}
    return Program(
        """
import urllib.request
proof(b"sandbox" in urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2).read())
""",
        given=given,
    )(service)


def is_reached(service: Service) -> Seen:
    """Listens, and is found by a connection from the host."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(Program(LISTEN, run_timeout=1.5, given={"PORT": port}).answer, service)
        word = b""
        while not run.done() and not word:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
                    word = connection.recv(100)
            except OSError:
                continue
        answer = run.result()
    return Seen(word == b"hello", excerpt(answer["run_result"]))


LISTEN = """
import socket
with socket.create_server(("127.0.0.1", PORT)) as listener:
    listener.settimeout(1)
    connection, _ = listener.accept()
    connection.send(b"hello")
    connection.close()
"""


def host_name(service: Service) -> Seen:
    """Finds out on which machine it is."""
    return Program("proof(os.uname().nodename == NAME)", given={"NAME": socket.gethostname()})(service)


def interfaces(service: Service) -> Seen:
    """Finds an interface beside its own loopback."""
    names = [name for name in psutil.net_if_addrs() if name != "lo"]
    code = "import socket\nproof(bool({name for _, name in socket.if_nameindex()} & set(NAMES)))"
    return Program(code, given={"NAMES": names})(service)


KINDS = {
    "Netlink": (16, 3, 0),
    "raw packets": (17, 3, 768),
    "raw IP": (2, 3, 1),
    "ping": (2, 2, 1),
    "VSOCK": (40, 1, 0),
    "the kernel's cryptography": (38, 5, 0),
    "Bluetooth": (31, 3, 1),
    "CAN": (29, 3, 1),
    "XDP": (44, 3, 0),
    "TIPC": (30, 2, 0),
    "SCTP": (2, 5, 132),
}
"""Family, type, protocol. Some need privileges, which the program takes first where it can."""

ATTACKS = [
    attack(
        name="connects to the host by TCP",
        probe=Connects(socket.AF_INET),
        without=HOST_NAMESPACES,
        local=True,
    ),
    attack(
        name="connects to the host by TCP, version 6",
        probe=Connects(socket.AF_INET6),
        without=HOST_NAMESPACES,
        local=True,
    ),
    attack(
        name="sends the host a datagram",
        probe=Connects(socket.AF_INET, socket.SOCK_DGRAM),
        without=HOST_NAMESPACES,
        local=True,
    ),
    attack(
        name="connects to an abstract Unix socket of the host",
        probe=Connects(socket.AF_UNIX, abstract=True),
        without=HOST_NAMESPACES,
        local=True,
    ),
    attack(
        name="connects to a Unix socket in the host's files",
        probe=Connects(socket.AF_UNIX),
        without=HOST_ROOT,
        local=True,
    ),
    attack(name="asks the service itself", probe=reaches_the_service, without=HOST_NAMESPACES, local=True),
    attack(name="listens to the host", probe=is_reached, without=HOST_NAMESPACES, local=True),
    attack(name="learns the host's name", probe=host_name, without=HOST_NAMESPACES, local=True),
    attack(name="learns the host's interfaces", probe=interfaces, without=HOST_NAMESPACES, local=True),
    *(
        attack(
            name=f"opens a socket for {name}",
            probe=Program(
                "become_root()\n"
                'call("unshare", 0x40000000)\n'
                f'proof(reached(call("socket", {family}, {kind}, {protocol})))'
            ),
            without=FILTER,
        )
        for name, (family, kind, protocol) in KINDS.items()
    ),
    attack(
        name="opens a socket of any family",
        probe=Program(
            'proof(any(reached(call("socket", n, kind, 0)) for n in range(60) for kind in (1, 2, 3, 5)))'
        ),
        without=FILTER,
    ),
    attack(
        name="makes a pair of sockets",
        probe=Program(
            "import socket\none, other = socket.socketpair()\none.send(b'x')\nproof(other.recv(1) == b'x')"
        ),
        without=FILTER,
    ),
    attack(
        name="opens a socket as 32-bit code",
        # int 0x80 has other numbers: socket is 359. A filter that reads them as 64-bit ones lets it through.
        probe=Program('proof(reached(machine_code("53 89f8 89f3 87ca cd80 4898 5b c3", 359, 1, 0, 1)))'),
        without=FILTER,
        machine="x86_64",
    ),
    attack(
        name="opens a socket by the numbers of x32",
        probe=Program("proof(reached(machine_code(SYSCALL, 0x40000000 | 41, 1, 1, 0)))"),
        without=FILTER,
        machine="x86_64",
    ),
    attack(
        name="opens a socket by machine code",
        probe=Program('proof(machine_code(SYSCALL, NR["socket"], 1, 1, 0) >= 0)'),
        without=FILTER,
        machine="x86_64",
    ),
    attack(
        name="hands a descriptor to the supervisor",
        probe=Program("""
import socket
control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 3)
proof(socket.send_fds(control, [b"k"], [0]) == 1)
"""),
        without=FILTER,
    ),
    attack(
        name="asks who is at the other end of its socket",
        probe=Program("""
import socket
control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 3)
proof(len(control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)) == 12)
"""),
        without=FILTER,
    ),
]
