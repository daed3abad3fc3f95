"""The example in docs/backbones.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from rsir.models import registry

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"


def test_the_example_of_a_backbone_runs_and_learns(monkeypatch, capsys):
    monkeypatch.setattr(registry.BACKBONES, "makers", dict(registry.BACKBONES.makers))
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})
    base, first = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (base[0], base[1], first[0]) == ("0", "300", "1")
    assert int(first[1]) > 300
    assert float(base[2]) > 0.15  # a model that knows nothing: 0.06
