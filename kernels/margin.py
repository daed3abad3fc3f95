"""How far a score of rounded factors can be from the exact float32 one, and so what it decides.

The pass over the catalogue may multiply factors q', e' that are rounded to bfloat16, float16 or TF32. Let x be the
float32 score that the "ieee" kernels give and a that of the rounded pass. Cauchy-Schwarz on what rounding took away:

    |x - a| <= |x - q.e| + |q.e - q'.e'| + |q'.e' - a|
            <= d 2^-24 |q||e| + |q - q'||e'| + |q||e - e'| + d 2^-22 |q'||e'|

The first term bounds any order of float32 sums. The last one lets every product that a matrix unit adds lose 2^-22 of
|q'||e'|, the place of two bits below float32's last; NVIDIA's and AMD's units are known to keep at least one bit more.
With r at least |e - e'| / |e| of every item and c = (d + 32) 2^-21, which also covers the rounding of this arithmetic,

    |x - a| <= m n,  m = |q| (r + c) + |q - q'| (1 + r) of a query,  n = |e| of an item.

|q - q'| and |e - e'| are those of the numbers at hand; TF32, which the matrix unit rounds by itself, may lose 2^-10.
Numbers below 2^-40 count as that, which covers what underflows; norms above 2^60 or not finite are infinite, and decide
nothing. An item surely beats a bar where a - m n > bar, and surely does not where a + m n <= bar; what is left open is
scored in float32 (:mod:`rsir.kernels.recheck`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .plan import platform

__all__ = ["item_bounds", "query_bounds", "rounded"]

_ROUNDED = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_TF32 = 2.0**-10  # of a number, where its last 13 bits are cut off
_SMALL, _LARGE = 2.0**-40, 2.0**60
_UP = 1 + 2.0**-10  # for the rounding of norms of up to 2^13 numbers


def rounded(values: Tensor, precision: str) -> Tensor:
    """The factors as the pass multiplies them; for TF32 on a GPU the numbers themselves, which the unit rounds.

    The interpreter knows neither TF32 nor bfloat16: there they are float32 numbers that are rounded.
    """
    if precision in _ROUNDED:
        low = values.to(_ROUNDED[precision])
        return low.float() if platform() == "interpreter" and precision == "bfloat16" else low
    if precision == "tf32" and platform() == "interpreter":
        return (values.float().view(torch.int32) & -(2**13)).view(torch.float32)
    return values


def item_bounds(items: Tensor, low: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Of items (N + 1, d) and their rounding: n (N + 1,) float32, and r + c, a scalar."""
    norms, lost = _norms(items, low, precision)
    share = lost / norms
    norms = torch.where(share.isfinite(), norms, torch.inf)
    most = torch.where(share.isfinite(), share, 0.0)[1:].amax()  # row 0 is padding
    return norms, most * _UP + (items.shape[1] + 32) * 2.0**-21


def query_bounds(queries: Tensor, low: Tensor, share: Tensor, precision: str) -> Tensor:
    """(B,) float32: m of queries (B, d) float32 and their rounding; ``share`` is r + c."""
    norms, lost = _norms(queries, low, precision)
    margins = (norms * share + lost * (1 + share)) * _UP
    return torch.where(margins.isfinite(), margins, torch.inf).clamp(min=_SMALL)


def _norms(values: Tensor, low: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Upper bounds of each row's norm and of that of what rounding took away."""
    values = values.float()
    norms = torch.linalg.vector_norm(values, dim=1) * _UP
    norms = torch.where(norms <= _LARGE, norms, torch.inf).clamp(min=_SMALL)
    if precision == "tf32":
        return norms, norms * _TF32
    return norms, torch.linalg.vector_norm(values - low.float(), dim=1) * _UP
