"""Figures of matplotlib, without a display and without a trace in its global state."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Okabe and Ito: told apart by the colour-blind, and by their lightness in print.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#7f858c"
CYCLE = (BLUE, ORANGE, GREEN, "#cc79a7", "#b8860b", "#56b4e9", GREY)
# Stand-ins that `svg_of` replaces by variables of the page, which follow its light or dark theme.
_INK, _LINES = "#010203", "#040506"
_THEME = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _LINES,
    "grid.color": _LINES,
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 10,
}


@contextmanager
def figure(width: float, height: float, *, page: bool = False) -> Iterator[Any]:
    """A figure of matplotlib; draw and save it within the block.

    Args:
        width, height: in inches.
        page: colours for `svg_of`.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The names of runs and classes are no formulas, whatever dollar signs they have.
    settings: Any = {"text.parse_math": False, **(_THEME if page else {})}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        yield made


def tidy(axes: Any) -> None:
    """Grid and spines of a panel."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def epochs(axes: Any, last: int) -> None:
    """Whole epochs below a panel, from the first to the ``last``, also where there is but one."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(1, last) + 0.5 + 0.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def svg_of(made: Any, name: str) -> str:
    """A figure of ``figure(page=True)`` as an ``<svg>`` for the middle of a page, the same each time.

    Args:
        made: the figure.
        name: keeps the ids within it apart from those of other figures of the page.
    """
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        made.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    width = 96 * made.get_figwidth()  # on a narrow screen it is reduced, and then scrolled
    shape = f'style="max-width: {width:.0f}px; min-width: {0.65 * width:.0f}px"'
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf"\1 {shape}", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' (d|x|y|transform)="[^"]*"', _rounded, text)
    return text.replace(_INK, "var(--ink)").replace(_LINES, "var(--faint)").strip()


def _rounded(attribute: re.Match[str]) -> str:
    """An attribute with hundredths of a point, which nobody sees; they are half of the file."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])
