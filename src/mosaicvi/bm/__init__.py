"""Comparisons: every method on the same cells, each in its own process, scored by the parent.

``python -m mosaicvi.bm --help`` lists them. What is particular to one comparison (its splits, its
input, its scores) is a :class:`mosaicvi.bm.Comparison`; running, recording and tabulating are
common to all.
"""

from __future__ import annotations

from mosaicvi.bm._alignment import Alignment
from mosaicvi.bm._comparison import Comparison, Task
from mosaicvi.bm._imputation import Imputation
from mosaicvi.bm._runner import run
from mosaicvi.bm._table import comparison_table

__all__ = ["Alignment", "Comparison", "Imputation", "Task", "comparison_table", "run"]
