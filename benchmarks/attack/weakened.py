"""`python -m benchmarks.attack.weakened LAYER ...`: the sandbox service without the named layers, for the controls.

Settings come from `RATCHET_*`, as they do for the service. Nothing in the product can switch a layer off; this builds
the service's own app with a level that lacks some. Never serve it to anybody: it runs what it is sent.
"""

import dataclasses
import sys

from ratchet.settings import SandboxSettings
from ratchet.web.app import serve
from services.sandbox.app import build_app
from services.sandbox.layers import Layer
from services.sandbox.service import required_isolation


def main() -> None:
    """Serve until told to stop."""
    settings = SandboxSettings()
    without = frozenset(Layer(name) for name in sys.argv[1:])
    level = dataclasses.replace(required_isolation(settings), without=without)
    serve(build_app(settings, level), settings)


if __name__ == "__main__":
    main()
