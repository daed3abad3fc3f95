"""Vectors of items' titles: ``pip install wordllama; python docs/examples/item_texts.py TITLES.csv ITEMS.parquet``.

The CSV has columns item and title; the Parquet file is what ``rsir --items`` reads. wordllama (MIT) averages vectors
of tokens that were taken from a language model: 256 numbers a title, from 16 MB that come with the package, so that
nothing is fetched and no GPU is needed. Anything else that makes vectors of texts can stand in its place.

Without files it shows on simulated users what titles say of 25 items that nobody has had.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import wordllama

import rsir
from rsir.config import SimulationConfig
from rsir.data import Sequences, simulate


def embedded(titles: list[str]) -> pa.FixedSizeListArray:
    """A vector of length 1 for each title."""
    # its folder as the cache, where 0.4 finds the tokenizer that came with it
    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    vectors = model.embed(titles, norm=True)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def main(source: str, target: str) -> None:
    """Read a table of titles, and write it with their vectors, an item a row."""
    table = pyarrow.csv.read_csv(source).select(["item", "title"])
    table = table.group_by("item", use_threads=False).aggregate([("title", "first")]).rename_columns(["item", "title"])
    pq.write_table(table.append_column("vector", embedded(table["title"].to_pylist())), target)


def demonstrate(users: int = 400, items: int = 250, unseen: int = 25, **settings: object) -> tuple[float, float]:
    """Of users who in truth took unseen items: for how many one is among the best five of these, and by chance."""
    made = simulate(SimulationConfig(num_users=users, num_items=items))
    words = ["House", "River", "Winter", "Letter", "Garden", "Train", "City"]
    titles = [f"{words[genre % 7]} of {item}" for item, genre in enumerate(made.genres, 1)]
    seen = items - unseen  # of the simulation's items, whose numbers say nothing, the last ones are unseen
    lists = [row[row <= seen].tolist() for row in made.sequences.lists]
    took = [set(row[row > seen].tolist()) for row in made.sequences.lists]
    data = Sequences.from_lists(lists, seen, item_labels=pa.array(range(1, seen + 1)))
    with tempfile.TemporaryDirectory() as folder:
        vectors = embedded(titles)
        path = f"{folder}/items.parquet"
        pq.write_table(pa.table({"item": range(1, items + 1), "title": titles, "vector": vectors}), path)
        run = rsir.run(data=data, rounds=0, **{"data.items": path, **settings})
    asked = [user for user in range(users) if took[user] and len(lists[user]) >= 3]
    best = run.recommend([lists[user] for user in asked], k=5, candidates=range(seen + 1, items + 1))
    hits = [bool(took[user] & set(own)) for user, own in zip(asked, best, strict=True)]
    missed = [np.prod([1 - len(took[user]) / (unseen - place) for place in range(5)]) for user in asked]
    return float(np.mean(hits)), float(1 - np.mean(missed))


if __name__ == "__main__":
    if sys.argv[1:]:
        main(*sys.argv[1:])
    else:
        pairs = [("The Godfather", "The Godfather Part II"), ("Dinosaur figure set", "Toy dinosaurs, 12 pieces"),
                 ("A Bug's Life", "Toy Story 2")]  # fmt: skip
        for pair in pairs:
            first, second = np.array(embedded(list(pair)).to_pylist())
            print(f"{first @ second:.2f}  {pair[0]} / {pair[1]}")
        hit, chance = demonstrate()
        print(f"one of the best five unseen items was taken by {hit:.0%} of users, by chance {chance:.0%}")
