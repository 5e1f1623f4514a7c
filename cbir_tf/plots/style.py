"""The common style of all plots: fonts, colours, sizes, and text that fits its place."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cbir_tf.errors import UserError, nearest
from cbir_tf.storage.files import replacing

# Ten colours, none of them gray, distinct with every kind of colour vision: of every two, and of
# each and UNLABELLED_COLOUR, the CIEDE2000 difference is 24 or more, and 12 or more as people
# without one kind of cone see them (Machado et al., "A Physiologically-based Model for Simulation
# of Color Vision Deficiency", 2009).
PALETTE = (
    "#3344cc",
    "#ffbb00",
    "#991100",
    "#66ddaa",
    "#aa77aa",
    "#116644",
    "#ff6666",
    "#5599ff",
    "#aa6600",
    "#990066",
)
# From the eleventh class on, colours repeat with another shape: names in matplotlib and in bokeh.
MARKERS = (
    ("o", "circle"),
    ("^", "triangle"),
    ("s", "square"),
    ("D", "diamond"),
    ("v", "inverted_triangle"),
    ("X", "square_pin"),
    ("P", "plus"),
    ("p", "hex"),
    ("*", "star"),
    ("d", "triangle_pin"),
)
INK = "#22272e"
MUTED = "#6b7280"
FAINT = "#e5e7eb"
UNLABELLED_COLOUR = "#c9ced6"
RIGHT = "#1a8f4b"
WRONG = "#d1242f"

TITLE_SIZE = 13.0
TEXT_SIZE = 10.0
SMALL_SIZE = 8.5
DPI = 150
LONGEST_SIDE = 30_000  # pixels; Agg draws nothing longer than 65,535

_CJK_FAMILIES = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
)
_LOCK = threading.RLock()


@contextmanager
def look() -> Iterator[None]:
    """Draw in the common style; the user's matplotlib settings are restored afterwards.

    The settings are global to the process, so only one thread draws at a time.
    """
    settings: dict[Any, Any] = {
        "font.family": list(_families()),
        "font.size": TEXT_SIZE,
        # Labels are file and class names: a dollar sign in them does not start a formula.
        "text.parse_math": False,
        "text.usetex": False,
        "text.color": INK,
        "figure.facecolor": "white",
        "figure.titlesize": TITLE_SIZE,
        "figure.titleweight": "bold",
        "axes.facecolor": "white",
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.labelsize": TEXT_SIZE,
        "axes.linewidth": 0.8,
        "axes.titlesize": TITLE_SIZE,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": False,
        "axes.unicode_minus": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": SMALL_SIZE,
        "legend.title_fontsize": SMALL_SIZE,
        "lines.linewidth": 1.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": SMALL_SIZE,
        "ytick.labelsize": SMALL_SIZE,
        "image.interpolation": "auto",
    }
    with _LOCK, matplotlib.rc_context(settings), warnings.catch_warnings():
        # A character that no installed font contains is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


@functools.cache
def _families() -> tuple[str, ...]:
    """DejaVu Sans, which is part of matplotlib, then installed fonts for other scripts."""
    installed = set(font_manager.fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in _CJK_FAMILIES if name in installed))


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """A figure of this size in inches on an Agg canvas, outside pyplot's global state."""
    figure = Figure(figsize=(width, height), dpi=DPI, **options)
    FigureCanvasAgg(figure)
    return figure


def padded() -> ConstrainedLayoutEngine:
    """A layout engine for curves, without overlaps and with margins."""
    return ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.06)


@look()
def note(text: str, title: str = "") -> Figure:
    """A small figure with a text, for plots without data."""
    figure = new_figure(6, 2)
    if title:
        figure.text(
            0.04, 0.82, fitted(title, 5.5, TITLE_SIZE, "bold"), size=TITLE_SIZE, weight="bold"
        )
    figure.text(0.5, 0.42, fitted(text, 5.5, TEXT_SIZE), color=MUTED, ha="center", va="center")
    return figure


@look()
def save(figure: Figure, path: Path) -> Path:
    """Write a figure completely or not at all, in the format of the path's suffix.

    Raises:
        UserError: unknown format, or the file cannot be written.
    """
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in formats:
        raise UserError(f"{path}: no picture format {suffix!r}; {nearest(suffix, formats)}")
    dpi = min(DPI, LONGEST_SIDE / max(figure.get_size_inches()))
    with replacing(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=dpi)
    return path


def appearance(label: int) -> tuple[str, str, str]:
    """The colour, matplotlib marker and bokeh marker of a class; grey dots for unlabelled (-1)."""
    if label < 0:
        return UNLABELLED_COLOUR, *MARKERS[0]
    return PALETTE[label % len(PALETTE)], *MARKERS[label // len(PALETTE) % len(MARKERS)]


def class_name(label: int, class_names: Sequence[str]) -> str:
    """The name of a class, "unlabelled" for -1."""
    return "unlabelled" if label < 0 else class_names[label]


def clean(text: str) -> str:
    """One line of printable text: control characters become spaces, surrogates question marks."""
    whole = str(text).encode("utf-8", "replace").decode("utf-8")
    return "".join(each if each.isprintable() else " " for each in whole).strip()


def shortened(text: str, length: int) -> str:
    """Clean text of at most `length` characters, cut in the middle, as names differ at the ends."""
    text = clean(text)
    if len(text) <= length:
        return text
    kept = max(length - 1, 0)
    tail = kept // 2
    return f"{text[: kept - tail]}…{text[len(text) - tail :]}"


def fitted(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Clean text cut in the middle until it is at most `width` inches wide.

    Args:
        text: any text.
        width: inches.
        size: font size in points.
        weight: font weight.
    """
    text = clean(text)
    if text_width(text, size, weight) <= width:
        return text
    low, high = 1, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        if text_width(shortened(text, middle), size, weight) <= width:
            low = middle
        else:
            high = middle
    return shortened(text, low)


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of one line as matplotlib draws it."""
    if not text:
        return 0.0
    font = FontProperties(family=list(_families()), size=size, weight=weight)
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        ruler: Any = _ruler()  # matplotlib has no types for its methods
        width, _, _ = ruler.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


@functools.cache
def _ruler() -> RendererAgg:
    return RendererAgg(1, 1, 72)  # type: ignore[no-untyped-call]


def heading(figure: Figure, title: str, left: float, below: float) -> None:
    """Write a title that fits, `left` and `below` inches from the figure's left and upper edge."""
    width, height = figure.get_size_inches()
    figure.text(
        left / width,
        1 - below / height,
        fitted(title, width - left - 0.2, TITLE_SIZE, "bold"),
        size=TITLE_SIZE,
        weight="bold",
        va="center",
    )


def bare(axes: Axes) -> None:
    """Remove ticks and spines."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
