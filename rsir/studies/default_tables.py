"""The tables of the study ``default``: what a run recommends with, beside what it has to be better than."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsir.config.counting import FIXED
from rsir.metrics import CRITERION, HEADLINE, title
from rsir.studies.comparisons import BEFORE, BESIDE_BASES, BESIDE_RUNS, COUNTED
from rsir.studies.lines import BASES, METRICS, WITH_COUNT, Lines
from rsir.studies.tables import (
    Group,
    Line,
    groups_of,
    holm,
    interval,
    known,
    mean_and_deviation,
    of_same_seeds,
    trainings,
)

__all__ = ["glance", "group_tables"]

Trained = dict[tuple[str, int], list[Line]]

_RUN = f"rsir, all{WITH_COUNT}"
_BASE = f"base{WITH_COUNT}", 0
_NETWORKS = {"base": "base network", "rsir": "round {}: newest network", "rsir, all": "round {}: all networks"}
_VOTERS = {"found": "the found values", "fixed": "the fixed ones"}
_PUBLISHED: dict[
    str, list[tuple[str, float, float | None, str]]
] = {  # one network each, the same files and protocol: test Recall@10 and NDCG@10
    "amazon-toys": [("SASRec, sampled softmax", 0.0970, 0.0580, "eSASRec"), ("eSASRec", 0.0939, 0.0538, "eSASRec")],
    "amazon-beauty": [
        ("BSARec", 0.1008, 0.0611, "BSARec"),
        ("SASRec, sampled softmax", 0.0921, 0.0531, "eSASRec"),
        ("eSASRec", 0.0928, 0.0523, "eSASRec"),
    ],
    "amazon-sports": [
        ("BSARec", 0.0612, None, "BSARec"),
        ("SASRec, sampled softmax", 0.0569, 0.0314, "eSASRec"),
        ("eSASRec", 0.0560, 0.0323, "eSASRec"),
    ],
}
_SOURCES = {
    "BSARec": "[arXiv 2312.10325](https://arxiv.org/abs/2312.10325)",
    "eSASRec": "[transformer_benchmark](https://github.com/blondered/transformer_benchmark)",
}


def glance(lines: Lines) -> list[str]:
    """Test metrics of every data set and backbone, a row each; and what others published on these data."""
    rounds = max((line["round"] for line in lines if line["kind"] == "training" and line["arm"] == _RUN), default=0)
    columns = {"popularity": ("popularity", 0), "count": ("count", 0), "base network": ("base", 0), "base": _BASE}
    columns |= {f"round {k}": (_RUN, k) for k in range(1, rounds + 1)}
    columns |= {f"{count} bases": (f"{arm}{WITH_COUNT}", 0) for count, arm in BASES.items()}
    rows = [
        "Test Recall@10 / NDCG@10, means over seeds; in brackets the seeds, where they are fewer. The count votes from "
        "the column `base` on. `chosen`: the round that validation chooses, of each seed, which may be the base; its "
        "gains are over base and count. Seconds: base and all rounds.",
        "",
        f"| data | backbone | seeds | {' | '.join(columns)} | chosen | seconds |",
        "|---|---|---|" + "---|" * (len(columns) + 2),
    ]
    for group in groups_of(lines):
        trained = trainings(lines, group)
        seeds = len(trained["base", 0])
        cells = [*group, str(seeds)]
        for key in columns.values():
            found = trained.get(key, [])
            fewer = f" ({len(found)})" if 0 < len(found) < seeds else ""
            cells.append(_metrics(found) + fewer)
        chosen = _chosen(trained)
        cells.append(_metrics(chosen) + _gains(chosen, of_same_seeds(trained.get(_BASE, []), chosen)))
        last = trained.get((_RUN, max((k for arm, k in trained if arm == _RUN), default=0)), [])
        cells.append(f"{np.mean([line['seconds'] for line in last]):,.0f}" if last else "")
        rows.append("| " + " | ".join(cells) + " |")
    return [*rows, "", *_published(lines)]


def _metrics(found: Sequence[Line]) -> str:
    return " / ".join(f"{np.mean([line['test'][metric] for line in found]):.4f}" for metric in METRICS) if found else ""


def _gains(found: Sequence[Line], base: Sequence[Line]) -> str:
    if not found or not base:
        return ""
    after, before = ([np.mean([line["test"][metric] for line in some]) for metric in METRICS] for some in (found, base))
    return f" ({' / '.join(f'{a / b - 1:+.1%}' for a, b in zip(after, before, strict=True))})"


def _chosen(trained: Trained) -> list[Line]:
    """Of every seed that has rounds, the base or the round with the best validation."""
    by_seed: dict[int, list[Line]] = {}
    for (arm, round_), found in trained.items():
        if arm == _RUN or (arm, round_) == _BASE:
            for line in found:
                by_seed.setdefault(line["seed"], []).append(line)
    return [max(own, key=lambda line: line["validation"][CRITERION]) for own in by_seed.values() if len(own) > 1]


def _published(lines: Lines) -> list[str]:
    """What others published of single networks on the data that there are lines of."""
    data = [name for name in dict.fromkeys(name for name, _ in groups_of(lines)) if name in _PUBLISHED]
    rows = [
        "One network as its authors, or others, published it on the same files, the whole catalogue ranked:",
        "",
        "| data | network | Recall@10 | NDCG@10 | source |",
        "|---|---|---|---|---|",
    ]
    for name in data:
        for network, recall, ndcg, source in _PUBLISHED[name]:
            cells = [name, network, f"{recall:.4f}", "" if ndcg is None else f"{ndcg:.4f}", _SOURCES[source]]
            rows.append("| " + " | ".join(cells) + " |")
    return rows if data else []


def group_tables(lines: Lines, group: Group) -> list[str]:
    """Of one data set and backbone: what recommends, what it is compared with, and the networks alone."""
    tested, trained = _corrected(lines), trainings(lines, group)
    return [
        f"### {group[0]}, {group[1]}",
        "",
        *_of_the_search(trained),
        *_recommenders(trained, trainings(tested, group, COUNTED)),
        "",
        *_against(trained, tested, group),
        "",
        *_networks(trained, trainings(tested, group, "comparison")),
    ]


def _corrected(lines: Lines) -> list[Line]:
    """The lines, every test that is shown with "held": whether it holds among all of them, of all data."""
    shown = [
        (line, name)
        for line in lines
        for name, test in line.items()
        if line["kind"] != "training" and isinstance(test, dict) and "p_value" in test
        if line["kind"] != "comparison" or line["arm"] in _NETWORKS
    ]
    held = holm([line[name]["p_value"] for line, name in shown])
    marks: dict[int, Line] = {}
    for (line, name), holds in zip(shown, held, strict=True):
        marks.setdefault(id(line), {})[name] = line[name] | {"held": holds}
    return [line | marks.get(id(line), {}) for line in lines]


def _of_the_search(trained: Trained) -> list[str]:
    """What the search of the count's parameters found, and whether that votes."""
    found = next((line["parameters"] for line in trained.get(("count", 0), []) if "parameters" in line), None)
    if found is None:
        return []
    names = ", ".join(f"`{name}` {value:g}" for name in FIXED if (value := found[name]) != FIXED[name])
    seeds = {by: [line["seed"] for line in trained.get(_BASE, []) if line.get("voter") == by] for by in _VOTERS}
    votes = [f"{what} (seed {', '.join(map(str, seeds[by]))})" for by, what in _VOTERS.items() if seeds[by]]
    return [f"The count: {names or 'no value'} found; beside the networks vote {' and '.join(votes)}.", ""]


