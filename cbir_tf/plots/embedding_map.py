"""The embedding map, each image a point near its neighbours, as a picture or a web page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbir_tf.plots.layout import Method, project
from cbir_tf.plots.style import (
    MUTED,
    SMALL_SIZE,
    appearance,
    class_name,
    clean,
    fitted,
    heading,
    look,
    new_figure,
    save,
    shortened,
    text_width,
)
from cbir_tf.plots.thumbnails import thumbnail
from cbir_tf.storage.files import write_text

if TYPE_CHECKING:
    from bokeh.models.renderers import GlyphRenderer
    from bokeh.plotting import figure as BokehFigure

__all__ = ["Method", "embedding_map_html", "embedding_map_png", "project", "thumbnail"]

AXIS_NAMES = ("first dimension", "second dimension")
_LEGEND_ROWS = 30
_LEGEND_ENTRIES = 120

_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}

# The policy forbids the page to load anything from other hosts.
_PAGE = """\
{% block preamble %}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
{% endblock %}
{% block postamble %}
<style>
  body { padding: 12px; background: white; }
  .bk-Tooltip { opacity: 1; }
</style>
{% endblock %}
"""

_HINT = (
    "Hover over a point to see its image. Click a class to hide it. Drag to move, wheel to zoom."
)

# Each class has a tooltip. All have the same size, so that for overlapping points the upper tooltip
# covers the others completely.
_TOOLTIP = """\
<div style="display: flex; gap: 10px; align-items: center; width: 360px; height: 100px; \
overflow: hidden; font: 13px system-ui, sans-serif; color: #22272e">
  <img src="@thumbnail" alt="" style="flex: none; width: 96px; height: 96px; \
object-fit: contain">
  <div style="overflow-wrap: anywhere"><b>@label</b><br>
  <span style="color: #6b7280">@id</span></div>
</div>
"""


def embedding_map_png(
    path: Path,
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    title: str = "Embedding map",
    axis_names: Sequence[str] = AXIS_NAMES,
) -> Path:
    """Write the map as a picture, with a colour (from the eleventh class, also a shape) per class.

    Args:
        path: where to write.
        points: (N, 2) as `project` gives them; or (N, 3), drawn in perspective.
        labels: (N,) integers into `class_names`, -1 for unlabelled.
        class_names: C names.
        title: above the map.
        axis_names: of each dimension.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_figure(points, labels, class_names, title, axis_names), path)


