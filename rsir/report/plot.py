"""A plot of a run: ``rsir report RUN --plot FILE.svg``; needs ``pip install 'rsir[plots]'``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsir.errors import RunError
from rsir.metrics import HEADLINE, percent_change, title
from rsir.runs.directory import RunDirectory

__all__ = ["panels", "plot_rounds", "save"]

_STYLES = ("-", ":", "--")


def plot_rounds(run: str | Path, file: str | Path) -> None:
    """Draw a run's metrics by round, as changes against its base.

    Parameters
    ----------
    run : path
        A run's folder.
    file : path
        Image to write; its ending (.svg, .png, .pdf) chooses the format.

    Raises
    ------
    RunError
        There is no run, or it has no finished round; the image cannot be written.
    """
    directory = RunDirectory.open(run)
    rounds = [directory.read_json(f"round-{k:02d}/metrics.json") for k in range(directory.finished_rounds())]
    if not rounds:
        raise RunError(f"{run}: no round is finished yet, so there is nothing to draw")
    figure, (gains, counts) = panels(2, width_ratios=(3, 2))
    for (part, metric), style in zip(HEADLINE, _STYLES, strict=True):
        values = [percent_change(result[part][metric], rounds[0][part][metric]) for result in rounds]
        gains.plot(range(len(rounds)), values, style, marker="o", label=title(metric, part))
    gains.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    gains.set(title="gain over the base", xlabel="round", ylabel="%", xticks=range(len(rounds)))
    later = range(1, len(rounds))
    counts.bar(later, [rounds[k]["generated"] for k in later], 0.5, color="0.85", label="generated")
    counts.bar(later, [rounds[k]["acquired"] for k in later], 0.5, label="verified and kept")
    counts.set(title="trajectories", xlabel="round", xticks=later)
    counts.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (gains, counts):
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, file)


def panels(count: int, **options: Any) -> tuple[Any, list[Any]]:
    """A figure with this many axes, three in a row; `options` as for matplotlib's ``subplots``.

    Raises
    ------
    RunError
        matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as cause:
        raise RunError("plots need matplotlib: pip install 'rsir[plots]'") from cause
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(count, 3)
    rows = -(-count // columns)
    size = 4.5 * columns, 3.4 * rows
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)
    for unused in axes.flat[count:]:
        unused.remove()
    return figure, list(axes.flat[:count])


def save(figure: Any, file: str | Path) -> None:
    """Write a figure, the same bytes for the same figure, and let go of it.

    Raises
    ------
    RunError
        The file's ending names no format, or the disk refuses.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    try:
        kinds, ending = figure.canvas.get_supported_filetypes(), Path(file).suffix
        if ending.lower()[1:] not in kinds:
            raise RunError(f"{file}: expected a file that ends in .svg, .png or .pdf, got {ending or 'no ending'!r}")
        with matplotlib.rc_context({"svg.hashsalt": "rsir"}):
            figure.savefig(file, dpi=150, metadata={"Date": None} if str(file).endswith(".svg") else None)
    except FileNotFoundError as cause:
        raise RunError(f"{file}: there is no folder {Path(file).parent}; make it first") from cause
    except OSError as cause:
        raise RunError(f"{file}: cannot be written: {cause.strerror or cause}; choose another file") from cause
    finally:
        plt.close(figure)
