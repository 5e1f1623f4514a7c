"""Blocks of rows: all of them, once, in order, and within the size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.parallel import blocks


@given(st.integers(0, 500), st.integers(0, 50), st.integers(0, 400))
def test_blocks_cover_every_row_once_and_stay_within_the_size(rows, per_row, per_block):
    found = list(blocks(rows, per_row, per_block))
    assert [row for some in found for row in range(some.start, some.stop)] == list(range(rows))
    for some in found:
        count = some.stop - some.start
        assert count == 1 or count * per_row <= per_block
    for some in found[:-1]:
        assert (some.stop - some.start + 1) * max(1, per_row) > per_block
