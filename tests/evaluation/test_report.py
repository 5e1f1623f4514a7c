"""A comparison as Markdown, CSV and page."""

from __future__ import annotations

import base64
import csv
import io
import re
from html.parser import HTMLParser

from cbir_tf.evaluation.report import comparison_csv, comparison_markdown, comparison_page

FIGURES = {"recall@1": 0.5, "recall@10": 0.75, "map": 0.25, "mrr": 0.625}
SPEED = {
    "seconds_per_query": {"median": 0.02, "low": 0.01, "high": 0.03},
    "images_per_second": {"median": 50.4, "low": 40, "high": 60},
    "model_MB": 8.06,
    "dimensions": 128,
}
FIRST = {
    "run": "a|b",
    "metric": "cosine",
    "queries": 10,
    "left_out": 1,
    "gallery": 30,
    "figures": FIGURES,
    "intervals": {"map": [0.2, 0.3]},
    "difference_to_first": {},
    **SPEED,
}
DIFFERENCES = {
    "recall@1": {"mean": 0.1, "low": -0.05, "high": 0.25, "p_value": 0.1234},
    "map": {"mean": -0.1, "low": -0.15, "high": -0.05, "p_value": 0.0001},
}
SECOND = FIRST | {"run": "<i>two</i> {0}", "intervals": {}, "difference_to_first": DIFFERENCES}
DOCUMENT = {
    "split": "test",
    "gallery_split": "train",
    "protocol": "queries against gallery",
    "runs": [FIRST, SECOND],
}


def test_the_table_has_a_column_for_each_run():
    title, _, *table = comparison_markdown(DOCUMENT).splitlines()
    assert title == (
        "queries against gallery: 10 test queries, 1 left out with nothing relevant, "
        "30 train images in the gallery"
    )
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table if line.startswith("|")]
    cells = {first.strip(): [each.strip() for each in others] for first, *others in rows}
    assert cells["run"] == [r"a\|b", "<i>two</i> {0}"]
    assert cells["recall@1"] == ["0.500", "0.500"]
    assert cells["map"] == ["0.250 (0.200 to 0.300)", "0.250"]
    assert cells["recall@1 minus the first"] == ["", "+0.100 (-0.050 to +0.250; p = 0.123)"]
    assert cells["map minus the first"] == ["", "-0.100 (-0.150 to -0.050; p < .001)"]
    assert cells["seconds per query"][0] == "0.0200 (0.0100 to 0.0300)"
    assert cells["images per second"][0] == "50 (40 to 60)"
    assert cells["model, MB"][0] == "8.1"


def test_the_csv_holds_every_number_whole():
    first, second = csv.DictReader(io.StringIO(comparison_csv(DOCUMENT)))
    assert first["run"] == "a|b"
    assert {name: float(first[name]) for name in FIGURES} == FIGURES
    assert (first["map_low"], first["map_high"], second["map_low"]) == ("0.2", "0.3", "")
    assert (first["map_less_first"], second["map_less_first_p"]) == ("", "0.0001")
    assert float(second["images_per_second"]) == 50.4


class Page(HTMLParser):
    """The cells of the table, and whatever would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if {"th", "td"} & set(self.open):
            self.cells[-1] += data


def test_the_page_shows_the_table_and_loads_nothing():
    page = Page(comparison_page(DOCUMENT, b"picture"))
    assert page.addresses == ["data:image/png;base64," + base64.b64encode(b"picture").decode()]
    assert page.cells[1:3] == ["a|b", "<i>two</i> {0}"]
    row = page.cells.index("map")
    assert page.cells[row + 1 : row + 3] == ["0.250 (0.200 to 0.300)", "0.250"]


def test_one_run_alone_is_no_comparison_but_a_page_all_the_same():
    alone = DOCUMENT | {"runs": [FIRST]}
    assert "minus the first" not in comparison_markdown(alone)
    assert "<title>a|b</title>" in comparison_page(alone, b"")
