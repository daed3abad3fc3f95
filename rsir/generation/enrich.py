"""Enrichment with a model of one's own: generate, verify and acquire, once."""

from __future__ import annotations

from rsir.config import AcquisitionConfig, FidelityConfig, GenerationConfig
from rsir.data.alignment import check_catalogue
from rsir.data.sequences import Sequences
from rsir.generation.acquisition import acquire
from rsir.generation.fidelity import build
from rsir.generation.generate import generate
from rsir.models.protocol import Backbone, check_backbone
from rsir.ops import ItemTable
from rsir.runtime.progress import Progress, silent
from rsir.runtime.torch_state import plain_torch

__all__ = ["enrich"]


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
    fidelity = fidelity or FidelityConfig()
    found = generate(
        encoder,
        real,
        generation or GenerationConfig(),
        build(fidelity, encoder.item_embeddings().detach(), round_, table),
        seed=seed,
        round_=round_,
        on_fail=fidelity.on_fail,
        table=table,
        threads=threads,
        progress=progress,
    )
    new = acquire(found.trajectories, acquisition or AcquisitionConfig(), encoder, seed=seed, round_=round_)
    return Sequences.concat(data, new)
