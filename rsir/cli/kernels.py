"""``rsir kernels tune`` and ``rsir kernels inspect``: the Triton kernels on this machine."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from rsir.cli.parsing import Parser
from rsir.errors import BackendUnavailable

__all__ = ["ACTIONS", "main", "parser"]

ACTIONS = {
    "tune": "measure tile sizes on the GPU and keep the best for later runs",
    "inspect": "compile every kernel, without a GPU, and print registers, shared memory and spills",
}
"""Each is a module of rsir.kernels with a function ``main(arguments)``."""


def parser() -> Parser:
    """The parser of the command; the options of an action are its module's."""
    lines = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
    made = Parser("kernels", f"Work on the Triton kernels. {lines}. rsir kernels ACTION --help lists its options.")
    made.add_argument("action", choices=list(ACTIONS), metavar="{tune,inspect}", help="what to do")
    return made


def main(arguments: list[str]) -> int:
    """Run the action that the first argument names."""
    action = parser().parse_args(arguments[:1]).action
    if find_spec("triton") is None:
        raise BackendUnavailable("rsir kernels: needs Triton, which is not installed: pip install 'rsir[triton]'")
    try:
        module = import_module(f"rsir.kernels.{action}")
    except ImportError as cause:  # a Triton that is too old
        raise BackendUnavailable(f"rsir kernels: {cause}") from cause
    try:
        module.main(arguments[1:])
    except SystemExit as end:
        if isinstance(end.code, str):  # why it cannot run here
            raise BackendUnavailable(end.code) from end
        raise
    return 0
