"""Settings searched by Optuna over ``rsir.run``: ``pip install optuna; python docs/examples/optuna_search.py FILE``.

A trial is one run, and its value the validation NDCG@20 of its best round; the test figures are looked at once, of the
best trial. Rounds are reported as they end, so that a pruner can end trials that fall behind.
"""

from __future__ import annotations

import sys
from typing import Any

import optuna

import rsir


def objective(trial: optuna.Trial, data: Any, **settings: Any) -> float:
    """One run with settings that the trial suggests."""

    def report(result: Any) -> None:
        trial.report(result.validation["ndcg@20"], result.round)
        if trial.should_prune():
            raise optuna.TrialPruned

    run = rsir.run(
        data=data,
        on_round=report,
        **{
            "rounds": 1,
            "generation.p": trial.suggest_float("generation.p", 0.2, 0.8),
            "fidelity.tau": trial.suggest_int("fidelity.tau", 5, 50, log=True),
            "model.dropout": trial.suggest_float("model.dropout", 0.2, 0.6),
            **settings,
        },
    )
    trial.set_user_attr("test ndcg@10", run.rounds[run.best].test["ndcg@10"])
    return float(run.rounds[run.best].validation["ndcg@20"])


def search(data: Any, trials: int = 20, **settings: Any) -> optuna.Study:
    """A study of so many trials; settings are for every run."""
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner()
    )
    study.optimize(lambda trial: objective(trial, data, **settings), n_trials=trials)
    return study


if __name__ == "__main__":
    found = search(sys.argv[1] if len(sys.argv) > 1 else None)
    print(found.best_params, found.best_value, found.best_trial.user_attrs)
