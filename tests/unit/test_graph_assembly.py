"""Whether genes and peaks are of one assembly is found out from the data, and said aloud."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from tests.graph_helpers import named

from mosaicvi import DataError, MosaicviWarning
from mosaicvi.graph import from_coordinates
from mosaicvi.graph._assembly import _beyond, fitting, nearness

N_GENES = 400


def annotation(shift=0):
    """Genes 50 kb long, 200 kb apart, of both strands."""
    start = 1_000_000 + 200_000 * np.arange(N_GENES) + shift
    return pd.DataFrame(
        {
            "chrom": "chr1",
            "start": start,
            "end": start + 50_000,
            "strand": np.where(np.arange(N_GENES) % 2, "+", "-"),
            "gene": [f"G{i}" for i in range(N_GENES)],
        }
    )


def promoter_peaks(near, n):
    """Peaks anywhere, a share of them at transcription starts."""
    rng = np.random.default_rng(0)
    genes = annotation().sample(n, replace=True, random_state=0)
    site = np.where(genes["strand"] == "+", genes["start"], genes["end"])
    start = 1_000_000 + rng.integers(0, 200_000 * N_GENES, n)
    start = np.where(rng.random(n) < near, site + rng.integers(-500, 500, n), start)
    return list(dict.fromkeys(f"chr1:{low}-{low + 300}" for low in start))


def data(near=0.3, n=2000):
    return named({"rna": [f"G{i}" for i in range(N_GENES)], "atac": promoter_peaks(near, n)})


def test_right_assembly_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        graph = from_coordinates(data(), annotation=annotation(), on_mismatch="error")
    assert graph.n_edges > 700


@pytest.mark.parametrize("shift", [-40_000, 9_919, 45_000])
def test_shifted_assembly_is_said_aloud(shift):
    moved = annotation(shift)
    with pytest.warns(MosaicviWarning) as caught:
        graph = from_coordinates(data(), annotation=moved)
    ours = [warning for warning in caught if issubclass(warning.category, MosaicviWarning)]
    assert len(ours) == 1
    text = str(ours[0].message)
    for part in ("different assemblies", "by chance", "modality 'atac'", "lift", "hg38"):
        assert part in text
    assert ours[0].filename == __file__
    assert graph.n_edges > 0
    with pytest.raises(DataError, match="different assemblies"):
        from_coordinates(data(), annotation=moved, on_mismatch="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        assert from_coordinates(data(), annotation=moved, on_mismatch="ignore") == graph


def test_peaks_without_promoters_warn_too_and_can_be_let_through():
    with pytest.warns(MosaicviWarning, match="avoid promoters"):
        from_coordinates(data(near=0.0), annotation=annotation())


def test_few_peaks_are_not_judged(caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "mosaicvi"):
        warnings.simplefilter("error", MosaicviWarning)
        from_coordinates(data(n=50), annotation=annotation(9_919))
    assert "Too few peaks" in caplog.text


def test_nearness_against_naive_count():
    genes = annotation()[:50]
    peaks = pd.Series(promoter_peaks(0.3, 300)).str.extract(r"(chr1):(\d+)-(\d+)")
    peaks = peaks.set_axis(["chrom", "start", "end"], axis=1).astype({"start": int, "end": int})
    site = np.where(genes["strand"] == "-", genes["end"] - 1, genes["start"])
    low, high = peaks["start"].to_numpy()[:, None] - 1000, peaks["end"].to_numpy()[:, None] + 1000
    expected = int(((site >= low) & (site < high)).any(axis=1).sum())
    n_near, by_chance = nearness(peaks, genes)
    assert n_near == expected
    assert 0 <= by_chance < n_near


def test_stated_assembly_is_checked_against_lengths_and_annotation():
    mdata = named({"rna": ["G1"], "atac": ["chr19:61000000-61000500", "chr1:1210000-1210500"]})
    # chr19 ends at 58.6 Mb in hg38, at 61.4 Mb in mm10.
    genes = pd.concat([annotation(), annotation()[:3].assign(chrom="chr19")], ignore_index=True)
    with pytest.raises(DataError, match=r"1 peaks lie beyond .* hg38.*mm10"):
        from_coordinates(mdata, annotation=genes, assembly="hg38")
    assert from_coordinates(mdata, annotation=genes, assembly="mm10").n_edges == 1
    genes.attrs["assembly"] = "mm39"
    with pytest.raises(DataError, match=r"the annotation is of mm39.*fetch_annotation\('mm10'\)"):
        from_coordinates(mdata, annotation=genes, assembly="mm10")
    genes.attrs["assembly"] = "hg38"
    with pytest.warns(MosaicviWarning, match="1 peaks lie beyond the end"):
        from_coordinates(mdata, annotation=genes)


def test_assemblies_that_fit():
    peaks = pd.DataFrame({"chrom": ["chr1", "chrUn_GL1v1"], "start": [0, 0], "end": [10, 10**9]})
    assert fitting(peaks) == ["hg19", "hg38", "mm9", "mm10", "mm39"]
    assert fitting(peaks.assign(end=[197_000_000, 5])) == ["hg19", "hg38", "mm9"]
    assert fitting(peaks.assign(chrom="22", end=10)) == ["hg19", "hg38"]
    assert fitting(peaks.assign(chrom="chr77")) == []


def test_chromosomes_of_any_style_are_compared_with_their_lengths():
    peaks = pd.DataFrame({"chrom": ["1", "MT"], "start": [0, 0], "end": [248_900_500, 600]})
    for chromosomes in (["1", "MT"], ["chr1", "chrM"], ["Chr1", "M"]):
        styled = peaks.assign(chrom=chromosomes)
        assert fitting(styled) == ["hg19", "hg38"]
        assert _beyond(styled, "mm10") == 1
        assert _beyond(styled, "hg38") == 0
    assert _beyond(peaks.assign(chrom=["1", "unplaced"]), "mm10") == 1


def test_stated_assembly_is_checked_without_chr():
    mdata = named({"rna": ["G1"], "atac": ["19:61000000-61000500", "1:1210000-1210500"]})
    genes = pd.concat([annotation(), annotation()[:3].assign(chrom="19")], ignore_index=True)
    genes["chrom"] = genes["chrom"].str.removeprefix("chr")
    with pytest.raises(DataError, match=r"1 peaks lie beyond .* hg38.*mm10"):
        from_coordinates(mdata, annotation=genes, assembly="hg38")
