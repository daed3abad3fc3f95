"""``python -m tests.pretend MODULE [ARGUMENT ...]``: ``python -m MODULE`` on the pretended device."""

import os
import runpy
import sys

os.environ.setdefault("TRITON_INTERPRET", "1")

from tests.pretend import device

device.install()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
