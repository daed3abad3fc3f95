"""Every setting of a run, as frozen dataclasses that check themselves and round-trip through JSON.

Defaults follow the paper; where they differ from the authors' released code, the field says so.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

__all__ = [
    "AcquisitionConfig",
    "ConfigError",
    "DataConfig",
    "DistillationConfig",
    "FidelityConfig",
    "GenerationConfig",
    "ModelConfig",
    "RecursionConfig",
    "SimulationConfig",
    "TrainingConfig",
    "from_dict",
    "to_dict",
]


class ConfigError(ValueError):
    """A setting is unknown or out of its range; the message names it, what was expected and what came."""


def _require(condition: bool, name: str, expected: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{name}: expected {expected}, got {value!r}")


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    _require(value in choices, name, "one of " + ", ".join(choices), value)


@dataclass(frozen=True)
class SimulationConfig:
    """The embedded data set: users on a planted preference manifold, with popularity skew and short histories.

    Attributes
    ----------
    num_users
        Number of users.
    num_items
        Size of the catalogue.
    mean_length
        Mean number of interactions of a user (the least is 5).
    seed
        Seed of the simulator; the run's own seed does not change the data.
    """

    num_users: int = 4000
    num_items: int = 2400
    mean_length: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.num_users >= 2, "simulation.num_users", "at least 2", self.num_users)
        _require(self.num_items >= 10, "simulation.num_items", "at least 10", self.num_items)
        _require(self.mean_length >= 5, "simulation.mean_length", "at least 5", self.mean_length)
        _require(self.seed >= 0, "simulation.seed", "0 or more", self.seed)


@dataclass(frozen=True)
class DataConfig:
    """Where interactions come from and how they are filtered and split.

    Attributes
    ----------
    path
        File of interactions (text, CSV, Parquet, Arrow, RecBole .inter or .pth lists), or folder of Parquet files; none
        means the embedded simulated data.
    format
        Format of the file; auto goes by its extension.
    user
        Column of user ids; detected when not given.
    item
        Column of item ids; detected when not given.
    time
        Column of timestamps; detected when not given.
    rating
        Column of ratings; detected when not given, needed only with min_rating.
    min_rating
        Drop interactions rated lower than this.
    k_core
        Drop users and items with fewer interactions than this, until none is left (0 keeps all).
    split
        leave-one-out (last item test, the one before it validation) or global-time.
    validation_fraction
        Share of the newest interactions before the test period used for validation
        (global-time only).
    test_fraction
        Share of the newest interactions used for testing (global-time only).
    target
        Which held-out item of a user is to be predicted (global-time only).
    """

    path: str | None = None
    format: Literal["auto", "text", "csv", "parquet", "arrow", "inter", "pth"] = "auto"
    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    min_rating: float | None = None
    k_core: int = 0
    split: Literal["leave-one-out", "global-time"] = "leave-one-out"
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    target: Literal["last", "first", "all", "random"] = "last"

    def __post_init__(self) -> None:
        _choice("data.format", self.format, ("auto", "text", "csv", "parquet", "arrow", "inter", "pth"))
        _choice("data.split", self.split, ("leave-one-out", "global-time"))
        _choice("data.target", self.target, ("last", "first", "all", "random"))
        _require(self.k_core >= 0, "data.k_core", "0 or more", self.k_core)
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            _require(0 < value < 0.5, f"data.{name}", "between 0 and 0.5", value)


@dataclass(frozen=True)
class ModelConfig:
    """The backbone; defaults are the SASRec of the RSIR authors.

    :meth:`for_backbone` gives the defaults of the others; on the command line ``--model NAME`` does.

    Attributes
    ----------
    name
        Registered name of the backbone.
    dim
        Width d of the embeddings and hidden states.
    layers
        Number of transformer blocks, or of recurrent layers (gru4rec).
    heads
        Attention heads; must divide dim (gru4rec has none).
    feedforward
        Width of the feed-forward layer (gru4rec: of the hidden state; hstu has none).
    dropout
        Dropout probability.
    max_len
        Longest prefix that is encoded; older items are cut off.
    contrastive_weight
        Weight of the contrastive loss (cl4srec only; lambda in its paper).
    crop
        Share of a sequence that a cropped view keeps (cl4srec only; eta in its paper).
    mask
        Share of a sequence that a masked view hides (cl4srec only; gamma in its paper).
    reorder
        Share of a sequence that a reordered view shuffles (cl4srec only; beta in its paper).
    """

    name: str = "sasrec"
    dim: int = 64
    layers: int = 2
    heads: int = 2
    feedforward: int = 128
    dropout: float = 0.5
    max_len: int = 50
    contrastive_weight: float = 0.1
    crop: float = 0.6
    mask: float = 0.3
    reorder: float = 0.6

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "feedforward"):
            _require(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))
        _require(self.max_len >= 2, "model.max_len", "at least 2", self.max_len)
        _require(self.dim % self.heads == 0, "model.heads", f"a divisor of dim {self.dim}", self.heads)
        _require(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)
        _require(
            0 <= self.contrastive_weight < float("inf"),
            "model.contrastive_weight",
            "a number of 0 or more",
            self.contrastive_weight,
        )
        for name in ("crop", "mask", "reorder"):
            _require(0 <= getattr(self, name) <= 1, f"model.{name}", "a share in [0, 1]", getattr(self, name))

    def for_backbone(self, name: str) -> ModelConfig:
        """The same settings for another backbone; those that are at their default take the other one's default."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        ours, theirs = ({**defaults, **_OWN_DEFAULTS.get(which, {})} for which in (self.name, name))
        changes = {key: value for key, value in theirs.items() if getattr(self, key) == ours[key]}
        return dataclasses.replace(self, **{**changes, "name": name})


