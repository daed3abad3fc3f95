"""A refit: the best round's recipe trained on all events, validation and test ones too, to serve with.

Its folder::

    refit.json      settings, the rounds of the run it was made from, which networks recommend together, for how many
                    steps each was trained; size and SHA-256 of every other file. Written last: with it there is a refit
    data.parquet    the real sequences
    items.parquet   vectors and titles of the items, where the run has them
    round-00/ ...   model.safetensors and model.json of every network that recommends
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rsir
from rsir import files
from rsir.config import RecursionConfig, TrainingConfig, from_dict, to_dict
from rsir.data import Sequences
from rsir.data.batches import SoftTargets
from rsir.data.io.items import ITEMS, ItemVectors
from rsir.errors import CheckpointError, ConfigError, DataError, RunError
from rsir.models import Ensemble, ItemKnn, checkpoint
from rsir.models.itemknn import with_vote
from rsir.runs.baselines import parameters_of
from rsir.runs.directory import RunDirectory
from rsir.runs.inputs import read_counted_vectors, read_vectors
from rsir.runs.layout import DATA, REFIT
from rsir.runs.lineage import Lineage
from rsir.runs.links import refuse_links
from rsir.runs.results import Run, enriched
from rsir.runs.rounds import RoundResult, best_steps, voters
from rsir.runs.store import Follower, MemoryRun
from rsir.runtime.runtime import Runtime
from rsir.runtime.torch_state import plain_torch
from rsir.training.fit import fit, training_seed
from rsir.training.projection import fold
from rsir.training.soft_targets import counted_targets, soft_targets

if TYPE_CHECKING:
    from torch import nn

__all__ = ["read_refit", "refit"]

_FORMAT = 1
_NOTE = (
    "trained on all events, validation and test ones too, for the steps that validation chose: no metrics of its own"
)


@plain_torch()
def refit(run: Run, out: str | os.PathLike[str] | None, *, runtime: Runtime) -> Run:
    """See :meth:`rsir.runs.results.Run.refit`."""
    if run.refitted:
        raise RunError("this is a refit already, of all events of the run's data; refit the run it was made from")
    folder = None if out is None else files.local(out)
    if folder is not None:
        _check_free(folder)
    items = read_vectors(run.path, run.config, run.data)
    models = _train(run, items, runtime)
    members = list(voters(run.config.retention, run.best))
    if folder is not None:
        _write(run, folder, {round_: models[round_] for round_ in members}, items)
    return _together(run, [models[round_] for round_ in members], folder, items, runtime.threads)


def _train(run: Run, items: ItemVectors | None, runtime: Runtime) -> dict[int, Any]:
    """The models by round: those that recommend, and those that these start from or are taught by."""
    config, best = run.config, run.best
    teaching = config.distillation.share > 0 and config.distillation.teacher != "itemknn"
    chained = config.successor == "finetune" or teaching
    knn = None
    if config.distillation.share > 0 and config.distillation.teacher != "generator":
        parameters = run.rounds[0].itemknn if teaching else parameters_of(run.baselines)
        counting = config.itemknn.filled(parameters)
        knn = ItemKnn.fit(run.data, counting, items=items, threads=runtime.threads)
    lineage = Lineage(MemoryRun(config), config.retention, runtime.device)
    models: dict[int, Any] = {}
    updated = _networks_of_an_update(run)
    for round_ in range(best + 1) if chained else voters(config.retention, best):
        train = run.data if round_ == 0 else enriched(run, round_, held_out=True)
        soft: SoftTargets | None = None
        if teaching and round_ > 0:
            vote = run.rounds[round_ - 1].vote if knn is not None else 0.0
            teacher = with_vote(lineage.recommender(), knn, vote)
            soft = soft_targets(teacher, train, config.distillation, runtime=runtime)
        elif knn is not None and not teaching:
            soft = counted_targets(knn, train, config.distillation, threads=runtime.threads)
        trained = fit(
            config.model,
            _validated_as_often(config.training, run.rounds[round_]),
            train,
            None,
            steps=best_steps(run.rounds[round_], run.rounds[0], config.training),
            seed=training_seed(config.seed, round_),
            init=_initial(config, round_, lineage, updated),
            soft=soft,
            runtime=runtime.within(f"round {round_}"),
        )
        fold(trained.model, items, train, config.training.item_trust)
        models[round_] = trained.model
        lineage.append(round_, trained.model)
    return models


def _validated_as_often(training: TrainingConfig, result: RoundResult) -> TrainingConfig:
    """With the steps between two validations of the run: by default they follow from the data, which are more now, and
    a rate that falls does so over that many."""
    steps = result.history.get("step")
    return replace(training, evaluate_every=int(steps[0])) if steps else training


def _networks_of_an_update(run: Run) -> Follower | None:
    """An update's own networks: its steps were chosen for trainings that start from trained weights."""
    if not run.lineage:
        return None
    if run.path is None:
        raise RunError("this update was made without a folder, and its refit starts from its networks; give it an out")
    return Follower(RunDirectory.open(run.path))