def _recommenders(trained: Trained, compared: Trained) -> list[str]:
    rows = [
        "| recommends | seeds | w | "
        + " | ".join(f"{title(metric, part)} | over base + count" for part, metric in HEADLINE)
        + " | coverage@10 | seconds |",
        "|---|---|---|" + "---|---|" * len(HEADLINE) + "---|---|",
    ]
    for name, key in _rows(trained).items():
        found, same = trained[key], of_same_seeds(trained.get(_BASE, []), trained[key])
        weights = ", ".join(f"{weight:g}" for weight in sorted({line["vote"] for line in found if "vote" in line}))
        cells = [name, str(len(found)), weights]
        for part, metric in HEADLINE:
            cells += [
                mean_and_deviation(np.array([line[part][metric] for line in found]), ".4f"),
                interval(_test(compared.get(key, []), found, part, metric), _mean(same, part, metric)),
            ]
        seconds = np.mean([line.get("seconds", np.nan) for line in found])
        cells += [f"{_mean(found, 'test', 'coverage@10'):.0%}", known(float(seconds), ",.0f")]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _rows(trained: Trained) -> dict[str, tuple[str, int]]:
    """Names of the rows and what they show, in order."""
    rounds = sorted(round_ for arm, round_ in trained if arm == _RUN)
    rows = {"popularity": ("popularity", 0), "count": ("count", 0), "base network": ("base", 0), "base + count": _BASE}
    rows |= {f"round {k}: all networks + count": (_RUN, k) for k in rounds}
    rows |= {f"round {k}: newest network + count": (f"rsir{WITH_COUNT}", k) for k in rounds}
    rows |= {f"{count} bases + count": (f"{arm}{WITH_COUNT}", 0) for count, arm in BASES.items()}
    rows["two runs of one round, all four networks + count"] = f"one round, two seeds{WITH_COUNT}", 1
    rows["three runs of one round, their successors + count"] = f"successors, three seeds{WITH_COUNT}", 1
    return {name: key for name, key in rows.items() if key in trained}


