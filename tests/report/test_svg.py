"""Charts as SVG text."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir.report.svg import HEIGHT, TOP, Series, bars, lines, ticks


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(3, 9))
def test_ticks_are_few_and_hold_what_is_shown(low: float, span: float, most: int) -> None:
    marks = ticks(low, low + span, most)
    assert 2 <= len(marks) <= most
    assert marks == sorted(set(marks))
    slack = 1e-6 * max(abs(low), span, 1e-9)
    assert marks[0] <= low + slack
    assert marks[-1] >= low + span - slack


@pytest.mark.parametrize("values", [[0.0], [1.0, math.nan, 3.0], [2.0] * 40, [-1e-9, 1e9]])
def test_lines_stay_inside(values: list[float]) -> None:
    numbers = list(range(len(values)))
    low, high = [v - 1 for v in values], [v + 1 for v in values]
    chart = lines("a", "t < u", "d & e", [Series("s", numbers, values, low, high)], x_label="x", y_label="y", show=str)
    root = ET.fromstring(chart)
    assert root.findtext("title") == "t < u"
    markers = [element.get("d", "") for element in root.iter("path") if element.get("class", "").startswith("marker")]
    assert markers
    for marker in markers:
        assert TOP - 1 <= float(marker.split("m")[0].split()[1]) <= HEIGHT
    assert "nan" not in chart


def test_stacked_bars_are_as_high_as_their_sum() -> None:
    series = [("a", [3.0, 0.0]), ("b", [1.0, 4.0])]
    chart = bars("b", "t", "d", ["x", "y"], series, x_label="", y_label="", show=str, stacked=True)
    boxes = [box for box in ET.fromstring(chart).iter("rect") if box.get("class", "").startswith("bar")]
    heights = [float(box.get("height", "")) for box in boxes]
    assert len(heights) == 3  # nothing is drawn for none
    assert heights[0] + heights[1] == pytest.approx(heights[2], abs=0.2)
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.3)
