"""Compiled loops work where no compiled code can be kept."""

import os
import subprocess
import sys
from pathlib import Path

import rsir.data

_LOAD = """
import importlib.util, sys
import numpy as np
spec = importlib.util.spec_from_file_location("copied", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""

_CALL = "print(module.k_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 5]), 2).sum())"


def _run(folder: Path, code: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Run code on a module whose folder, cache folder and home nobody can write, root no more than others."""
    file.with_name("__pycache__").write_text("a file in the place of the folder")
    variables = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    variables |= {"HOME": "/dev/null", "PYTHONPATH": str(Path(rsir.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code, str(file)], env=variables, cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_compiled_loops_work_where_nothing_can_be_cached(tmp_path):
    file = tmp_path / "copied.py"
    file.write_text((Path(rsir.data.__file__).parent / "io" / "kcore.py").read_text())
    found = _run(tmp_path, _LOAD + _CALL, file)
    assert (found.returncode, found.stdout.strip()) == (0, "4"), found.stderr


def test_numba_itself_refuses_there(tmp_path):
    """Else the test above would show nothing."""
    file = tmp_path / "copied.py"
    file.write_text("import numba\n\n\n@numba.njit(cache=True)\ndef one():\n    return 1\n")
    assert "no locator available" in _run(tmp_path, _LOAD, file).stderr


def test_compiled_code_is_kept_where_it_can_be(tmp_path):
    from rsir.runtime.jit import compiled

    (tmp_path / "kept.py").write_text("def one():\n    return 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import kept
    finally:
        sys.path.remove(str(tmp_path))
    function = compiled()(kept.one)
    assert function() == 1
    assert function._cache.cache_path is not None
