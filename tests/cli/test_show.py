"""What a run prints about its rounds."""

from __future__ import annotations

from dataclasses import replace

from rsir.cli.show import cut_short, line, rounds_table, verdict
from rsir.config import TrainingConfig
from tests.cli.fake_loop import result


def test_the_table() -> None:
    rounds = [result(0), result(1, 0.0733), result(2, 0.0702)]
    gain, loss = (0.0016, 0.0002, 0.0030), (-0.0007, -0.00215, 0.0008)
    test = {**rounds[1].test, "coverage@10": 0.35}
    rounds[0] = replace(rounds[0], alone_test={"ndcg@10": 0.0480}, vote=4.0)
    alone = {"alone_test": {"ndcg@10": 0.0500}, "alone_against_base": {"test/ndcg@10": [0.002, 0.0048, 0.0072]}}
    rounds[1] = replace(rounds[1], test=test, **alone, vote=0.25, against_base={"test/ndcg@10": list(gain)})
    rounds[2] = replace(rounds[2], against_base={"test/ndcg@10": list(loss)})
    table = rounds_table(rounds, 1)
    assert max(map(len, table.splitlines())) <= 100
    assert table == (
        """\
 round    sequences    generated   verified       kept   kept %    novel   length   seconds
     0       19,412            -          -          -        -        -        -      61.2
   * 1       54,201       97,060     40,122     34,789    35.8%    61.3%      7.4     1,202
     2       54,201       97,060     40,122     34,789    35.8%    61.3%      7.4     1,202

        validation                                         test
 round  NDCG@20          Recall@10        NDCG@10          Recall@10        NDCG@10
     0  0.0711           0.1066           0.0569           0.0960           0.0512
   * 1  0.0733   +3.1%   0.1100   +3.1%   0.0586   +3.1%   0.0990   +3.1%   0.0528   +3.1%
     2  0.0702   -1.3%   0.1053   -1.3%   0.0562   -1.3%   0.0948   -1.3%   0.0505   -1.3%

 round  test NDCG@10    95% interval of the change   network alone  95% interval      coverage  w
     0  0.0512          -                            0.0480         -                 -         4
   * 1  0.0528   +3.1%  +0.4% to +5.9%               0.0500  +4.2%  +10.0% to +15.0%  35.0%     0.25
     2  0.0505   -1.3%  -4.2% to +1.6% (includes 0)  -              -                 -         -
     *  best by validation NDCG@20; changes are against round 0, with 95% intervals over users
     w  weight of the item-kNN beside the networks, chosen on validation"""
    )
    assert "w" not in rounds_table([result(0)], 0).splitlines()[-1].split()


def test_the_table_of_a_base_that_never_hits_and_a_round_that_generated_nothing() -> None:
    nothing = replace(result(1, 0.0), generated=0, acquired=0, novel_share=float("nan"), mean_length=float("nan"))
    table = rounds_table([result(0, 0.0), nothing], 0)
    assert "nan" not in table
    assert "%" not in table.splitlines()[-2]
    assert line(nothing, result(0, 0.0)).endswith("validation NDCG@20 0.0000, 1,202 s")


def test_the_verdict() -> None:
    rounds = [result(0), result(1, 0.0733), result(2, 0.0702)]
    assert verdict(rounds, 1, 2, guard=True) == (
        "Best by validation NDCG@20: round 1\n"
        "           validation NDCG@20 0.0733 (+3.1%)\n"
        "           test Recall@10 0.0990 (+3.1%)\n"
        "           test NDCG@10 0.0528 (+3.1%)"
    )
    unsure = replace(rounds[1], against_base={"test/ndcg@10": [0.0016, -0.0001, 0.0030]})
    assert verdict([rounds[0], unsure], 1, 1, guard=True).endswith(
        "test NDCG@10 0.0528 (+3.1%, 95% interval -0.2% to +5.9% includes 0: not distinguishable from the base)"
    )
    assert verdict(rounds, 1, 5, guard=True).startswith(
        "Ended after round 2 of 5: no gain on validation since round 1.\n"
    )
    assert (
        verdict(rounds, 0, 2, guard=True)
        == "Best by validation NDCG@20: round 0, the base (0.0711; no later round beat it)."
    )
    assert verdict(rounds[:1], 0, 0, guard=True) == "Best by validation NDCG@20: round 0, the base (0.0711)."


def test_trainings_that_were_cut_short_are_named() -> None:
    """Four validations, ten steps apart; one that ended by patience, and ones that did not, or not yet for sure."""
    history = {"step": [10.0, 20.0, 30.0, 40.0], "loss": [1.0] * 4, "ndcg@20": [0.1] * 4}
    rounds = [replace(result(i), steps=40, best_step=best, history=history) for i, best in enumerate((20, 30, 40))]
    assert cut_short(rounds, TrainingConfig(patience=2, max_evaluations=5, real_last=0)) == ""
    assert cut_short(rounds, TrainingConfig(patience=2, max_evaluations=4, real_last=0)).startswith(
        "Note:      training ended at its limit of 4 validations (training.max_evaluations) and not by its patience in "
        "round 1, 2;"
    )
    assert cut_short(rounds, TrainingConfig(patience=2, max_evaluations=4, real_last=0, schedule="cosine")) == ""
    assert (
        cut_short([result(0)], TrainingConfig(max_evaluations=1)) == ""
    )  # a run of an older version, without a history


def test_a_refused_round_is_marked_and_explained() -> None:
    against = {"round": 1, "difference": -0.0102, "low": -0.0151, "high": -0.0053}
    rounds = [result(0), result(1, 0.0733), replace(result(2, 0.0631), against_best=against)]
    assert "\n   - 2       54,201" in rounds_table(rounds, 1)
    assert rounds_table(rounds, 1).endswith(
        "-  worse on validation than the best round before it, by more than the noise"
    )
    assert verdict(rounds, 1, 5, guard=True).startswith(
        "Ended after round 2 of 5: its model is refused, its validation NDCG@20 is 0.0102 below round 1's "
        "(95% interval 0.0053 to 0.0151); --resume --guard false goes on all the same.\nBest by validation"
    )
    assert verdict(rounds, 1, 5, guard=False).startswith(
        "Ended after round 2 of 5: no gain on validation since round 1.\n"
    )


def test_one_line_a_round() -> None:
    voted = replace(result(1, 0.0733), vote=8.0)
    assert line(voted, result(0)).endswith("validation NDCG@20 0.0733 (+3.1%) with the item-kNN (w 8), 1,202 s")
    assert line(result(0), result(0)) == "round 0: 19,412 sequences, validation NDCG@20 0.0711, 61.2 s"
    assert line(result(1, 0.0733), result(0)) == (
        "round 1: 54,201 sequences, 34,789 of 97,060 generated kept, validation NDCG@20 0.0733 (+3.1%), 1,202 s"
    )