def _initial(config: RecursionConfig, round_: int, lineage: Lineage, updated: Follower | None) -> Any:
    """The model that the training of a round starts from; None starts afresh."""
    if updated is not None:
        return updated.load_model(round_, "cpu")
    return lineage.newest if round_ > 0 and config.successor == "finetune" else None


def _together(run: Run, models: list[Any], folder: Path | None, items: ItemVectors | None, threads: int | None) -> Run:
    vote, parameters = run.rounds[run.best].vote, run.rounds[run.best].itemknn
    counting = run.config.itemknn.filled(parameters)
    knn = ItemKnn.fit(run.data, counting, items=items, threads=threads) if vote else None
    model = with_vote(Ensemble(models) if len(models) > 1 else models[0], knn, vote)
    return Run(run.config, run.data, run.rounds, run.best, model, folder, run.baselines, refitted=True)


def _check_free(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as cause:
        raise files.refused(folder, cause) from cause
    if taken:
        raise RunError(f"{folder}: expected a new or empty folder for the refit; choose another --out")


def _write(run: Run, folder: Path, models: dict[int, nn.Module], items: ItemVectors | None) -> None:
    written: dict[str, dict[str, Any]] = {}
    try:
        files.make_folder(folder)
        run.data.save(folder / DATA)
        written[DATA] = files.digest(folder / DATA)
        if items is not None:
            files.replace(folder / ITEMS, items.encode(run.data))
            written[ITEMS] = files.digest(folder / ITEMS)
        for round_, model in models.items():
            name = f"round-{round_:02d}"
            files.make_folder(folder / name)
            steps = best_steps(run.rounds[round_], run.rounds[0], run.config.training)
            card = {"note": _NOTE, "round": round_, "steps": list(steps), "rounds": list(models)}
            content = checkpoint.to_files(model, run.config.model, data=run.data.fingerprint(), refit=card)
            for file, made in content.items():
                files.replace(folder / name / file, made)
                written[f"{name}/{file}"] = files.digest(folder / name / file)
    except OSError as cause:
        raise files.refused(folder, cause) from cause
    said = {
        "format": _FORMAT,
        "rsir": rsir.__version__,
        "note": _NOTE,
        "of": None if run.path is None else run.path.name,
        "config": to_dict(run.config),
        "best": run.best,
        "members": list(models),
        "rounds": [result.metrics() for result in run.rounds],
        "baselines": run.baselines,
        "files": written,
    }
    files.replace(folder / REFIT, files.to_json(files.plain(said) | {"checksum": files.checksum(files.plain(said))}))


def read_refit(folder: Path, device: str) -> Run:
    """A refit back from its folder.

    Raises
    ------
    RunError
        A file is missing or damaged, or another version of rsir wrote it.
    """
    refuse_links(folder)
    said = files.read_json(folder / REFIT)
    checksum = said.pop("checksum", None)
    if said.get("format") != _FORMAT or checksum != files.checksum(said):
        raise RunError(f"{folder / REFIT}: is damaged, or of another version of rsir: make it again by rsir refit")
    for name, known in said["files"].items():
        path = files.inside(folder, name)
        if not path.exists() or files.digest(path) != known:
            state = "is missing" if not path.exists() else "is not as it was written"
            raise RunError(f"{path}: {state}; make the refit again by rsir refit")
    try:
        config = from_dict(RecursionConfig, said["config"])
        data = Sequences.load(folder / DATA)
        models = [checkpoint.load(folder / f"round-{round_:02d}").to(device) for round_ in said["members"]]
    except (ConfigError, DataError, CheckpointError) as cause:
        raise RunError(f"{cause}; make the refit again by rsir refit") from cause
    rounds = [RoundResult.from_json(metrics, {"seconds": {}, "rates": {}}) for metrics in said["rounds"]]
    run = Run(config, data, rounds, said["best"], models[0], folder, said["baselines"])
    items = read_counted_vectors(folder, config, data) if run.rounds[run.best].vote else None
    return _together(run, models, folder, items, None)