_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "esasrec": {"dropout": 0.2},  # its authors' settings for Amazon Toys
    "gru4rec": {"layers": 1},  # its paper: a second layer made it worse
}
"""What a backbone's defaults differ in from SASRec's."""


@dataclass(frozen=True)
class TrainingConfig:
    """How one backbone is trained.

    Attributes
    ----------
    batch_size
        Sequences a step.
    learning_rate
        Step size of Adam.
    negatives
        Negative items shared by a batch. No fewer than the catalogue has: all of them, the full
        softmax.
    proposal
        What negatives are drawn from: uniform, or popularity: by how often an item occurs in the training set, with the
        log-Q correction.
    patience
        Validations without a better NDCG@20 before training stops.
    evaluate_every
        Steps between validations; none means one pass over the real sequences, so that training
        sets of different sizes are compared by steps, and at least 10.
    max_evaluations
        Most validations of one training.
    synthetic_weight
        Weight of a synthetic sequence's loss beside 1 for a real one.
    ema
        Decay of an exponential moving average of the weights, which is what is validated and kept; 0 is off.
    """

    batch_size: int = 256
    learning_rate: float = 1e-3
    negatives: int = 1024
    proposal: Literal["uniform", "popularity"] = "uniform"
    patience: int = 20
    evaluate_every: int | None = None
    max_evaluations: int = 200
    synthetic_weight: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        for name in ("batch_size", "negatives", "patience", "max_evaluations"):
            _require(getattr(self, name) >= 1, f"training.{name}", "at least 1", getattr(self, name))
        _choice("training.proposal", self.proposal, ("uniform", "popularity"))
        _require(self.learning_rate > 0, "training.learning_rate", "above 0", self.learning_rate)
        _require(self.synthetic_weight >= 0, "training.synthetic_weight", "0 or more", self.synthetic_weight)
        _require(0 <= self.ema < 1, "training.ema", "in [0, 1)", self.ema)
        if self.evaluate_every is not None:
            _require(self.evaluate_every >= 1, "training.evaluate_every", "at least 1", self.evaluate_every)


@dataclass(frozen=True)
class GenerationConfig:
    """Bounded exploration (RSIR, section 3): how trajectories are drawn.

    Attributes
    ----------
    p
        Probability that a step chooses from the source's own items and not from the whole catalogue.
    m
        Trajectories a source.
    k
        A step draws from the k best items of its pool; 1 is greedy.
    temperature
        Softmax temperature of the draw (no effect when k is 1).
    start
        What a trajectory starts from: the first item of its source (the authors' code) or a random
        prefix (the paper's text).
    min_length
        Shorter trajectories are dropped.
    keep_copies
        Keep trajectories that equal a prefix of their source.
    slots
        Trajectories decoded side by side; bounds memory, never changes results.
    """

    p: float = 0.5
    m: int = 10
    k: int = 3
    temperature: float = 1.0
    start: Literal["first", "prefix"] = "first"
    min_length: int = 3
    keep_copies: bool = False
    slots: int = 2048

    def __post_init__(self) -> None:
        _require(0 <= self.p <= 1, "generation.p", "a probability in [0, 1]", self.p)
        _require(1 <= self.m < 2**16, "generation.m", "in 1..65535", self.m)
        _require(self.k >= 1, "generation.k", "at least 1", self.k)
        _require(0 < self.temperature < float("inf"), "generation.temperature", "above 0", self.temperature)
        _require(self.min_length >= 2, "generation.min_length", "at least 2", self.min_length)
        _require(self.slots >= 1, "generation.slots", "at least 1", self.slots)
        _choice("generation.start", self.start, ("first", "prefix"))