def embedding_map_html(
    path: Path,
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    ids: Sequence[str] | np.ndarray,
    thumbnails: Sequence[bytes],
    title: str = "Embedding map",
) -> Path:
    """Write the map as a self-contained web page with thumbnails and a legend that hides classes.

    The page has about 1.3 MB plus 4/3 of the thumbnails' bytes and makes no network request.

    Args:
        path: where to write.
        points: (N, 2) as `project` gives them.
        labels: (N,) integers into `class_names`, -1 for unlabelled.
        class_names: C names.
        ids: N names of the images.
        thumbnails: N small JPEG or PNG files, as `thumbnail` makes them.
        title: above the map and of the page.

    Raises:
        UserError: the file cannot be written.
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    if not len(points) == len(ids) == len(thumbnails):
        raise ValueError("points, ids and thumbnails differ in length")
    plot = _interactive(points, labels, class_names, ids, thumbnails, title)
    page = file_html(
        plot,
        resources=INLINE,
        title=shortened(title, 200),
        template=_PAGE,
    )
    write_text(Path(path), page)
    return Path(path)


@look()
def _figure(
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    title: str,
    axis_names: Sequence[str] = AXIS_NAMES,
) -> Figure:
    labels = _checked(points, labels, class_names, len(axis_names))
    present, counts = np.unique(labels, return_counts=True)
    names = [fitted(class_name(each, class_names), 1.6, SMALL_SIZE) for each in present]
    columns = -(-min(len(present), _LEGEND_ENTRIES) // _LEGEND_ROWS)
    name_width = max((text_width(name, SMALL_SIZE) for name in names), default=0.0)
    legend_width = max(columns * (name_width + 0.4) + 0.15, 1.2)
    figure = new_figure(7.2 + legend_width, 7.0)
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (0.45 / width, 0.5 / height, 6.6 / width, 5.9 / height),
        projection="3d" if len(axis_names) == 3 else None,
    )
    _draw_points(axes, points, labels, dict(zip(present.tolist(), names, strict=True)), axis_names)
    heading(figure, title, left=0.45, below=0.36)
    if len(present):
        _draw_legend(axes, present, counts, columns)
    return figure


def _draw_points(
    axes: Axes,
    points: np.ndarray,
    labels: np.ndarray,
    names: dict[int, str],
    axis_names: Sequence[str],
) -> None:
    """Draw the points of each label, and axes without numbers."""
    size = np.clip(30_000 / max(len(points), 1), 7, 48)
    # Unlabelled images, -1, are drawn first, beneath the others.
    for label, name in names.items():
        colour, marker, _ = appearance(label)
        style: dict[str, Any] = {
            "s": size,
            "c": colour,
            "marker": marker,
            "alpha": 0.8,
            "linewidths": 0.3 if size > 20 else 0,
            "edgecolors": "white",
            "label": name,
        }
        axes.scatter(*points[labels == label].T, **style)
    # The axes have no unit and no meaning; only distances between points have.
    for letter, name in zip("xyz", axis_names, strict=False):
        axes.set(**{f"{letter}ticks": [], f"{letter}label": name})
        if len(axis_names) == 3:
            getattr(axes, f"{letter}axis").labelpad = -10  # where the numbers would be
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.04)
    axes.spines[:].set_visible(True)


def _draw_legend(axes: Axes, present: np.ndarray, counts: np.ndarray, columns: int) -> None:
    """Draw the legend of classes beside the map; of very many, only the largest."""
    handles, names = axes.get_legend_handles_labels()
    shown = np.sort(np.argsort(-counts, kind="stable")[:_LEGEND_ENTRIES])
    legend = axes.legend(
        [handles[each] for each in shown],
        [names[each] for each in shown],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
        ncols=columns,
        handletextpad=0.3,
        columnspacing=1.0,
        title=f"{len(shown)} largest of {len(present)} classes"
        if len(present) > len(shown)
        else None,
        alignment="left",
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(sizes=[36], alpha=1)


def _interactive(
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    ids: Sequence[str] | np.ndarray,
    thumbnails: Sequence[bytes],
    title: str,
) -> BokehFigure:
    from bokeh.models import HoverTool, PlainText
    from bokeh.models.annotations import Legend, Title
    from bokeh.plotting import figure

    labels = _checked(points, labels, class_names)
    plot = figure(
        sizing_mode="stretch_both",
        match_aspect=True,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
        x_axis_label=AXIS_NAMES[0],
        y_axis_label=AXIS_NAMES[1],
    )
    hint = Title(text=PlainText(text=_HINT), text_font_size="13px", text_color=MUTED)
    hint.text_font_style = "normal"
    plot.add_layout(hint, "above")
    heading = PlainText(text=shortened(title, 120))
    plot.add_layout(Title(text=heading, text_font_size="17px"), "above")
    items = _draw_classes(plot, points, labels, class_names, ids, thumbnails)
    columns = -(-len(items) // _LEGEND_ROWS)
    legend = Legend(
        click_policy="hide",
        ncols=max(columns, 1),
        border_line_color=None,
        background_fill_alpha=0,
    )
    legend.items = items
    plot.add_layout(legend, "right")
    plot.add_tools(HoverTool(tooltips=_TOOLTIP, limit=1, point_policy="follow_mouse"))
    plot.toolbar.logo = None
    plot.axis.ticker = []
    plot.axis.axis_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.outline_line_color = MUTED
    plot.grid.visible = False
    return plot


def _draw_classes(
    plot: BokehFigure,
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    ids: Sequence[str] | np.ndarray,
    thumbnails: Sequence[bytes],
) -> list[tuple[str, list[GlyphRenderer[Any]]]]:
    """Draw the points of each class; returns the entries of the legend.

    Of very many classes the largest have an entry each, the others one together.
    """
    from bokeh.models import ColumnDataSource

    present, counts = np.unique(labels, return_counts=True)
    largest = np.argsort(-counts, kind="stable")
    shown = np.sort(largest[: _LEGEND_ENTRIES if len(present) > _LEGEND_ENTRIES else None])
    groups = [(class_name(label, class_names), [label]) for label in present[shown]]
    others = np.delete(present, shown)
    if len(others):
        groups.append((f"{len(others):,} others", others.tolist()))
    name_length = 28 if len(groups) <= 2 * _LEGEND_ROWS else 16
    items: list[tuple[str, list[GlyphRenderer[Any]]]] = []
    for name, of_group in groups:
        members = np.flatnonzero(np.isin(labels, of_group)).tolist()
        colour, _, marker = appearance(of_group[0] if len(of_group) == 1 else -1)
        source = ColumnDataSource(
            {
                "x": points[members, 0],
                "y": points[members, 1],
                "id": [clean(ids[each]) for each in members],
                "label": [clean(class_name(labels[each], class_names)) for each in members],
                "thumbnail": [_data_address(thumbnails[each]) for each in members],
            }
        )
        dots = plot.scatter(
            "x",
            "y",
            source=source,
            marker=marker,
            size=float(np.clip(500 / np.sqrt(max(len(points), 1)), 5, 11)),
            fill_color=colour,
            fill_alpha=0.8,
            line_color="white",
            line_width=0.4,
            name=clean(name),
        )
        items.append((shortened(name, name_length), [dots]))
    return items


def _checked(
    points: np.ndarray, labels: np.ndarray, class_names: Sequence[str], dimensions: int = 2
) -> np.ndarray:
    labels = np.asarray(labels, dtype=np.int64)
    if np.shape(points) != (len(labels), dimensions):
        raise ValueError(f"points must be ({len(labels)}, {dimensions}), got {np.shape(points)}")
    if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
        raise ValueError(f"labels must be within -1..{len(class_names) - 1}")
    return labels


def _data_address(picture: bytes) -> str:
    """A small JPEG or PNG as a data: address."""
    for signature, kind in _SIGNATURES.items():
        if picture.startswith(signature):
            return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"
    raise ValueError("a thumbnail must be the bytes of a JPEG or PNG file")
