"""What ties modalities, what is chosen from it, and what is said where nothing does."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.helpers import cell_names, counts_modality, make_mudata

from mosaicvi._errors import DataError, MosaicviError, MosaicviWarning, RequestError
from mosaicvi.data import build_manager
from mosaicvi.graph import Edges, FeatureGraph, from_gene_sets
from mosaicvi.model import _ties
from mosaicvi.model._construct import fit_once, modality_size, prior_widening
from mosaicvi.model._ties import choose_alignment
from mosaicvi.module import ModuleSpec, build_module

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mosaicvi.data._mosaic_data import MosaicData

FEATURES = {
    "rna": ("GENE0", "GENE1", "GENE2", "GENE3"),
    "protein": ("cd3", "cd4", "cd8"),
    "atac": ("chr1:0-9", "chr1:20-29"),
}
PAIRED = range(20)


def data(cells: Mapping[str, Sequence[int]], n_cells: int = 40) -> MosaicData:
    """Modalities that hold these of 40 cells."""
    names = cell_names(n_cells)
    parts = {
        name: counts_modality([names[i] for i in rows], FEATURES[name], seed=number)
        for number, (name, rows) in enumerate(cells.items())
    }
    return build_manager(make_mudata(parts), dict.fromkeys(cells, "nb")).data


def graph(*edges: tuple[str, str], modalities: Sequence[str] = tuple(FEATURES)) -> FeatureGraph:
    """First features of two modalities linked."""
    features = {name: FEATURES[name] for name in modalities}
    starts = dict(zip(features, np.cumsum([0, *map(len, features.values())]), strict=False))
    source, target = ([int(starts[both[end]]) for both in edges] for end in (0, 1))
    return FeatureGraph(features, Edges.of(source, target, 1, 1.0, "test"))


UNPAIRED = {"rna": range(20), "protein": range(20, 40)}
RNA_PROTEIN = ("rna", "protein")


@pytest.mark.parametrize(
    ("cells", "edges", "expected"),
    [
        ({"rna": PAIRED}, [], "none"),
        ({"rna": PAIRED, "protein": PAIRED}, [], "pairs"),
        ({"rna": PAIRED, "protein": PAIRED}, [RNA_PROTEIN], "pairs"),
        (UNPAIRED, [RNA_PROTEIN], "anchors"),
        # 10 of the smaller one's 20 cells are paired: just enough; 9 are too few.
        ({"rna": range(30), "protein": range(20, 40)}, [RNA_PROTEIN], "pairs"),
        ({"rna": range(29), "protein": range(20, 40)}, [RNA_PROTEIN], "anchors"),
        # Few pairs and no graph: what there is.
        ({"rna": range(21), "protein": range(20, 40)}, [], "pairs"),
        # One pair of modalities suffices to ask for anchors.
        (
            {"rna": PAIRED, "protein": PAIRED, "atac": range(20, 40)},
            [("rna", "atac")],
            "anchors",
        ),
    ],
)
def test_auto(
    cells: Mapping[str, Sequence[int]], edges: list[tuple[str, str]], expected: str
) -> None:
    given = graph(*edges) if edges else None
    assert choose_alignment(data(cells), given, "auto") == expected


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (("ACGTACGTACGTACG{}-1", "ACGTACGTACGTACG{}"), True),
        (("s1_AACCGGTTAACCGGT{}", "AACCGGTTAACCGGT{}-1"), True),
        (("cell{}-1", "cell{}-2"), False),
        (("ACGTACGTACGTACG{}-1", "TTTTACGTACGTACG{}-1"), False),
    ],
)
def test_cells_named_in_two_ways_are_told_of(names: tuple[str, str], warned: bool) -> None:
    parts = {
        name: counts_modality([pattern.format(base) for base in "ACGT"], FEATURES[name])
        for name, pattern in zip(RNA_PROTEIN, names, strict=True)
    }
    given = build_manager(make_mudata(parts), dict.fromkeys(RNA_PROTEIN, "nb")).data
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match="nothing ties"):
            choose_alignment(given, None, "auto")
    texts = [str(each.message) for each in said if "barcodes are in both" in str(each.message)]
    assert bool(texts) is warned
    if warned:
        assert repr(names[0].format("A")) in texts[0]
        assert "4 barcodes" in texts[0]


FEW = {"rna": range(21), "protein": range(20, 40)}


@pytest.mark.parametrize(
    ("cells", "linked", "warned"),
    [
        (FEW, False, True),
        (FEW, True, True),
        # A share of .1, and none.
        ({"rna": range(22), "protein": range(20, 40)}, False, False),
        (UNPAIRED, True, False),
        # Cells of all three modalities: a part of the cells that hold two.
        ({"rna": range(40), "protein": range(21), "atac": range(20, 40)}, False, False),
    ],
)
def test_few_pairs_are_told_of(
    cells: Mapping[str, Sequence[int]], linked: bool, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ties, "FEW_PAIRS", 0.06)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        choose_alignment(data(cells), graph(RNA_PROTEIN) if linked else None, "auto")
    texts = [str(each.message) for each in said if "only 1 cells hold both" in str(each.message)]
    assert bool(texts) is warned
    assert all(("pass graph=" in text) is not linked for text in texts)


def test_the_choice_is_said_with_its_reasons(caplog: pytest.LogCaptureFixture) -> None:
    given = data({"rna": range(22), "protein": range(20, 40)})
    with caplog.at_level(logging.INFO, logger="mosaicvi"):
        choose_alignment(given, graph(RNA_PROTEIN), "auto")
    for text in ("'anchors'", "rna and protein: 2 cells hold both", "1 edges link"):
        assert text in caplog.text


@pytest.mark.parametrize("alignment", ["anchors", "pairs", "none"])
def test_a_request_is_followed(alignment: str) -> None:
    given = data({"rna": range(25), "protein": range(15, 40)})
    assert choose_alignment(given, graph(RNA_PROTEIN), alignment) == alignment


def test_none_asks_for_nothing() -> None:
    assert choose_alignment(data(UNPAIRED), None, "none") == "none"


THREE = {"rna": range(14), "protein": range(14, 27), "atac": range(27, 40)}


@pytest.mark.parametrize(
    ("cells", "edges", "expected"),
    [
        (THREE, [RNA_PROTEIN, ("rna", "atac")], "anchors"),
        (THREE, [RNA_PROTEIN, ("protein", "atac")], "anchors"),
        ({**THREE, "atac": range(20, 40)}, [("rna", "atac")], "anchors"),
        ({**THREE, "rna": range(30), "atac": range(27, 40)}, [], "pairs"),
    ],
    ids=["star", "chain", "cells and edges", "cells"],
)
def test_a_third_modality_ties_two(
    cells: Mapping[str, Sequence[int]], edges: list[tuple[str, str]], expected: str
) -> None:
    given = graph(*edges) if edges else None
    assert choose_alignment(data(cells), given, "auto") == expected


REFUSED = {
    "unknown": (UNPAIRED, graph(RNA_PROTEIN), "magic", RequestError, ("'magic'", "'anchors'")),
    "anchors without a graph": (
        UNPAIRED,
        None,
        "anchors",
        RequestError,
        ("no edge", "graph=", "from_names"),
    ),
    "anchors with a graph that links nothing": (
        UNPAIRED,
        graph(),
        "anchors",
        RequestError,
        ("no edge", "graph="),
    ),
    "nothing ties": (
        UNPAIRED,
        None,
        "auto",
        DataError,
        (
            "nothing ties 'protein' to 'rna'",
            "no cell holds both",
            "no feature graph links",
            "graph=",
            "from_names",
            "alignment='none'",
            "modality 'protein'",
        ),
    ),
    "edges within a modality alone": (
        UNPAIRED,
        FeatureGraph(
            {name: FEATURES[name] for name in RNA_PROTEIN}, Edges.of([0], [1], 1, 1.0, "test")
        ),
        "auto",
        DataError,
        ("nothing ties 'protein' to 'rna'",),
    ),
    "pairs where there are none": (
        UNPAIRED,
        graph(RNA_PROTEIN),
        "pairs",
        DataError,
        ("nothing ties 'protein' to 'rna'",),
    ),
    "one of three is alone": (
        THREE,
        graph(RNA_PROTEIN),
        "auto",
        DataError,
        ("nothing ties 'atac' to 'rna'", "no edge"),
    ),
    "the first is alone": (
        THREE,
        graph(("protein", "atac")),
        "auto",
        DataError,
        ("nothing ties 'protein', 'atac' to 'rna'",),
    ),
    "the graph lacks a modality": (
        THREE,
        graph(RNA_PROTEIN, modalities=RNA_PROTEIN),
        "auto",
        DataError,
        ("modality 'atac'", "no features of it", "'rna', 'protein', 'atac'", "key 'graph'"),
    ),
    "the graph has other features": (
        UNPAIRED,
        FeatureGraph(
            {"rna": ("ENSG1",), "protein": FEATURES["protein"]}, Edges.of([0], [1], 1, 1.0, "t")
        ),
        "auto",
        DataError,
        ("nothing ties 'protein' to 'rna'",),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_remedy(name: str) -> None:
    cells, given, alignment, error, says = REFUSED[name]
    assert issubclass(error, MosaicviError)
    with pytest.raises(error) as caught:
        choose_alignment(data(cells), given, alignment)
    for text in says:
        assert text in str(caught.value), str(caught.value)
    assert any(word in str(caught.value) for word in ("Remedy", "Expected"))


@pytest.mark.parametrize(
    ("n_paired", "align", "expected"),
    [(99, False, False), (100, False, True), (119, True, False), (120, True, True)],
)
def test_decoders_of_aligned_modalities_have_an_mlp_where_half_of_the_cells_are_paired(
    n_paired: int, align: bool, expected: bool
) -> None:
    given = data({"rna": range(240), "protein": range(240 - n_paired, 480 - n_paired)}, 480)
    projection, _ = fit_once(given.modalities["rna"], 2, 1e4, 0)
    assert modality_size(given, "rna", projection, 1e4, align=align).residual is expected


@pytest.mark.parametrize(
    ("n_cells", "expected"), [(400, 1.0), (5000, 1.0), (200, 2.0), (50, 8.0), (10, 8.0), (1, 8.0)]
)
def test_embeddings_of_a_modality_with_few_cells_have_a_wider_prior(
    n_cells: int, expected: float
) -> None:
    assert prior_widening(n_cells) == expected


@pytest.mark.parametrize("align", [False, True])
def test_a_wider_prior_reaches_the_decoder_unless_anchors_align(align: bool) -> None:
    given = data({"rna": range(500), "protein": range(100)}, 500)
    sizes = {}
    for name, modality in given.modalities.items():
        projection, _ = fit_once(modality, 2, 1e4, 0)
        sizes[name] = modality_size(given, name, projection, 1e4, align=align)
    spec = ModuleSpec(
        modalities=sizes,
        n_latent=2,
        n_hidden=4,
        n_layers=1,
        dropout_rate=0.0,
        fusion="product_of_experts",
        batch_prior_scale=0.5,
        batch_prior_weight=1.0,
        embedding_prior_scale=0.1,
    )
    # as from a file, with older ones that do not know the factor
    written = spec.to_dict()
    module = build_module(ModuleSpec.from_dict(written))
    scales = {name: each.spec.embedding_prior_scale for name, each in module.decoders.items()}
    assert scales == {"rna": 0.1, "protein": pytest.approx(0.1 if align else 0.4)}
    for size in written["modalities"].values():
        del size["prior_widening"]
    old = build_module(ModuleSpec.from_dict(written))
    assert all(each.spec.embedding_prior_scale == 0.1 for _, each in old.decoders.items())


def test_gene_sets_are_said_to_tie_nothing() -> None:
    given = data(UNPAIRED)
    shared = make_mudata(
        {name: counts_modality(cell_names(2), FEATURES[name]) for name in ("rna", "protein")}
    )
    sets = from_gene_sets(shared, {"A": ["GENE0", "cd3"]}, ["rna", "protein"])
    with (
        pytest.warns(MosaicviWarning, match=r"2 of 2 edges .*'gene_set'.*FactorVI"),
        pytest.raises(DataError, match="no edge of the feature graph links"),
    ):
        choose_alignment(given, sets, "auto")
    both = graph(RNA_PROTEIN, modalities=("rna", "protein")).union(sets)
    with pytest.warns(MosaicviWarning, match="2 of 3 edges"):
        chosen = choose_alignment(given, both, "auto")
    assert chosen == "anchors"
