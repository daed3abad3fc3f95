"""How the trajectories of a generation came about, in numbers."""

from __future__ import annotations

from dataclasses import astuple, dataclass

__all__ = ["GenerationStats"]


@dataclass(frozen=True)
class GenerationStats:
    """Counters of one generation, or of a part of its sources; those of parts add up to those of the whole.

    Attributes
    ----------
    decoded : int
        Trajectories decoded.
    refused : int
        Trajectories that the fidelity check ended.
    scanned, scanned_refused : int
        Rank verdicts by exact scan, counted for every trajectory, and how many of them were refusals. Where unproved
        verdicts are trusted (``fidelity.verify="trust"``) the scanned are a sample of them: the quotient is the share
        wrongly trusted.
    too_short, copies, duplicates : int
        Trajectories dropped for their length, as a prefix of the row they started from, or as equal to an earlier one
        from the same row. That row is one of the sources: a generated one where the sources hold such.
    """

    decoded: int = 0
    refused: int = 0
    scanned: int = 0
    scanned_refused: int = 0
    too_short: int = 0
    copies: int = 0
    duplicates: int = 0

    def __add__(self, other: GenerationStats) -> GenerationStats:
        return GenerationStats(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def leak(self) -> float:
        """Share of the verdicts by exact scan that were refusals; NaN where nothing was scanned."""
        return self.scanned_refused / self.scanned if self.scanned else float("nan")
