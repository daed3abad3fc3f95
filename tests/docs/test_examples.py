"""The examples for other programs are what Bash, torchrun and YAML can read, and run commands that exist."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from rsir.cli.options import parser

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "16"}
STUBS = {
    "srun": 'printf "%s\\n" "$@" > "$NOTES/given"; echo "$OMP_NUM_THREADS" > "$NOTES/threads"; exit "$STATUS"',
    "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\n" || echo "$@" > "$NOTES/asked"',
}
"""What stands for Slurm: it notes what it is asked for."""


def submitted(folder: Path, run: Path, *, status: int, restarts: int = 0) -> tuple[int, list[str]]:
    """Exit status of the job script, and the command that it gave to srun."""
    for name, body in STUBS.items():
        stub = folder / name
        stub.write_text(f"#!/bin/bash\n{body}\n")
        stub.chmod(0o755)
    environment = {
        **os.environ,
        **SLURM,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "NOTES": str(folder),
        "STATUS": str(status),
        "SLURM_RESTART_COUNT": str(restarts),
    }
    done = subprocess.run(
        ["bash", str(EXAMPLES / "slurm.sh"), "events.parquet", str(run)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, (folder / "given").read_text().splitlines()


def test_the_job_script_of_slurm_starts_torchrun_on_every_machine(tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, words = submitted(tmp_path, run, status=0)
    assert status == 0
    assert words[0] == "torchrun"
    options = get_args_parser().parse_args(words[1:])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_endpoint) == ("2", "2", "node1:29400")
    assert (options.module, options.training_script) == (True, "rsir.recurse")
    assert options.training_script_args == ["--data", "events.parquet", "--out", str(run)]
    assert (tmp_path / "threads").read_text() == "8\n"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(("begun", "restarts", "again"), [(True, 0, True), (False, 0, False), (True, 20, False)])
def test_it_asks_for_itself_again_when_there_is_something_to_resume(
    begun: bool, restarts: int, again: bool, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if begun:
        (run / "manifest.json").touch()
    status, words = submitted(tmp_path, run, status=1, restarts=restarts)
    assert status == 1
    assert (words[-1] == "--resume") is begun
    assert (tmp_path / "asked").exists() is again


def test_the_manifest_for_kuberay_runs_a_command_that_exists() -> None:
    manifest = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(manifest["spec"]["entrypoint"])
    assert words[:2] == ["rsir", "run"]
    options, rest = parser().parse_known_args(words[2:])
    assert rest == []
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert options.workers == group["replicas"] == group["minReplicas"] == group["maxReplicas"]
