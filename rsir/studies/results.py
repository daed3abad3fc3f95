"""The results page from the lines of studies: ``rsir studies results DIR [--out FILE]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsir import files
from rsir.errors import RunError
from rsir.metrics import CRITERION, HEADLINE, title
from rsir.report.plot import panels, save
from rsir.studies.comparisons import COUNTED
from rsir.studies.default_tables import glance, group_tables
from rsir.studies.lines import METRICS, WITH_COUNT, Lines
from rsir.studies.tables import Group, Line, groups_of, interval, known, mean_and_deviation, of_same_seeds, trainings

__all__ = ["page", "write"]

_PUBLISHED = {  # SASRec, Recall@10, tables of arXiv 2602.15659: the best other method, RSIR after one and three rounds
    "amazon-toys": (0.0834, 0.0872, None),
    "amazon-beauty": (0.0557, 0.0594, None),
    "amazon-sports": (0.0495, 0.0512, 0.0528),
    "yelp": (0.0379, 0.0399, 0.0420),
}
_SIGNIFICANT = 0.05
_TITLES = {
    "default": "What a run gains as it comes",
    "main": "What the recursion gains",
    "rounds": "Many rounds, with fidelity and without",
    "sensitivity": "Sensitivity to the options",
    "weak-to-strong": "Weak models teach strong ones",
    "cost": "What else the base could have been given",
    "data": "The training set by round",
    "landscape": "The loss landscape",
    "noise": "Noise in the histories",
}


def write(folder: Path, out: Path) -> Path:
    """Write the page of the lines in a folder to `out`, its pictures beside it; returns `out`.

    Raises
    ------
    RunError
        No lines are there, a line cannot be read, or the page cannot be written.
    """
    studies = {name: Lines(path) for name in _TITLES if (path := folder / f"{name}.jsonl").exists()}
    studies = {name: lines for name, lines in studies.items() if groups_of(lines)}
    if not studies:
        raise RunError(f"{folder}: no lines of a study found; run rsir studies NAME first")
    for lines in studies.values():
        for group in groups_of(lines):
            if ("base", 0) not in trainings(lines, group):
                raise RunError(
                    f"{lines.path}: has lines of {', '.join(group)}, but none of its base; run the study again"
                )
    texts = {name: text.read_text() for name in ("notes", *studies) if (text := folder / f"{name}.md").exists()}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise RunError(f"{out}: cannot be written: {out.parent}: {cause.strerror}; choose another --out") from cause
    pictures = _pictures(studies, out.parent)
    files.replace(out, page(studies, texts, pictures).encode())
    return out


def page(
    studies: Mapping[str, Lines], texts: Mapping[str, str] | None = None, pictures: Mapping[str, str] | None = None
) -> str:
    """The page as Markdown.

    Parameters
    ----------
    studies : mapping of str to Lines
    texts : mapping of str to str, optional
        What stands above the tables of each study; one that begins with ``## `` brings its own heading. That of "notes"
        begins the page.
    pictures : mapping of str to str, optional
        File of each study's picture, relative to the page.
    """
    texts = texts or {}
    parts = ["# Results", "", texts.get("notes", "").strip(), ""]
    for name, lines in studies.items():
        text = texts.get(name, "").strip()
        parts += [] if text.startswith("## ") else [f"## {_TITLES[name]}", ""]
        parts += [text, ""]
        if pictures and name in pictures:
            parts += [f"![{_TITLES[name]}]({pictures[name]})", ""]
        if name == "main":
            parts += [*_summary(lines), "", *_beside_the_paper(lines), ""]
        if name == "default":
            parts += [*glance(lines), ""]
        for group in groups_of(lines):
            if name == "default":
                parts += [*group_tables(lines, group), "", "```", *_commands(lines, group), "```", ""]
                continue
            parts += [*_table(lines, group), ""]
            if counted := trainings(lines, group, COUNTED):
                parts += [*_with_count(lines, group, counted), ""]
            if name == "cost":
                parts += [*_costs(lines, group), ""]
            if measured := trainings(lines, group, "measurement"):
                parts += [*_measurements(measured), ""]
            parts += ["```", *_commands(lines, group), "```", ""]
    return "\n".join(parts).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _commands(lines: Lines, group: Group) -> list[str]:
    """What computed the lines of a group; the names of noisy data begin with that of the data without."""
    data, backbone = group
    of_backbone = [line for line in lines if line["kind"] == "command" and line["backbone"] == backbone]
    return [line["arm"] for line in of_backbone if data.split(" +")[0] == line["data"]]


def _table(lines: Lines, group: Group) -> list[str]:
    trained, compared = trainings(lines, group), trainings(lines, group, "comparison")
    data, backbone = group
    base = trained["base", 0]
    rows = [
        f"### {data}, {backbone}",
        "",
        "| arm | round | seeds | added | validation NDCG@20 | gain | "
        + " | ".join(f"test {title(metric)} | gain | p" for metric in METRICS)
        + " |",
        "|---|---|---|---|" + "---|" * (2 + 3 * len(METRICS)),
    ]
    for (arm, round_), found in trained.items():
        same = of_same_seeds(base, found)
        added = [line["acquired"] for line in found if line.get("acquired") is not None]
        cells = [arm, str(round_), str(len(found)), f"{np.mean(added):,.0f}" if added else ""]
        cells += _cells(found, same, "validation", CRITERION, arm)
        for metric in METRICS:
            p = _p_value(compared.get((arm, round_), []), found, metric)
            cells += [*_cells(found, same, "test", metric, arm), known(p, ".4f")]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _with_count(lines: Lines, group: Group, compared: dict[tuple[str, int], list[Line]]) -> list[str]:
    """Arms that the item-kNN votes beside, against the base and that vote, with intervals."""
    trained = trainings(lines, group)
    base = trained["base" + WITH_COUNT, 0]
    heads = [f"{title(metric, part)} | gain, 95% interval | p" for part, metric in HEADLINE]
    rows = [
        "The item-kNN votes beside all networks of this table; gains are over the base and that vote, intervals over "
        "users, whose gains are averaged over seeds.",
        "",
        f"| arm | round | seeds | w | {' | '.join(heads)} |",
        "|---|---|---|---|" + "---|---|---|" * len(heads),
    ]
    for (arm, round_), found in trained.items():
        if not arm.endswith(WITH_COUNT):
            continue
        same, seeds = of_same_seeds(base, found), sorted(line["seed"] for line in found)
        tests = [line for line in compared.get((arm, round_), []) if line["seeds"] == seeds]
        weights = ", ".join(f"{weight:g}" for weight in sorted({line["vote"] for line in found}))
        cells = [arm, str(round_), str(len(found)), weights]
        for part, metric in HEADLINE:
            value = mean_and_deviation(np.array([line[part][metric] for line in found]), ".4f")
            test = tests[0][metric if part == "test" else f"{part}/{metric}"] if tests else None
            before = float(np.mean([line[part][metric] for line in same])) if same else np.nan
            p = None if test is None else test["p_value"]
            cells += [value, interval(test, before), known(np.nan if p is None else p, ".4f")]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


_SUMMARY = {
    "one round, the successor alone": ("rsir", 1),
    "two bases": ("base, two seeds", 0),
    "one round": ("rsir, all", 1),
    "four bases": ("base, four seeds", 0),
    "three rounds": ("rsir, all", 3),
}
"""Columns of the summary: arms and rounds."""


def _summary(lines: Lines) -> list[str]:
    """Gains of every data set and backbone at a glance."""
    rows = [
        f"Change of test Recall@10 / NDCG@10 against the base of the same seeds; bold where p < {_SIGNIFICANT}; in "
        "brackets the seeds, where they are fewer.",
        "",
        "| data | backbone | seeds | " + " | ".join(_SUMMARY) + " |",
        "|---|---|---|" + "---|" * len(_SUMMARY),
    ]
    for group in groups_of(lines):
        trained = trainings(lines, group)
        cells = [*group, str(len(trained["base", 0]))]
        for column, gains in _gains(lines, group).items():
            shown = (f"**{gain:+.1%}**" if p < _SIGNIFICANT else f"{gain:+.1%}" for gain, p in gains)
            cells.append(" / ".join(shown) + (_fewer(trained, _SUMMARY[column]) if gains else ""))
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _beside_the_paper(lines: Lines) -> list[str]:
    """Recall@10 of SASRec as published, and here."""
    groups = [(data, "sasrec") for data in _PUBLISHED if (data, "sasrec") in groups_of(lines)]
    rows = [
        "Test Recall@10 of SASRec beside the paper's (arXiv 2602.15659). How a base is trained decides the levels: "
        "compare changes.",
        "",
        "| data | paper: best other method | RSIR, one round | three rounds | here: base | "
        + " | ".join(_SUMMARY)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(_SUMMARY),
    ]
    for group in groups:
        trained = trainings(lines, group)
        other, *published = _PUBLISHED[group[0]]
        cells = [group[0], f"{other:.4f}"]
        cells += ["" if value is None else f"{value:.4f} ({value / other - 1:+.1%})" for value in published]
        cells.append(f"{np.mean([line['test']['recall@10'] for line in trained['base', 0]]):.4f}")
        for key in _SUMMARY.values():
            shown = _with_gain(trained[key], trained["base", 0]) if key in trained else ""
            cells.append(shown + (_fewer(trained, key) if shown else ""))
        rows.append("| " + " | ".join(cells) + " |")
    return rows if groups else []


def _fewer(trained: dict[tuple[str, int], list[Line]], key: tuple[str, int]) -> str:
    """How many seeds an arm was trained with, where the base was with more."""
    seeds = len(trained[key])
    return f" ({seeds})" if seeds < len(trained["base", 0]) else ""


def _with_gain(found: list[Line], base: list[Line]) -> str:
    mean = np.mean([line["test"]["recall@10"] for line in found])
    return f"{mean:.4f} ({_gain(found, of_same_seeds(base, found), 'recall@10'):+.1%})"


def _gains(lines: Lines, group: Group) -> dict[str, list[tuple[float, float]]]:
    """By column of the summary: gain over the base of the same seeds and its p, of each metric; none if not trained."""
    trained, compared = trainings(lines, group), trainings(lines, group, "comparison")
    found: dict[str, list[tuple[float, float]]] = {column: [] for column in _SUMMARY}
    for column, key in _SUMMARY.items():
        for metric in METRICS if key in trained else ():
            p = _p_value(compared.get(key, []), trained[key], metric)
            found[column].append((_gain(trained[key], of_same_seeds(trained["base", 0], trained[key]), metric), p))
    return found


def _p_value(comparisons: list[Line], found: list[Line], metric: str) -> float:
    """Of the comparison that is over the seeds of these trainings; nan if there is none."""
    seeds = sorted(line["seed"] for line in found)
    of_these = [line[metric]["p_value"] for line in comparisons if line["seeds"] == seeds]
    return np.nan if not of_these or of_these[0] is None else float(of_these[0])


def _gain(found: list[Line], base: list[Line], metric: str, part: str = "test") -> float:
    """Change of the mean against the base's."""
    after, before = (np.mean([line[part][metric] for line in lines]) if lines else np.nan for lines in (found, base))
    return float(after / before - 1)