def _against(trained: Trained, lines: Sequence[Line], group: Group) -> list[str]:
    """Each round against the one before, and against as many other networks, all with the count."""
    heads = " | ".join(title(metric, part) for part, metric in HEADLINE)
    rows = [f"| change, 95% interval | seeds | {heads} |", "|---|---|" + "---|" * len(HEADLINE)]
    names = {
        BEFORE: "round {} over round {}",
        BESIDE_BASES: "round {} over {} bases + count",
        BESIDE_RUNS: "round {} over two runs of one round + count",
    }
    for kind, name in names.items():
        for (_, round_), tests in sorted(trainings(lines, group, kind).items()):
            test = tests[0]
            number = round_ - 1 if kind == BEFORE else round_ + 1
            before = test["against"], {BEFORE: round_ - 1, BESIDE_BASES: 0, BESIDE_RUNS: 1}[kind]
            same = [line for line in trained[before] if line["seed"] in test["seeds"]]
            cells = [name.format(round_, number), str(len(test["seeds"]))]
            for part, metric in HEADLINE:
                one = test[metric if part == "test" else f"{part}/{metric}"]
                cells.append(interval(one, _mean(same, part, metric)))
            rows.append("| " + " | ".join(cells) + " |")
    return rows if len(rows) > 2 else []


def _networks(trained: Trained, compared: Trained) -> list[str]:
    """Networks without the count, against the base's."""
    rows = [
        "| without the count | seeds | added | validation NDCG@20 | gain | "
        + " | ".join(f"test {title(metric)} | over the base, 95% interval" for metric in METRICS)
        + " |",
        "|---|---|---|---|---|" + "---|---|" * len(METRICS),
    ]
    keys = sorted((k for k in trained if k[0] in _NETWORKS), key=lambda k: (list(_NETWORKS).index(k[0]), k[1]))
    for arm, round_ in keys:
        found = trained[arm, round_]
        same = of_same_seeds(trained["base", 0], found)
        added = [line["acquired"] for line in found if line.get("acquired") is not None]
        value = mean_and_deviation(np.array([line["validation"][CRITERION] for line in found]), ".4f")
        gain = _mean(found, "validation", CRITERION) / _mean(same, "validation", CRITERION) - 1
        cells = [_NETWORKS[arm].format(round_), str(len(found)), f"{np.mean(added):,.0f}" if added else "", value]
        cells.append("" if arm == "base" else f"{gain:+.1%}")
        for metric in METRICS:
            cells += [
                mean_and_deviation(np.array([line["test"][metric] for line in found]), ".4f"),
                interval(_test(compared.get((arm, round_), []), found, "test", metric), _mean(same, "test", metric)),
            ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _test(tests: Sequence[Line], found: Sequence[Line], part: str, metric: str) -> Line | None:
    """The test that is over the seeds of these trainings."""
    seeds = sorted(line["seed"] for line in found)
    of_these = [test[metric if part == "test" else f"{part}/{metric}"] for test in tests if test["seeds"] == seeds]
    return of_these[0] if of_these else None


def _mean(found: Sequence[Line], part: str, metric: str) -> float:
    return float(np.mean([line[part][metric] for line in found])) if found else np.nan
