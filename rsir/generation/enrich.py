"""Generate, verify and acquire, wired once: for a round, for Ray's workers, and for a model of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from rsir.config import AcquisitionConfig, FidelityConfig, GenerationConfig
from rsir.config.arguments import typed
from rsir.config.values import require
from rsir.data.alignment import check_catalogue
from rsir.data.sequences import Sequences
from rsir.generation.acquisition import acquire
from rsir.generation.fidelity import Fidelity, build
from rsir.generation.generate import Generated, generate
from rsir.generation.stats import GenerationStats
from rsir.models.itemknn import ItemKnn, Unseen
from rsir.models.items import pack_items
from rsir.models.protocol import Backbone, check_backbone
from rsir.ops import ItemTable
from rsir.runtime.progress import Progress, silent
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpoints
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.runtime.torch_state import plain_torch

__all__ = ["BoundEnricher", "Enricher", "enrich"]


@dataclass(frozen=True)
class Enricher:
    """How training sets are enriched, whichever model generates.

    Attributes
    ----------
    generation : GenerationConfig
    fidelity : FidelityConfig
    acquisition : AcquisitionConfig
    item_table : {"float32", "float16"}
        Precision of the item table that trajectories are scored from.
    seed : int
        Seed of the run.
    runtime : Runtime
    unseen : callable, optional
        Gives the item-kNN without the user, for fidelity policies that judge by it.
    """

    generation: GenerationConfig = field(default_factory=GenerationConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)
    item_table: Literal["float32", "float16"] = "float32"
    seed: int = 0
    runtime: Runtime = RUNTIME
    unseen: Callable[[], Unseen] | None = None

    def bind(self, model: Backbone, round_: int, table: ItemTable | None = None) -> BoundEnricher:
        """Pack the model's items and make the fidelity policy of a round, once for all that is generated with them.

        Parameters
        ----------
        model : Backbone
            The generator.
        round_ : int
            1..32767.
        table : ItemTable, optional
            The model's items, where they are packed already; default: packed here, as ``item_table`` says.
        """
        require(1 <= round_ < 2**15, "round_", "in 1..32767", round_)
        table = pack_items(model, table, dtype=self.item_table, world=self.runtime.world)
        policy = build(self.fidelity, model.item_embeddings().detach(), round_, table, self.runtime, self.unseen)
        return BoundEnricher(self, model, round_, table, policy)


@dataclass(frozen=True)
class BoundEnricher:
    """An :class:`Enricher` with one model in one round."""

    enricher: Enricher
    model: Backbone
    round: int
    table: ItemTable
    policy: Fidelity

    def generate(
        self,
        sources: Sequences,
        checkpointer: Checkpoints = NO_CHECKPOINTS,
        numbers: npt.NDArray[np.int64] | None = None,
    ) -> Generated:
        """Verified trajectories from every row; see :func:`rsir.generation.generate.generate`."""
        return generate(
            self.model,
            sources,
            self.enricher.generation,
            self.policy,
            seed=self.enricher.seed,
            round_=self.round,
            table=self.table,
            checkpointer=checkpointer,
            numbers=numbers,
            runtime=self.enricher.runtime,
        )

    def acquire(self, trajectories: Sequences) -> Sequences:
        """Those that enter the next training set; see :func:`rsir.generation.acquisition.acquire`."""
        how, seed, runtime = self.enricher.acquisition, self.enricher.seed, self.enricher.runtime
        return acquire(trajectories, how, self.model, seed=seed, round_=self.round, runtime=runtime)

    def leak(self, stats: GenerationStats) -> float:
        """Share of the trusted verdicts that a scan would have refused, as measured on a sample; NaN: none trusted."""
        trusting = self.enricher.fidelity.verify == "trust" and self.policy.table is not None
        return stats.leak if trusting else float("nan")


@typed(unchecked=("data",))
@plain_torch()
def enrich(
    data: Sequences,
    encoder: Backbone,
    *,
    generation: GenerationConfig | None = None,
    fidelity: FidelityConfig | None = None,
    acquisition: AcquisitionConfig | None = None,
    seed: int = 0,
    round_: int = 1,
    table: ItemTable | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Sequences:
    """Real sequences and those that a trained model generates from them, verified and acquired.

    Parameters
    ----------
    data : Sequences
        Training sequences (not the events that the model is to be measured by), over the model's own catalogue: item
        id i here is id i there. Trajectories start from its real rows alone; generated rows of earlier rounds stay.
    encoder : Backbone
        Anything that offers ``num_items``, ``max_len``, ``encode`` and ``item_embeddings``; see
        :class:`rsir.models.Backbone` and, for models of other libraries, :mod:`rsir.adapters`.
    generation : GenerationConfig, default: its defaults
    fidelity : FidelityConfig, default: its defaults
    acquisition : AcquisitionConfig, default: its defaults
    seed : int, default 0
    round_ : int, default 1
        Marks the new rows and keys their random numbers.
    table : ItemTable, optional
        The encoder's items, where they are packed already or are to be of half precision
        (:func:`rsir.models.pack_items`); default: packed here.
    threads : int, optional
        CPU threads of the scoring ops; default: torch's number.
    progress : Progress

    Returns
    -------
    Sequences
        `data`, then the new rows, each with the row it came from (`source`) and `round_`.

    Raises
    ------
    BackboneError
        The encoder lacks something, or gives something else than it is to; names it.
    DataError
        No Sequences, or of a catalogue of another size.
    """
    check_backbone(encoder)
    check_catalogue(data, encoder.num_items, type(encoder).__name__)
    real = data if data.num_real == len(data) else data.select(data.is_real)
    enricher = Enricher(
        generation or GenerationConfig(),
        fidelity or FidelityConfig(),
        acquisition or AcquisitionConfig(),
        seed=seed,
        runtime=Runtime(threads=threads, progress=progress),
        unseen=lambda: Unseen(ItemKnn.fit(real, threads=threads), real),
    )
    bound = enricher.bind(encoder, round_, table)
    return Sequences.concat(data, bound.acquire(bound.generate(real).trajectories))
