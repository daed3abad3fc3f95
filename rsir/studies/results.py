"""The results page from the lines of studies: ``python -m rsir.studies.results DIR --out docs/results.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rsir import durable
from rsir.report.plot import panels, save

from .lab import METRICS, Lines

__all__ = ["main", "page"]

Line = dict[str, Any]
Group = tuple[str, str]

_NAMES = {"recall@10": "Recall@10", "ndcg@10": "NDCG@10", "ndcg@20": "NDCG@20"}
_PUBLISHED = {  # SASRec: best other method, then RSIR after one round; tables of arXiv 2602.15659
    "amazon-toys": (0.0834, 0.0872),
    "amazon-beauty": (0.0557, 0.0594),
    "amazon-sports": (0.0495, 0.0512),
    "yelp": (0.0379, 0.0399),
}
_TITLES = {
    "main": "What the recursion gains",
    "rounds": "Many rounds, with fidelity and without",
    "sensitivity": "Sensitivity to the options",
    "weak-to-strong": "Weak models teach strong ones",
    "cost": "What else the base could have been given",
    "data": "The training set by round",
    "landscape": "The loss landscape",
    "noise": "Noise in the histories",
}


def main(arguments: list[str] | None = None) -> int:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(prog="python -m rsir.studies.results", description=__doc__)
    parser.add_argument("lines", type=Path, metavar="DIR", help="folder with the studies' .jsonl files")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"), metavar="FILE", help="the page")
    options = parser.parse_args(arguments)
    studies = {name: Lines(path) for name in _TITLES if (path := options.lines / f"{name}.jsonl").exists()}
    if not studies:
        print(f"{options.lines}: no lines of a study found; run python -m rsir.studies first", file=sys.stderr)
        return 2
    head = options.out.with_name(f"{options.out.stem}-notes.md")
    notes = head.read_text() if head.exists() else ""
    pictures = _pictures(studies, options.out.parent)
    durable.replace(options.out, page(studies, notes, pictures).encode())
    return 0


def page(studies: dict[str, Lines], notes: str = "", pictures: dict[str, str] | None = None) -> str:
    """The page as Markdown.

    Parameters
    ----------
    studies : dict of str to Lines
    notes : str
        What stands above the tables.
    pictures : dict of str to str, optional
        File of each study's picture, relative to the page.
    """
    parts = ["# Results", "", notes.strip(), ""]
    for name, lines in studies.items():
        parts += [f"## {_TITLES[name]}", ""]
        if pictures and name in pictures:
            parts += [f"![{_TITLES[name]}]({pictures[name]})", ""]
        for group in _groups(lines):
            parts += [*_table(lines, group), ""]
            if name == "cost":
                parts += [*_costs(lines, group), ""]
            parts += ["```", *_commands(lines, group), "```", ""]
    return "\n".join(parts).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _groups(lines: Lines) -> list[Group]:
    return list(dict.fromkeys((line["data"], line["backbone"]) for line in lines if line["kind"] == "training"))


def _commands(lines: Lines, group: Group) -> list[str]:
    """What computed the lines of a group; the names of noisy data begin with that of the data without."""
    data, backbone = group
    of_backbone = [line for line in lines if line["kind"] == "command" and line["backbone"] == backbone]
    return [line["arm"] for line in of_backbone if data.split(" +")[0] == line["data"]]


def _trainings(lines: Iterable[Line], group: Group, kind: str = "training") -> dict[tuple[str, int], list[Line]]:
    """Lines of a data set and backbone by arm and round."""
    found: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        if line["kind"] == kind and (line["data"], line["backbone"]) == group:
            found.setdefault((line["arm"], line["round"]), []).append(line)
    return found


def _table(lines: Lines, group: Group) -> list[str]:
    trained, compared = _trainings(lines, group), _trainings(lines, group, "comparison")
    data, backbone = group
    base = trained["base", 0]
    rows = [
        f"### {data}, {backbone}",
        "",
        "| arm | round | seeds | added | validation NDCG@20 | gain | "
        + " | ".join(f"test {_NAMES[metric]} | gain | p" for metric in METRICS)
        + " |",
        "|---|---|---|---|" + "---|" * (2 + 3 * len(METRICS)),
    ]
    for (arm, round_), found in trained.items():
        seeds = {line["seed"] for line in found}
        same = [line for line in base if line["seed"] in seeds]
        added = [line["acquired"] for line in found if line.get("acquired") is not None]
        cells = [arm, str(round_), str(len(found)), f"{np.mean(added):,.0f}" if added else ""]
        cells += _cells(found, same, "validation", "ndcg@20", arm)
        comparison = compared.get((arm, round_), [{}])[0]
        for metric in METRICS:
            p = comparison[metric]["p_value"] if len(comparison.get("seeds", [])) == len(found) else None
            cells += [*_cells(found, same, "test", metric, arm), "" if p is None else f"{p:.4f}"]
        rows.append("| " + " | ".join(cells) + " |")
    if backbone == "sasrec" and data in _PUBLISHED:
        before, after = _PUBLISHED[data]
        rows += ["", f"Published Recall@10 (arXiv 2602.15659): best other method {before:.4f}, RSIR {after:.4f}."]
    return rows


def _costs(lines: Lines, group: Group) -> list[str]:
    """What every arm took, in all, for what it gained on validation."""
    trained = _trainings(lines, group)
    rows = [
        "| arm | round | seconds | 10^12 operations | validation NDCG@20 | of both for +1% |",
        "|---|---|---|---|---|---|",
    ]
    before, taken = _mean(trained["base", 0], "seconds"), _mean(trained["base", 0], "operations")
    reference = float(np.mean([line["validation"]["ndcg@20"] for line in trained["base", 0]]))
    for (arm, round_), found in trained.items():
        seconds, operations = _mean(found, "seconds"), _mean(found, "operations")
        value = float(np.mean([line["validation"]["ndcg@20"] for line in found]))
        gain = 100 * (value / reference - 1)
        extra = "" if gain <= 0 else f"{(seconds - before) / gain:+,.0f} s, {(operations - taken) / 1e12 / gain:+,.1f}"
        cells = [arm, str(round_), f"{seconds:,.0f}", f"{operations / 1e12:,.1f}", f"{value:.4f}", extra]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _mean(found: list[Line], name: str) -> float:
    return float(np.mean([line.get(name, np.nan) for line in found]))


def _cells(found: list[Line], base: list[Line], part: str, metric: str, arm: str) -> list[str]:
    """Mean and deviation over seeds, and the change of the mean."""
    values = np.array([line[part][metric] for line in found])
    spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    change = values.mean() / np.mean([line[part][metric] for line in base]) - 1 if base else np.nan
    return [f"{values.mean():.4f}{spread}", "" if arm == "base" or np.isnan(change) else f"{change:+.1%}"]


def _pictures(studies: dict[str, Lines], folder: Path) -> dict[str, str]:
    """Draw gains by round; -> the files, relative to the folder."""
    drawn: dict[str, str] = {}
    for name in ("main", "rounds"):
        if name not in studies:
            continue
        groups = _groups(studies[name])
        figure, axes = panels(len(groups))
        for axis, group in zip(axes, groups, strict=True):
            for arm, values in _by_round(studies[name], group, "ndcg@10").items():
                axis.plot(list(values), [100 * (value / values[0] - 1) for value in values.values()], "o-", label=arm)
            axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
            axis.set(title=f"{group[0]}, {group[1]}", xlabel="round", ylabel="change of test NDCG@10 (%)")
            axis.legend(frameon=False, fontsize=7)
        drawn[name] = f"results-{name}.svg"
        save(figure, folder / drawn[name])
    return drawn


def _by_round(lines: Lines, group: Group, metric: str) -> dict[str, dict[int, float]]:
    """Mean test metric of each arm but the base by round; round 0 is the base's."""
    trained = _trainings(lines, group)
    means = {key: float(np.mean([line["test"][metric] for line in found])) for key, found in trained.items()}
    arms = dict.fromkeys(arm for arm, _ in trained if arm != "base")
    return {
        arm: {0: means["base", 0], **{round_: mean for (its, round_), mean in means.items() if its == arm and round_}}
        for arm in arms
        if (arm, 0) not in means
    }


if __name__ == "__main__":
    sys.exit(main())
