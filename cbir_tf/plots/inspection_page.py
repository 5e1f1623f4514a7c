"""A page of doubtful images, each with its nearest neighbours: one HTML file that needs nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from cbir_tf.data.decode import ImageError, decode_original
from cbir_tf.plots.thumbnails import thumbnail
from cbir_tf.storage.files import write_text

SIDE = 160
SHOWN = 100
"""Most findings shown in a section; the title has the number of all."""

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
article { display: flex; flex-wrap: wrap; gap: .75rem; align-items: end; padding: .75rem 0;
  border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
article p { flex-basis: 100%; margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; } figcaption { font-size: .85rem; opacity: .8; }
figure img { display: block; height: 112px; width: auto; max-width: 224px; object-fit: contain; }
figure.first img { height: 144px; outline: 2px solid #c2410c; outline-offset: 2px; }
"""


@dataclass(frozen=True)
class Finding:
    """One image of the page.

    Attributes:
        id: of the image.
        text: what is remarkable.
        source: its file or encoded bytes.
        neighbours: captions and sources of its neighbours, nearest first.
    """

    id: str
    text: str
    source: Path | bytes
    neighbours: Sequence[tuple[str, Path | bytes]] = ()


def inspection_page(path: Path, title: str, sections: Mapping[str, Sequence[Finding]]) -> Path:
    """Write a page with a section for each kind of finding, the first 100 of each.

    Args:
        path: where to write.
        title: of the page.
        sections: findings by heading.

    Raises:
        UserError: the path cannot be written to.
    """
    body = "\n".join(_section(heading, findings) for heading, findings in sections.items())
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</html>\n"
    )
    write_text(path, page)
    return path


def _section(heading: str, findings: Sequence[Finding]) -> str:
    count = f"{SHOWN} of {len(findings)}" if len(findings) > SHOWN else str(len(findings))
    articles = "\n".join(map(_article, findings[:SHOWN])) or "<p>None found.</p>"
    return f"<section>\n<h2>{escape(heading)} ({count})</h2>\n{articles}\n</section>"


def _article(finding: Finding) -> str:
    figures = [_figure(finding.source, "", ' class="first"')]
    figures += [_figure(source, caption) for caption, source in finding.neighbours]
    text = f"<p><strong>{escape(finding.text)}</strong><br>{escape(finding.id)}</p>"
    return f"<article>{text}{''.join(figures)}</article>"


def _figure(source: Path | bytes, caption: str, attributes: str = "") -> str:
    try:
        picture = base64.b64encode(thumbnail(decode_original(source, SIDE), SIDE)).decode()
        image = f'<img alt="{escape(caption)}" src="data:image/jpeg;base64,{picture}">'
    except ImageError:  # the file was deleted or damaged meanwhile
        image = "<em>file not readable</em>"
    return f"<figure{attributes}>{image}<figcaption>{escape(caption)}</figcaption></figure>"
