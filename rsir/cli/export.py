"""``rsir export RUN FILE``: what a round was trained on, or the best model, for use elsewhere."""

from __future__ import annotations

from pathlib import Path

from rsir.cli.parsing import Parser, run_place
from rsir.errors import ExportError

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("export", "Write a round's training data, or the best model, for use elsewhere.")
    made.add_argument("run", metavar="RUN", type=run_place, help="folder or address of the run")
    made.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="training data as .parquet, .arrow, .csv or .inter (one event a row, with source and round) or .txt (one "
        "sequence a line); the model's encoder as .onnx or .pt2 (torch.export); its items as .faiss",
    )
    made.add_argument(
        "--vectors",
        choices=("items", "users"),
        help="the best model's vectors of items, or of users after all they have, as .parquet: id, label, vector; "
        "their inner products are its logits",
    )
    made.add_argument("--round", type=int, metavar="N", help="the round whose training data to write [the best]")
    made.add_argument(
        "--held-out", action="store_true", help="with the events held out for validation and test, for a final model"
    )
    return made


def main(arguments: list[str]) -> int:
    """Run the command; 0 if the file was written."""
    options = parser().parse_args(arguments)
    from rsir.data import write
    from rsir.data.io.writers import FORMATS
    from rsir.export.model import SUFFIXES, export
    from rsir.models.itemknn import network_of
    from rsir.runs.results import enriched, load

    if options.file.suffix not in (*FORMATS, *SUFFIXES):
        raise ExportError(f"{options.file}: expected a name that ends in {', '.join((*FORMATS, *SUFFIXES))}")
    chosen = options.file.suffix in SUFFIXES or options.vectors is not None
    if chosen and (options.round is not None or options.held_out):
        raise ExportError(f"{options.file}: is of the best model; --round and --held-out are of training data")
    run = load(options.run)
    if options.vectors is not None:
        from rsir.export.vectors import write_vectors

        rows = write_vectors(run, options.file, options.vectors)
        print(f"{options.file}: vectors of {rows:,} {options.vectors}, round {run.best}")
        return _note(network_of(run.model) is run.model)
    if options.file.suffix in SUFFIXES:
        networks = network_of(run.model)
        print(f"{options.file}: round {run.best}; its items: {export(networks, run.data, options.file)}")
        return _note(networks is run.model)
    data = enriched(run, options.round, held_out=options.held_out)
    write(data, options.file)
    generated = len(data) - data.num_real
    print(f"{options.file}: {data.num_real:,} real and {generated:,} generated sequences")
    if not generated and len(run.rounds) > 1:
        print("Round 0 is the best, and it was trained on real data alone: --round 1 exports with generated sequences")
    return 0


def _note(whole: bool) -> int:
    if not whole:
        print("It has the networks' part of the scores alone: the item-kNN, which votes beside them, is left out")
    return 0
