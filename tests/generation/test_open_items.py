"""Open items of sources in slots, against lists."""

from __future__ import annotations

import numpy as np
import torch

from rsir.generation.open_items import Targets
from rsir.ops import Ragged

CPU = torch.device("cpu")


def lists(ragged: Ragged) -> list[list[int]]:
    return [part.tolist() for part in ragged.ids.split(ragged.offsets.diff().tolist())]


def test_random_sources_uses_and_copies() -> None:
    draw = np.random.default_rng(0)
    slots = 12
    targets = Targets(slots, CPU)
    sources: dict[int, list[int]] = {}
    used: dict[int, set[int]] = {}
    for turn in range(60):
        some = draw.permutation(slots)[: draw.integers(1, 6)]
        given = [draw.integers(1, 9, draw.integers(2, 5 + turn // 2)).tolist() for _ in some]  # items come repeatedly
        targets.start(torch.from_numpy(some), np.concatenate(given), np.array([len(items) for items in given]))
        sources |= dict(zip(some.tolist(), given, strict=True))
        used |= {slot: set() for slot in some.tolist()}

        using = draw.permutation(sorted(sources))[: draw.integers(1, 8)]
        items = draw.integers(1, 9, len(using))
        targets.use(torch.from_numpy(using), torch.from_numpy(items))
        for slot, item in zip(using.tolist(), items.tolist(), strict=True):
            used[slot].add(item)

        first, second = some[:1], draw.permutation(slots)[:1]
        if first[0] != second[0]:  # another slot of the same source
            targets.start(torch.from_numpy(second), np.array(sources[first[0]]), np.array([len(sources[first[0]])]))
            targets.copy(torch.from_numpy(first), torch.from_numpy(second))
            sources[second[0]], used[second[0]] = sources[first[0]], set(used[first[0]])

        asked = draw.permutation(sorted(sources)).tolist()
        expected = [[item for item in sources[slot] if item not in used[slot]] for slot in asked]
        assert lists(targets.lists(torch.tensor(asked))) == expected
        assert lists(targets.sources(torch.tensor(asked))) == [sources[slot] for slot in asked]
        assert targets.left[torch.tensor(asked)].tolist() == [len(items) for items in expected]
        assert targets.at(torch.tensor(asked), torch.ones(len(asked), dtype=torch.int64)).tolist() == [
            sources[slot][1] for slot in asked
        ]