def _costs(lines: Lines, group: Group) -> list[str]:
    """What every arm took, in all, for what it gained on validation."""
    trained = trainings(lines, group)
    rows = [
        "| arm | round | seconds | 10^12 operations | validation NDCG@20 | of both for +1% |",
        "|---|---|---|---|---|---|",
    ]
    before, taken = _mean(trained["base", 0], "seconds"), _mean(trained["base", 0], "operations")
    reference = float(np.mean([line["validation"][CRITERION] for line in trained["base", 0]]))
    for (arm, round_), found in trained.items():
        seconds, operations = _mean(found, "seconds"), _mean(found, "operations")
        value = float(np.mean([line["validation"][CRITERION] for line in found]))
        gain = 100 * (value / reference - 1)
        each = gain if gain > 0 else np.nan
        extra = known((seconds - before) / each, "+,.0f", " s"), known((operations - taken) / 1e12 / each, "+,.1f")
        took = known(seconds, ",.0f"), known(operations / 1e12, ",.1f")
        cells = [arm, str(round_), *took, f"{value:.4f}", ", ".join(filter(None, extra))]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _measurements(measured: dict[tuple[str, int], list[Line]]) -> list[str]:
    """What else was measured of each arm and round: mean and deviation over seeds."""
    place = {"kind", "data", "backbone", "arm", "seed", "round", "settings", "recipe"}
    names = [name for name in next(iter(measured.values()))[0] if name not in place]
    rows = [f"| arm | round | seeds | {' | '.join(names)} |", "|---|---|---|" + "---|" * len(names)]
    for (arm, round_), found in measured.items():
        cells = [arm, str(round_), str(len(found))]
        for name in names:
            values = [line[name] for line in found]
            missing = any(value is None for value in values)
            cells.append("" if missing else mean_and_deviation(np.array(values), "#.4g"))
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _mean(found: list[Line], name: str) -> float:
    return float(np.mean([line.get(name, np.nan) for line in found]))


