"""Backbones: the protocols, the registry, and the models that come with the package."""

from rsir.models.bsarec import BSARec
from rsir.models.cl4srec import CL4SRec
from rsir.models.encoding import encode_sequences
from rsir.models.ensemble import Ensemble
from rsir.models.esasrec import ESASRec
from rsir.models.gru4rec import GRU4Rec
from rsir.models.hstu import HSTU
from rsir.models.itemknn import ItemKnn, WithItemKnn
from rsir.models.items import pack_items
from rsir.models.popularity import Popularity
from rsir.models.protocol import (
    AddingBackbone,
    Backbone,
    HistoryBackbone,
    IncrementalBackbone,
    LookupBackbone,
    PrefixBackbone,
    State,
    SteppingBackbone,
    TimedBackbone,
    TrainableBackbone,
    check_backbone,
    require,
)
from rsir.models.registry import build, names, register
from rsir.models.sasrec import SASRec

__all__ = [
    "HSTU",
    "AddingBackbone",
    "BSARec",
    "Backbone",
    "CL4SRec",
    "ESASRec",
    "Ensemble",
    "GRU4Rec",
    "HistoryBackbone",
    "IncrementalBackbone",
    "ItemKnn",
    "LookupBackbone",
    "Popularity",
    "PrefixBackbone",
    "SASRec",
    "State",
    "SteppingBackbone",
    "TimedBackbone",
    "TrainableBackbone",
    "WithItemKnn",
    "build",
    "check_backbone",
    "encode_sequences",
    "names",
    "pack_items",
    "register",
    "require",
]
