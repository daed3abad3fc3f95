"""Other libraries' models as backbones: `from_rectools`, `from_recbole`, `from_huggingface`; any by `from_torch`."""

from rsir.adapters.base import Adapter
from rsir.adapters.huggingface import from_huggingface
from rsir.adapters.plain import from_torch
from rsir.adapters.recbole import from_recbole
from rsir.adapters.rectools import from_rectools

__all__ = ["Adapter", "from_huggingface", "from_recbole", "from_rectools", "from_torch"]