def _cells(found: list[Line], base: list[Line], part: str, metric: str, arm: str) -> list[str]:
    """Mean and deviation over seeds, and the change of the mean."""
    change = _gain(found, base, metric, part)
    values = np.array([line[part][metric] for line in found])
    return [mean_and_deviation(values, ".4f"), "" if arm == "base" or np.isnan(change) else f"{change:+.1%}"]


def _pictures(studies: dict[str, Lines], folder: Path) -> dict[str, str]:
    """Draw gains at a glance and gains by round; -> the files, relative to the folder."""
    drawn: dict[str, str] = {}
    for name, draw in (("main", _draw_gains), ("rounds", _draw_rounds)):
        if name in studies:
            drawn[name] = f"results-{name}.svg"
            save(draw(studies[name]), folder / drawn[name])
    return drawn


def _draw_gains(lines: Lines) -> Any:
    """The summary as bars."""
    groups = groups_of(lines)
    figure, axes = panels(len(METRICS))
    by_group = [_gains(lines, group) for group in groups]
    figure.set_size_inches(max(9.0, 1.4 * len(groups)), 3.4)
    width = 0.8 / len(_SUMMARY)
    for place, (metric, axis) in enumerate(zip(METRICS, axes, strict=True)):
        for number, column in enumerate(_SUMMARY):
            values = [100 * gains[column][place][0] if gains[column] else np.nan for gains in by_group]
            where = np.arange(len(groups)) + (number - (len(_SUMMARY) - 1) / 2) * width
            axis.bar(where, values, width, label=column)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set(title=f"test {title(metric)}, change against the base (%)", xticks=range(len(groups)))
        axis.set_xticklabels([f"{data.removeprefix('amazon-')}\n{backbone}" for data, backbone in groups], fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(_SUMMARY), frameon=False)
    return figure


