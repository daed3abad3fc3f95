"""How the arms of a study compare with the base, the round before and as many bases: paired tests of kept ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rsir.errors import RunError
from rsir.evaluation import Evaluation, paired_test
from rsir.metrics import HEADLINE
from rsir.studies.lines import BASES, METRICS, WITH_COUNT, Lines, ranks_file

__all__ = ["BEFORE", "BESIDE_BASES", "BESIDE_RUNS", "COUNTED", "compare"]

COUNTED = "comparison with the count"
"""Kind of the lines that compare arms with the item-kNN's vote with the base and that vote."""
BEFORE = "comparison with the round before"
"""Kind of the lines that compare what a run recommends with after a round with the same of the round before."""
BESIDE_RUNS = "comparison with runs of one round"
"""Kind of the lines that compare three rounds with two runs of one round, which have as many networks, and the vote."""
BESIDE_BASES = "comparison with as many bases"
"""Kind of the lines that compare it with bases of as many seeds as it has networks, and the item-kNN's vote."""

Place = tuple[str, int]
"""An arm and a round."""


def compare(lines: Lines) -> None:
    """Write how every arm and round compares with the base, over all seeds that both were trained with; and how those
    with the item-kNN's vote compare with the base and that vote, on validation, too. What a run recommends with is
    compared with the round before, with as many bases, and with as many networks of shorter runs.

    Gains of a user are averaged over seeds first; the test is paired over users.
    """
    test = [("test", metric) for metric in METRICS]
    _compare(lines, "comparison", test, lambda arm, round_: ("base", 0))
    _compare(lines, COUNTED, HEADLINE, lambda arm, round_: _base_and_vote(arm))
    _compare(lines, BEFORE, HEADLINE, _round_before)
    _compare(lines, BESIDE_BASES, HEADLINE, _as_many_bases)
    _compare(lines, BESIDE_RUNS, HEADLINE, _two_runs)


def _base_and_vote(arm: str) -> Place | None:
    return ("base" + WITH_COUNT, 0) if arm.endswith(WITH_COUNT) else None


def _round_before(arm: str, round_: int) -> Place | None:
    return (arm, round_ - 1) if _recommends(arm) and round_ > 1 else None


def _as_many_bases(arm: str, round_: int) -> Place | None:
    return (BASES[round_ + 1] + WITH_COUNT, 0) if _recommends(arm) and round_ + 1 in BASES else None


def _two_runs(arm: str, round_: int) -> Place | None:
    return ("one round, two seeds" + WITH_COUNT, 1) if _recommends(arm) and round_ == 3 else None


def _recommends(arm: str) -> bool:
    """Whether an arm is what a run recommends with: networks of all rounds, and the vote."""
    return arm.endswith(f", all{WITH_COUNT}")


def _compare(
    lines: Lines,
    kind: str,
    metrics: Sequence[tuple[str, str]],
    against: Callable[[str, int], Place | None],
) -> None:
    """Lines of comparisons of each arm and round with what `against` names for it."""
    trained = [line for line in lines if line["kind"] == "training"]
    for data, backbone in dict.fromkeys((line["data"], line["backbone"]) for line in trained):
        place = {"data": data, "backbone": backbone}
        seeds: dict[Place, list[int]] = {}
        for line in trained:
            if place.items() <= line.items():
                seeds.setdefault((line["arm"], line["round"]), []).append(line["seed"])
        for arm, round_ in seeds:
            other = against(arm, round_)
            if other is None or other == (arm, round_):
                continue
            both = sorted(set(seeds[arm, round_]) & set(seeds.get(other, [])))
            if not both:
                continue
            tests = {}
            for part, metric in metrics:
                before, after = (
                    np.mean([_ranks(lines, place, *one, seed, part).gains(metric) for seed in both], axis=0)
                    for one in (other, (arm, round_))
                )
                name = metric if part == "test" else f"{part}/{metric}"
                tests[name] = vars(paired_test(before, after))
            comparison = {"kind": kind, **place, "arm": arm, "round": round_, "against": other[0]}
            lines.put({**comparison, "seeds": both, **tests})


def _ranks(lines: Lines, place: dict[str, str], arm: str, round_: int, seed: int, part: str) -> Evaluation:
    file = ranks_file(lines, place, arm, round_, seed, part)
    fix = "copy the ranks of every machine into one folder, or run this seed again in another --out"
    try:
        return Evaluation({}, np.load(file, allow_pickle=False).astype(np.int64))
    except FileNotFoundError as cause:
        raise RunError(f"{file}: is missing; {lines.path} has its training, whose p-values need it; {fix}") from cause
    except (OSError, ValueError, EOFError) as cause:
        raise RunError(f"{file}: cannot be read ({cause}); {fix}") from cause
