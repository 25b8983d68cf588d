"""The floor: how long it takes to fork a process that holds sympy and numpy, have the child exit, and wait for it.

What a zygote does before it forks is done here too: the same libraries, one thread, `gc.freeze`. No namespace, limit,
pipe or code: nothing that runs a program can be faster by forking.

`python -m benchmarks.bare_fork` answers each line on stdin with one fork's nanoseconds; its first line is its own
resident set in bytes.
"""

import gc
import os
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """Serve until stdin ends."""
    # Before numpy: a fork copies only the calling thread, and the others cost time.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import numpy.fft
    import numpy.linalg
    import numpy.random  # noqa: F401
    import sympy  # noqa: F401

    gc.collect()
    gc.freeze()
    print(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter_ns()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        print(time.perf_counter_ns() - began, flush=True)


if __name__ == "__main__":
    main()
