"""Breaks the code in stated ways, one at a time, and shows that a test or harness notices each.

``python -m tests.harness mutate`` (``--only 3 7``; ``--list``). A mutation replaces one piece of a module's source when
the module is imported, in the processes of its check and in theirs; no file is changed. Each check first has to pass on
the code as it is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HOOK = """
import importlib.abc, importlib.machinery, os, sys
name, old, new = (os.environ["MUTATION_" + part] for part in ("MODULE", "OLD", "NEW"))

class Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, **options):
        text = bytes(data).decode()
        assert text.count(old) == 1
        return super().source_to_code(text.replace(old, new).encode(), path, **options)

    def get_code(self, fullname):  # never from the cache, and never into it
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != name:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = Loader(fullname, spec.origin)
                return spec

sys.meta_path.insert(0, Finder())
"""


@dataclass(frozen=True)
class Mutation:
    """What is broken, where, and what has to notice it."""

    what: str
    module: str
    old: str
    new: str
    check: str

    @property
    def path(self) -> Path:
        return ROOT / (self.module.replace(".", "/") + ".py")


def _tests(*names: str) -> str:
    return "pytest -x -q -p no:cacheprovider " + " ".join(f"tests/{name}.py" for name in names)


POWER, LINKS, DIRECTORY = "tests.harness power", _tests("runs/test_links"), _tests("runs/test_directory")
SIGNALS, TERMINAL = _tests("cli/test_signals"), _tests("cli/test_terminal")
CHECKPOINT, BATCHES, RESUME = (
    _tests("models/test_checkpoint"),
    _tests("data/test_batches"),
    _tests("runtime/test_resume"),
)

MUTATIONS = [
    Mutation(
        "the folder of a new folder is not fsynced",
        "rsir.files",
        "path.mkdir(exist_ok=True)\n        sync(path.parent)",
        "path.mkdir(exist_ok=True)",
        POWER,
    ),
    Mutation(
        "the folder of a new file is not fsynced",
        "rsir.files",
        "os.replace(temporary, path)\n        sync(path.parent)",
        "os.replace(temporary, path)",
        POWER,
    ),
    Mutation(
        "a file is not fsynced",
        "rsir.files",
        "left = left[os.write(descriptor, left) :]\n    os.fsync(descriptor)",
        "left = left[os.write(descriptor, left) :]",
        POWER,
    ),
    Mutation(
        "a file is renamed before it is written",
        "rsir.files",
        "as temporary:\n        _write(temporary, os.O_EXCL, content)",
        "as temporary:\n        temporary.touch()\n    _write(path, os.O_TRUNC, content)",
        DIRECTORY,
    ),
    Mutation("links are followed", "rsir.files", "(0 if links else os.O_NOFOLLOW)", "0", LINKS),
    Mutation(
        "pipes and devices are opened",
        "rsir.files",
        "if not stat.S_ISREG(kind):",
        "if False:",
        LINKS,
    ),
    Mutation("links in a run's folder are overlooked", "rsir.runs.links", "if entry.is_symlink():", "if False:", LINKS),
    Mutation(
        "a folder is removed through a link",
        "rsir.files",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        LINKS,
    ),
    Mutation(
        "a line is appended to one that was cut short",
        "rsir.files",
        'line = b"\\n" + line',
        "pass",
        DIRECTORY,
    ),
    Mutation(
        "a reader takes the finished rounds after the manifest",
        "rsir.runs.directory",
        "directory._rounds, directory._done = rounds, done",
        "directory._rounds, directory._done = rounds, finished_in(path)",
        DIRECTORY,
    ),
    Mutation(
        "a signal raises where it comes",
        "rsir.cli.signals",
        "now = time.monotonic()\n        if",
        "now = time.monotonic()\n        raise KeyboardInterrupt\n        if",
        SIGNALS,
    ),
    Mutation("a second signal is ignored", "rsir.cli.signals", "            signal.raise_signal(number)", "", SIGNALS),
    Mutation(
        "signals are not deferred",
        "rsir.runtime.interrupts",
        "        signal.signal(number, note)",
        "        pass",
        SIGNALS,
    ),
    Mutation(
        "a closed stdout ends a run",
        "rsir.cli.terminal",
        "                self._write(text)\n            except (OSError, ValueError) as failure:",
        "                self._write(text)\n            except ZeroDivisionError as failure:",
        TERMINAL,
    ),
    Mutation(
        "control characters reach the terminal",
        "rsir.cli.terminal",
        "        if self._escapes:",
        "        if False:",
        TERMINAL,
    ),
    Mutation(
        "two runs share a folder",
        "rsir.cli.run",
        "                    folder.mkdir()\n",
        "                    folder.mkdir(exist_ok=True)\n",
        _tests("cli/test_run"),
    ),
    Mutation(
        "weights that are nan are loaded",
        "rsir.models.checkpoint",
        "    _check_finite(tensors, path)\n",
        "",
        CHECKPOINT,
    ),
    Mutation(
        "damaged weights are loaded",
        "rsir.models.checkpoint",
        'if hashlib.sha256(content).hexdigest() != card["sha256"]:',
        "if False:",
        CHECKPOINT,
    ),
    Mutation(
        "every epoch has the order of the first",
        "rsir.data.batches",
        "[self._seed, _SHUFFLE, epoch]",
        "[self._seed, _SHUFFLE, 0]",
        BATCHES,
    ),
    Mutation(
        "damaged mid-round checkpoints are used",
        "rsir.runtime.resume",
        "if hashlib.sha256(content).hexdigest().encode() != digest:",
        "if False:",
        RESUME,
    ),
    Mutation(
        "the caller's no_grad stays in force",
        "rsir.runtime.torch_state",
        "        stack.enter_context(torch.inference_mode(False))\n        stack.enter_context(torch.enable_grad())\n",
        "",
        _tests("runtime/test_torch_state"),
    ),
    Mutation(
        "every round leaves 60 KB behind",
        "rsir.recursion.loop",
        "        self.lineage.append(round_, trained.model)\n",
        "        self.lineage.append(round_, trained.model)\n"
        '        self.__dict__.setdefault("left", []).append(bytes(60_000))\n',
        "tests.harness soak --rounds 12",
    ),
    Mutation(
        "fields that are longer than the csv module takes end in its error",
        "rsir.data.io.layout",
        "    except csv.Error:",
        "    except csv.Error as error:\n        if 'limit' in str(error):\n            raise",
        "tests.harness fuzz --inputs 3100",
    ),
    Mutation(
        "the first weights are others from three threads on",
        "rsir.training.fit",
        "seed=weights_seed)",
        "seed=weights_seed + (torch.get_num_threads() > 2))",
        _tests("harness/test_determinism"),
    ),
    Mutation(
        "heads that do not divide the width are accepted",
        "rsir.config.learning",
        "headless or self.dim % self.heads == 0",
        "True",
        "tests.harness settings --runs 60",
    ),
]


def noticed(mutation: Mutation | None, check: str, scratch: Path) -> bool:
    """Whether a check fails on the code with a mutation, or as it is."""
    (scratch / "sitecustomize.py").write_text(_HOOK)
    settings = dict(os.environ)
    if mutation is not None:
        settings["PYTHONPATH"] = os.pathsep.join([str(scratch), *filter(None, [settings.get("PYTHONPATH")])])
        settings |= {"MUTATION_MODULE": mutation.module, "MUTATION_OLD": mutation.old, "MUTATION_NEW": mutation.new}
    command = [sys.executable, "-m", *shlex.split(check)]
    try:
        return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, timeout=1800).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def harness(mutations: Sequence[Mutation], report: Callable[[str], None] = print) -> None:
    """AssertionError that lists the mutations that nothing noticed."""
    missed = []
    with tempfile.TemporaryDirectory() as name:
        for check in dict.fromkeys(mutation.check for mutation in mutations):
            assert not noticed(None, check, Path(name)), f"fails on the code as it is: python -m {check}"
        for mutation in mutations:
            found = noticed(mutation, mutation.check, Path(name))
            report(f"{'noticed' if found else 'MISSED '}  {mutation.what} ({mutation.check})")
            missed += [] if found else [mutation.what]
    assert not missed, f"not noticed: {'; '.join(missed)}"
    report(f"{len(mutations)} of {len(mutations)} mutations noticed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these alone, from 0")
    parser.add_argument("--list", action="store_true", help="print them, and what is to notice each")
    options = parser.parse_args()
    if options.list:
        for number, mutation in enumerate(MUTATIONS):
            print(f"{number:2}  {mutation.what} ({mutation.module}): {mutation.check}")
        return 0
    harness(MUTATIONS if options.only is None else [MUTATIONS[number] for number in options.only])
    return 0


if __name__ == "__main__":
    sys.exit(main())
