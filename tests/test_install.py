"""An editable install: kernels/ is found as rsir.kernels alone, so packages of that name and their users still work."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITHOUT_TRITON = "import sys; sys.modules['triton'] = None\n"


def elsewhere(code: str, folder: Path) -> str:
    """What code prints in a process that starts in another folder, with nothing on its path but what is installed."""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_bare_import_of_kernels_does_not_find_ours(tmp_path: Path) -> None:
    code = (
        "import importlib.util, rsir\n"
        "spec = importlib.util.find_spec('kernels')\n"
        "print(None if spec is None else [spec.origin, *(spec.submodule_search_locations or [])])"
    )
    found = elsewhere(code, tmp_path)
    assert str(ROOT) not in found  # Hugging Face's may be installed
    if found == "None":
        with pytest.raises(AssertionError, match="No module named 'kernels'"):
            elsewhere("import rsir, kernels", tmp_path)


def test_ours_are_rsir_kernels(tmp_path: Path) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('rsir.kernels').origin)"
    assert Path(elsewhere(code, tmp_path)).name == "__init__.py"
    if importlib.util.find_spec("triton") is not None:
        assert elsewhere("import rsir.kernels; print(rsir.kernels.__name__)", tmp_path) == "rsir.kernels"


def test_transformers_finds_its_models_beside_an_install_without_triton(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
    code = WITHOUT_TRITON + "import rsir, transformers; print(transformers.GPT2LMHeadModel.__name__)"
    assert elsewhere(code, tmp_path) == "GPT2LMHeadModel"


def test_the_lowest_versions_are_those_of_the_package() -> None:
    """What .ci/lowest installs is what pyproject.toml admits."""
    section = re.search(r"\ndependencies = \[\n(.*?)\n\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert section is not None
    admitted = dict(re.findall(r'"([\w-]+)>=([\d.]+)', section[1]))
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci" / "lowest.txt").read_text(), re.MULTILINE))
    assert admitted.keys() == tested.keys()
    for name, version in admitted.items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", tested[name]), name


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("rsir.run(rounds=0)", "BackendUnavailable"),
        ("ItemKnn.fit(Sequences.from_lists([[1, 2]]))", "BackendUnavailable"),
        ("print(main(['--rounds', '0', '--out', 'run']))", "2"),
    ],
)
def test_a_checkout_that_is_not_built_says_how_to_build_it(tmp_path: Path, call: str, said: str) -> None:
    """The source folder comes first in the path and hides an install whose compiled module it does not have."""
    shutil.copytree(ROOT / "rsir", tmp_path / "rsir", ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
    code = (
        "import sys\n"  # without what finds an editable install
        "sys.meta_path = [one for one in sys.meta_path if 'ScikitBuild' not in type(one).__name__]\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import rsir\n"
        f"assert rsir.__file__.startswith({str(tmp_path)!r})\n"
        "from rsir.cli.main import main\n"
        "from rsir.data import Sequences\n"
        "from rsir.models import ItemKnn\n"
        "try:\n"
        f"    {call}\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(said)
    assert "build it in place with 'pip install -e .', or run from another folder" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "round-00").exists()
