"""Feature graph: which features of which modalities belong together.

A new builder is one file in this folder: a function from a MuData and some knowledge to a
:class:`FeatureGraph`.
"""

from __future__ import annotations

from mosaicvi.graph._annotation import fetch_annotation, read_annotation
from mosaicvi.graph._coordinates import from_coordinates
from mosaicvi.graph._edges import Edges
from mosaicvi.graph._feature_graph import FeatureGraph
from mosaicvi.graph._gene_sets import from_gene_sets
from mosaicvi.graph._names import from_names
from mosaicvi.graph._report import GraphReport
from mosaicvi.graph._rules import GeneBody, Rule, Window
from mosaicvi.graph._table import from_table

__all__ = [
    "Edges",
    "FeatureGraph",
    "GeneBody",
    "GraphReport",
    "Rule",
    "Window",
    "fetch_annotation",
    "from_coordinates",
    "from_gene_sets",
    "from_names",
    "from_table",
    "read_annotation",
]
