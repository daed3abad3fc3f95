"""Completion of the command line in bash, by bash itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rsir import recurse
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
    assert recurse.main(["--completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "--fidelity.t") == ["--fidelity.tau"]
    assert completed(script, "--seed", "3", "--res") == ["--resume"]
    assert completed(script, "--model", "") == list(names())
    assert completed(script, "--guard", "f") == ["false"]
    assert completed(script, "in") == ["inspect"]
    assert completed(script, "datasets", "f") == ["fetch"]
    assert completed(script, "datasets", "fetch", "ml-1") == ["ml-100k", "ml-1m"]
    assert completed(script, "--data", "x") == []  # files, by the shell's own means


def test_zsh_takes_the_same_script_and_other_shells_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert recurse.main(["--completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out.splitlines()[0]
    assert recurse.main(["--completion", "fish"]) == 2
    assert "--completion: expected bash or zsh, got 'fish'" in capsys.readouterr().err
