"""The parts of a page: text, tables, figures, and the document around them; it loads nothing and needs no script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from rsir.report.svg import HATCHES, key

__all__ = ["Cell", "document", "figure", "section", "table", "text"]

_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What may not stand in a page, or would turn the direction of what follows."""

Cell = str
"""A cell of a table, as HTML."""


def text(value: object, most: int = 200) -> str:
    """Any value as HTML that shows it; what is longer than `most` characters is cut."""
    shown = _UNSEEN.sub("\ufffd", str(value))
    return escape(shown if len(shown) <= most else shown[: most - 1] + "…")


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, left: int = 1) -> str:
    """A table that scrolls by itself where it is too wide.

    Parameters
    ----------
    caption : str
    header : sequence of str
    rows : sequence of sequences of Cell
        The first cell is the header of its row.
    left : int, default 1
        Columns that are text; those after hold numbers.
    """
    head = "".join(f'<th scope="col"{"" if k < left else _NUMBER}>{escape(name)}</th>' for k, name in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if k == 0 else f"<td{'' if k < left else _NUMBER}>{cell}</td>"
            for k, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


_NUMBER = ' class="number"'


def figure(chart: str, caption: str, legend: Sequence[str], *, line: bool, figures: str = "") -> str:
    """A chart with its legend, what it shows, and its figures as a table to unfold."""
    keys = "".join(key(number, label, line=line) for number, label in enumerate(legend))
    folded = f"<details><summary>Figures</summary>{figures}</details>" if figures else ""
    return f'<figure>{chart}<ul class="legend">{keys}</ul><figcaption>{escape(caption)}</figcaption>{folded}</figure>'


def section(name: str, title: str, content: str, intro: str = "") -> str:
    """A part of the page under a heading; `name` is its anchor."""
    lead = f"<p>{escape(intro)}</p>" if intro else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{lead}{content}</section>'


def document(title: str, lead: str, sections: Sequence[str]) -> str:
    """The whole page; `title` is text, `lead` and `sections` are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>"
        f'<svg aria-hidden="true" class="defs" width="0" height="0"><defs>{HATCHES}</defs></svg>'
        f"<main><h1>{text(title)}</h1>{lead}\n" + "\n".join(sections) + "\n</main></body></html>\n"
    )


_LIGHT = "--ink:#1c2127;--soft:#59636e;--paper:#fff;--card:#f6f8fa;--rule:#d5dbe1;--good:#1a7f37;--bad:#b3261e;"
_LIGHT += "--c0:#0a58b0;--c1:#b45309;--c2:#1a7f37;--c3:#7c3aad;--c4:#a8324a;--c5:#0b7285"
_DARK = "--ink:#e4e9ee;--soft:#a3adb8;--paper:#12161b;--card:#1b2128;--rule:#3a434d;--good:#57c878;--bad:#ff8a80;"
_DARK += "--c0:#6cb0ff;--c1:#f2a65a;--c2:#63cf87;--c3:#c89bf0;--c4:#ff8fa3;--c5:#5ccfe0"
_SERIES = "".join(f".s{k}{{stroke:var(--c{k});fill:var(--c{k})}}" for k in range(6))
_STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}{_SERIES}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:76rem;margin:0 auto;padding:1rem clamp(.8rem,3vw,2rem) 4rem}
h1{font-size:1.6rem;line-height:1.2;margin:.6rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .4rem;border-top:1px solid var(--rule);padding-top:1rem}
h3{font-size:1rem;margin:1rem 0 .3rem;overflow-wrap:anywhere}p{margin:.4rem 0;max-width:48rem}
.note,figcaption,caption{color:var(--soft);font-size:.88rem}
.good{color:var(--good)}.bad{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;padding:0;margin:1rem 0}
.tiles div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}
.tiles dt{color:var(--soft);font-size:.85rem}.tiles dd{margin:0;font-size:1.25rem;overflow-wrap:anywhere}
.tiles small{display:block;font-size:.8rem;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1.2rem;align-items:start}
.charts>*{min-width:0}
.beside{display:flex;flex-wrap:wrap;gap:0 1.2rem;align-items:start}.beside figure{flex:1 1 21rem}
figure{margin:0;background:var(--card);border-radius:.5rem;padding:.7rem;max-width:33rem}
figure>svg{display:block;width:100%;height:auto}
.defs{position:absolute}
svg text{fill:var(--ink);font:13px system-ui,sans-serif}.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:var(--rule);stroke-width:.7}.zero{stroke:var(--ink);stroke-width:1}
.spot{fill:none;stroke:none;pointer-events:all}.spot:hover{stroke:var(--ink)}.bar:hover{stroke:var(--ink)}
.line{fill:none;stroke-width:1.8}.error{fill:none;stroke-width:1.4}.bar{stroke-width:1}.marker{stroke:none}
.pale{fill-opacity:.18;stroke:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;margin:.3rem 0;font-size:.88rem}
.legend svg{vertical-align:-2px}
.scroll{overflow-x:auto;margin:.6rem 0;max-width:100%}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--c0)}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.2rem}
th,td{padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
th{font-weight:600}tbody th{font-weight:500}td small{color:var(--soft)}.number{text-align:right;white-space:nowrap}
thead .number{white-space:normal}
@media(max-width:40rem){table{font-size:.78rem}th,td{padding-right:.5rem}.number small{white-space:normal}
tbody th{position:sticky;left:0;background:var(--paper)}}
.scroll{background:linear-gradient(90deg,var(--paper) 40%,transparent) local,
linear-gradient(270deg,var(--paper) 40%,transparent) 100% 0/2rem 100% no-repeat local,
linear-gradient(270deg,var(--rule),transparent) 100% 0/.7rem 100% no-repeat scroll}
details{margin:.4rem 0}summary{cursor:pointer;color:var(--c0)}
.user{background:var(--card);border-radius:.5rem;padding:.3rem .8rem .8rem;margin:.8rem 0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:.2rem 1.5rem}
.pair h4{font-size:.88rem;margin:.3rem 0;color:var(--soft);font-weight:500}
ol.items{display:flex;flex-wrap:wrap;gap:.3rem;padding:0;margin:0 0 .5rem;list-style:none}
.items li{border:1px solid var(--rule);border-radius:.3rem;padding:0 .4rem;font-size:.88rem;overflow-wrap:anywhere;
max-width:100%;unicode-bidi:isolate}
.made ol{border-left:3px solid var(--rule);padding-left:.5rem}
.items .new{border:2px dashed var(--c1);font-weight:600}
@media print{.scroll{overflow:visible}}
"""
).replace("\n", "")
