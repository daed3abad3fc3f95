"""``rsir similar RUN ITEM ...``: the items most like some."""

from __future__ import annotations

from pathlib import Path

from rsir.cli.parsing import Parser, run_place
from rsir.data.io.readers import read_names

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("similar", "Print the items most like some, by the network's item vectors or by the count.")
    made.add_argument("run", metavar="RUN", type=run_place, help="folder or address of the run")
    made.add_argument("items", metavar="ITEM", nargs="+", help="items, by their names in the data")
    made.add_argument("--k", type=int, default=10, metavar="N", help="items like each [10]")
    made.add_argument(
        "--by",
        choices=("vectors", "count"),
        default="vectors",
        help="cosine of the network's item vectors, or the item-kNN's share of what stands near the item [vectors]",
    )
    made.add_argument("--candidates", metavar="FILE", type=Path, help="only items that this file names")
    made.add_argument("--exclude", metavar="FILE", type=Path, help="never items that this file names")
    made.add_argument("--round", type=int, metavar="N", help="the round whose vectors they are [the best]")
    return made


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    from rsir.cli.table import lines
    from rsir.runs.results import load

    run = load(options.run)
    candidates, exclude = (
        None if file is None else read_names(file, "item") for file in (options.candidates, options.exclude)
    )
    recommender = run.recommender(options.round)
    titled = recommender.titles is not None
    rows: list[list[object]] = [["item_id", "similar_id", "rank", "score", *["title"] * titled]]
    for item in options.items:
        found = run.similar(
            item, options.k, by=options.by, candidates=candidates, exclude=exclude, round_=options.round
        )
        titles = recommender.titled(recommender.items.ids([name for name, _ in found])) if titled else None
        last = [[]] * len(found) if titles is None else [[title or ""] for title in titles.to_pylist()]
        rows += [[item, name, rank, score, *last[rank - 1]] for rank, (name, score) in enumerate(found, 1)]
    print("\n".join(lines(rows)))
    return 0