def _draw_rounds(lines: Lines) -> Any:
    """Lines by round, a panel for each data set and backbone: a successor alone dashed, the models of all rounds solid.

    Pairs, which lie between the others, are left out.
    """
    groups = groups_of(lines)
    figure, axes = panels(len(groups))
    by_group = [_gains_by_round(lines, group, "ndcg@10") for group in groups]
    arms = [arm for arm in dict.fromkeys(arm for gains in by_group for arm in gains) if not arm.endswith(", pair")]
    recipes = list(dict.fromkeys(arm.removesuffix(", all") for arm in arms))
    for axis, group, gains in zip(axes, groups, by_group, strict=True):
        for arm in arms:
            values, recipe = gains.get(arm, {}), arm.removesuffix(", all")
            look = {"color": f"C{recipes.index(recipe)}", "linestyle": "--" if arm == recipe else "-"}
            axis.plot(list(values), [100 * gain for gain in values.values()], marker="o", label=arm, **look)
        axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        rounds = range(1 + max((max(values) for values in gains.values()), default=0))
        axis.set(title=f"{group[0]}, {group[1]}", xlabel="round", ylabel="change of test NDCG@10 (%)", xticks=rounds)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms) or 1, frameon=False)
    return figure


def _gains_by_round(lines: Lines, group: Group, metric: str) -> dict[str, dict[int, float]]:
    """By arm and round, the change of a test metric against the base of the same seeds; arms that have rounds."""
    trained = trainings(lines, group)
    gains: dict[str, dict[int, float]] = {}
    for (arm, round_), found in trained.items():
        if round_:
            gain = _gain(found, of_same_seeds(trained["base", 0], found), metric)
            gains.setdefault(arm, {0: 0.0})[round_] = gain
    return gains
