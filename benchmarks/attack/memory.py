"""Memory: programs that hold many times what they may, by every way there is to get some.

Each holds what it takes and says so; it is bounded, so that the control is harmless.
"""

import functools

from benchmarks.attack.attack import LIMITLESS, Attack, Nodes, Program, Steps

attack = functools.partial(Attack, category="memory")

LIMIT_MB = 64
HOLD = "SIZE = 256 * 2**20\n"

BOMBS = {
    "a list that doubles": "x = [0]\nwhile len(x) * 8 < SIZE: x = x + x",
    "bytes": "x = bytes(b'x') * SIZE",
    "text": "x = chr(0x1F600) * (SIZE // 4)",
    "a number": "x = 1 << (8 * SIZE)",
    "many small objects": "x = [[n] for n in range(SIZE // 96)]",
    "a dictionary": "x = {n: n for n in range(SIZE // 100)}",
    "numpy": "import numpy\nx = [numpy.ones(2**17) for _ in range(SIZE // 2**20)]",
    "mappings": """
x = []
for _ in range(SIZE // 2**24):
    x.append(mmap.mmap(-1, 2**24))
    x[-1].write(bytes(2**24))
""",
    "a mapping that grows": """
x = mmap.mmap(-1, 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
while len(x) < SIZE: x.resize(2 * len(x))
for at in range(0, SIZE, 4096): x[at] = 1
""",
    "C": """
libc.malloc.restype, libc.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(SIZE // 2**22):
    address = libc.malloc(ctypes.c_size_t(2**22))
    if not address: raise MemoryError
    libc.memset(address, 1, 2**22)
""",
    "the program break": """
libc.sbrk.restype, libc.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(SIZE // 2**22):
    address = libc.sbrk(ctypes.c_ssize_t(2**22))
    if address == 2**64 - 1: raise MemoryError
    libc.memset(address, 1, 2**22)
""",
    "a compressed bomb": """
import zlib
packer = zlib.compressobj()
packed = b"".join(packer.compress(bytes(2**20)) for _ in range(SIZE // 2**20)) + packer.flush()
x = zlib.decompress(packed)
assert len(x) == SIZE
""",
    "threads": """
import threading
x = []
threads = [threading.Thread(target=lambda: x.append(bytearray(b"x") * (SIZE // 8))) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(x) == 8
""",
    "deep recursion": """
import sys
sys.setrecursionlimit(10**9)
def descend(n, *held): return n if n == 0 else descend(n - 1, bytearray(2**16))
descend(SIZE // 2**16)
""",
}

PIECE = "kept.append(bytearray(b'x') * (SIZE // 4))"

ATTACKS = [
    *(
        attack(
            name=f"holds too much by {name}",
            probe=Program(f"{HOLD}{code}\nproof()", run_timeout=6.0, memory_limit_MB=LIMIT_MB),
            without=LIMITLESS,
        )
        for name, code in BOMBS.items()
    ),
    *(
        attack(
            name=f"holds too much over {where}",
            probe=kind(
                (f"{HOLD}kept = []", *[PIECE] * 4, "proof()"), run_timeout=6.0, memory_limit_MB=LIMIT_MB
            ),
            without=LIMITLESS,
        )
        for where, kind in (("steps", Steps), ("the nodes of a session", Nodes))
    ),
]
