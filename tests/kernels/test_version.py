"""A Triton that cannot compile the kernels is refused by name, before a kernel is asked for."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = "import triton; triton.__version__ = {!r}; import rsir.ops.triton"


@pytest.mark.parametrize(("version", "taken"), [("3.4.0", False), ("3.5.1", True), ("3.10.0+git1234", True)])
def test_an_old_triton_is_refused(version, taken):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(version)], capture_output=True, text=True)
    assert (done.returncode == 0) == taken, done.stderr
    if not taken:
        assert "BackendUnavailable" in done.stderr
        assert "expected Triton 3.5.1 or newer, got 3.4.0" in done.stderr


def test_the_command_for_the_kernels_refuses_it_in_one_sentence():
    script = "\n".join(
        [
            "import sys, triton",
            "triton.__version__ = '3.4.0'",
            "from rsir.cli.main import main",
            "sys.exit(main(['kernels', 'inspect']))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("rsir: error: rsir kernels: expected Triton 3.5.1 or newer, got 3.4.0"), done.stderr
    assert done.stderr.count("\n") == 1
