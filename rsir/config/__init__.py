"""Every setting of a run, as frozen dataclasses that check themselves and round-trip through JSON.

Defaults follow the paper; where they differ from the authors' released code, the field says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from rsir.config.changes import as_text, flat
from rsir.config.counting import ItemKnnConfig
from rsir.config.data import DataConfig, SimulationConfig
from rsir.config.learning import ModelConfig, TrainingConfig, for_backbone
from rsir.config.rounds import AcquisitionConfig, DistillationConfig, FidelityConfig, GenerationConfig
from rsir.config.values import check_types, choice, from_dict, require, to_dict

__all__ = [
    "AcquisitionConfig",
    "DataConfig",
    "DistillationConfig",
    "FidelityConfig",
    "GenerationConfig",
    "ItemKnnConfig",
    "ModelConfig",
    "RecursionConfig",
    "SimulationConfig",
    "TrainingConfig",
    "as_text",
    "changed",
    "flat",
    "from_dict",
    "to_dict",
]


@dataclass(frozen=True)
class RecursionConfig:
    """One run: data, backbone, rounds.

    Attributes
    ----------
    rounds
        Rounds after the base (round 0).
    seed
        Seed of everything drawn: initial weights, batches, negatives, dropout, trajectories.
    accumulate
        Train on everything acquired so far (the authors) and not on the newest round's alone.
    sources
        Generate from all sequences of the training set (the authors) or from the real ones only.
    successor
        Train the successor from scratch or fine-tune its predecessor.
    retention
        Recommend with the newest model alone (none), with it and its predecessor (pair; arXiv 2610.07105), or with the
        models of all rounds so far (all), by the mean of their log-probabilities. What recommends also generates for
        the next round. The vectors to serve are as many times wider as there are models.
    item_table
        What generation, fidelity, evaluation and recommendations score items with: their embeddings (float32), or a
        copy rounded to half precision (float16), which takes half the memory. Training is in float32 either way.
    stop_after
        End the recursion after this many rounds in a row without a better validation NDCG@20.
    guard
        End the recursion at once when a round's validation NDCG@20 is below that of the best round before it by more
        than the noise: than the 95% interval of the difference, which covers the choice of users and of seeds.
    guard_noise
        Standard deviation of validation NDCG@20 between seeds, as a share of it, for the guard's interval. The default
        was measured on five data sets; with less the guard is stricter. docs/robustness.md has how to measure it.
    data
        The interactions.
    simulation
        The embedded data set, used when data.path is not given.
    model
        The backbone.
    training
        Its training.
    generation
        How trajectories are drawn.
    fidelity
        How they are verified.
    acquisition
        Which of them are kept.
    distillation
        What else the successor learns of the generator.
    itemknn
        The count of sequences that every run is measured beside.
    """

    rounds: int = 2
    seed: int = 0
    accumulate: bool = False
    sources: Literal["real", "all"] = "real"
    successor: Literal["scratch", "finetune"] = "scratch"
    retention: Literal["none", "pair", "all"] = "all"
    item_table: Literal["float32", "float16"] = "float32"
    stop_after: int = 2
    guard: bool = True
    guard_noise: float = 0.01
    data: DataConfig = field(default_factory=DataConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    itemknn: ItemKnnConfig = field(default_factory=ItemKnnConfig)

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.rounds < 2**15, "rounds", "in 0..32767", self.rounds)
        require(0 <= self.seed < 2**63, "seed", "in 0..2**63 - 1", self.seed)
        least, most = self.generation.min_length, self.model.max_len
        require(least <= most, "generation.min_length", f"at most model.max_len, {most}", least)
        require(self.stop_after >= 1, "stop_after", "at least 1", self.stop_after)
        require(0 <= self.guard_noise < 1, "guard_noise", "in [0, 1)", self.guard_noise)
        choice("sources", self.sources, ("real", "all"))
        choice("successor", self.successor, ("scratch", "finetune"))
        choice("retention", self.retention, ("none", "pair", "all"))
        choice("item_table", self.item_table, ("float32", "float16"))

    def for_backbone(self, name: str) -> RecursionConfig:
        """The same settings for another backbone; those at their default take the other one's default."""
        training = for_backbone("training", self.training, self.model.name, name)
        return replace(self, model=self.model.for_backbone(name), training=training)


def changed(config: RecursionConfig) -> dict[str, tuple[object, object]]:
    """Settings other than the defaults, (value, default) by dotted name."""
    standard = RecursionConfig()
    own = flat(standard.for_backbone(config.model.name))
    defaults = own | {"model.name": standard.model.name}  # a backbone has defaults of its own
    return {name: (value, defaults[name]) for name, value in flat(config).items() if value != defaults[name]}
