"""Completion of the command line in bash, by bash itself, and in zsh where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rsir.cli import main as recurse
from rsir.datasets import DATASETS
from rsir.models import names


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of the words after ``rsir``."""
    quoted = " ".join(f"'{word}'" for word in ("rsir", *words))
    ask = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _rsir; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_options_and_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    assert recurse.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "--fidelity.t") == ["--fidelity.tau"]
    assert completed(script, "--seed", "3", "--res") == ["--resume"]
    assert completed(script, "--model", "") == list(names())
    assert completed(script, "--guard", "f") == ["false"]
    assert completed(script, "in") == ["inspect"]
    assert completed(script, "re") == ["recommend", "refit", "report"]
    assert completed(script, "run", "--fidelity.t") == ["--fidelity.tau"]
    assert completed(script, "recommend", "a run", "--his") == ["--histories", "--history"]
    assert completed(script, "recommend", "--fid") == []
    assert completed(script, "recommend", "--model", "") == []
    assert completed(script, "export", "--h") == ["--held-out", "--help"]
    assert completed(script, "studies", "se") == ["sensitivity"]
    assert completed(script, "studies", "res") == ["results"]
    assert completed(script, "kernels", "t") == ["tune"]
    assert completed(script, "completion", "z") == ["zsh"]
    assert completed(script, "datasets", "f") == ["fetch"]
    assert completed(script, "datasets", "fetch", "ml-1") == ["ml-100k", "ml-1m"]
    assert completed(script, "--data", "x") == []  # files, by the shell's own means


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_completes_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert recurse.main(["completion", "zsh"]) == 0
    # what zsh's own bridge to functions of bash does; keeping what begins with the word is left to the line editor
    ask = "words=(rsir datasets fetch ml-1); CURRENT=4 COMP_CWORD=3 COMP_WORDS=($words); compgen -F _rsir"
    script = f"{capsys.readouterr().out}\nprint $_comps[rsir]\n{ask}"
    home = {"HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True, env=home)
    registered, *offered = done.stdout.splitlines()
    assert registered.startswith("_bash_complete ")
    assert registered.endswith(" -F _rsir")
    assert offered == list(DATASETS)


def test_zsh_takes_the_same_script_and_other_shells_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert recurse.main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out.splitlines()[0]
    assert recurse.main(["completion", "fish"]) == 2
    assert "expected one of bash, zsh, got 'fish'" in capsys.readouterr().err