@dataclass(frozen=True)
class FidelityConfig:
    """The check that keeps trajectories on the user's preference manifold.

    Attributes
    ----------
    policy
        rank (the paper), neighbours (nearest-neighbour fidelity), both, or off (the ablation that collapses).
    tau
        A step passes when some unused real item ranks within tau; a list gives a value a round, the last one
        for all further rounds; none means 50, the best on validation of Amazon Toys and Beauty, or a twentieth of the
        items where there are fewer than 1,000.
    neighbours
        K of the item-item nearest-neighbour graph; a list gives a value a round.
    hits
        A new item must be among the K neighbours of at least this many of the source's real items.
    verify
        Catalogues above 200,000 items are screened by a FAISS index, which proves most failures without a scan. exact
        scans what is not proved; trust accepts it, scans a sample and reports the share that should have failed.
    on_fail
        drop refuses the item that caused the failure (the paper); keep leaves it (the authors' code).
    """

    policy: Literal["rank", "neighbours", "both", "off"] = "rank"
    tau: int | list[int] | None = None
    neighbours: int | list[int] = 20
    hits: int = 1
    verify: Literal["exact", "trust"] = "exact"
    on_fail: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        _choice("fidelity.policy", self.policy, ("rank", "neighbours", "both", "off"))
        _choice("fidelity.verify", self.verify, ("exact", "trust"))
        _choice("fidelity.on_fail", self.on_fail, ("drop", "keep"))
        _require(self.hits >= 1, "fidelity.hits", "at least 1", self.hits)
        for name in ("tau", "neighbours"):
            values = getattr(self, name)
            if values is None:
                continue
            values = values if isinstance(values, list) else [values]
            _require(
                len(values) > 0 and all(v >= 1 for v in values),
                f"fidelity.{name}",
                "a number of at least 1, or a list of them",
                getattr(self, name),
            )


@dataclass(frozen=True)
class AcquisitionConfig:
    """Which verified trajectories enter the next training set.

    Attributes
    ----------
    policy
        all (the RSIR paper); capped: at most cap a source, chosen at random; disagreement (DA-RSIR): those of a source
        are ordered by how much the model disagrees with itself under dropout, and one is drawn from each of cap strata.
    cap
        Most trajectories a source (not with all); 3 as in DA-RSIR: low, middle and high disagreement.
    passes
        Forward passes with dropout (disagreement only).
    """

    policy: Literal["all", "capped", "disagreement"] = "all"
    cap: int = 3
    passes: int = 8

    def __post_init__(self) -> None:
        _choice("acquisition.policy", self.policy, ("all", "capped", "disagreement"))
        _require(self.cap >= 1, "acquisition.cap", "at least 1", self.cap)
        _require(self.passes >= 2, "acquisition.passes", "at least 2", self.passes)


@dataclass(frozen=True)
class DistillationConfig:
    """Soft targets: a successor learns from what the generator expected, too, and not only from the items that came.

    Attributes
    ----------
    share
        Share of the targets that are replaced, anew at each step, by a draw from the generator's expectation; 0 is off.
    targets
        Those of the synthetic sequences alone, or of all.
    k
        The generator's best k items make up its expectation, the history left out.
    temperature
        Softmax temperature of the expectation.
    """

    share: float = 0.0
    targets: Literal["synthetic", "all"] = "all"
    k: int = 20
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require(0 <= self.share <= 1, "distillation.share", "in [0, 1]", self.share)
        _choice("distillation.targets", self.targets, ("synthetic", "all"))
        _require(self.k >= 1, "distillation.k", "at least 1", self.k)
        _require(0 < self.temperature < float("inf"), "distillation.temperature", "above 0", self.temperature)


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
        was measured on the embedded data; with less the guard is stricter. docs/robustness.md has how to measure it.
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
    guard_noise: float = 0.03
    data: DataConfig = field(default_factory=DataConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    def __post_init__(self) -> None:
        _require(0 <= self.rounds < 2**15, "rounds", "in 0..32767", self.rounds)
        _require(0 <= self.seed < 2**63, "seed", "in 0..2**63 - 1", self.seed)
        _require(self.stop_after >= 1, "stop_after", "at least 1", self.stop_after)
        _require(0 <= self.guard_noise < 1, "guard_noise", "in [0, 1)", self.guard_noise)
        _choice("sources", self.sources, ("real", "all"))
        _choice("successor", self.successor, ("scratch", "finetune"))
        _choice("retention", self.retention, ("none", "pair", "all"))
        _choice("item_table", self.item_table, ("float32", "float16"))


Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values; :func:`from_dict` reads it back."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: Mapping[str, Any], where: str = "") -> Config:
    """Build a configuration from JSON values, refusing unknown keys and wrong types.

    Parameters
    ----------
    kind : a configuration dataclass
    values : mapping
        May leave out any key that has a default.
    where : str
        Dotted name of the mapping, for messages.

    Raises
    ------
    ConfigError
        Names the key, what was expected and what came.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'configuration'}: expected a mapping, got {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in names:
            raise ConfigError(f"{name}: unknown option; known here: {', '.join(names)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            arguments[key] = from_dict(typing.cast(type, hint), value, name)
        else:
            arguments[key] = _typed(hint, value, name)
    return kind(**arguments)


def _typed(hint: Any, value: Any, name: str) -> Any:
    """The value, an int widened where a float is due; ConfigError when it does not fit the annotation."""
    if _fits(hint, value):
        return value
    if type(value) is int and abs(value) < 2**1000 and _fits(hint, float(value)):
        return float(value)
    if typing.get_origin(hint) is Literal:
        expected = "one of " + ", ".join(map(str, typing.get_args(hint)))
    else:
        expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise ConfigError(f"{name}: expected {expected}, got {value!r}")


def _fits(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(option, value) for option in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(typing.get_args(hint)[0], v) for v in value)
    return type(value) is hint or (hint is type(None) and value is None)
