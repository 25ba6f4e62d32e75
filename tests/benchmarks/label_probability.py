"""Probabilities of labels: ``python -m tests.benchmarks.label_probability DATA FEATURES --seed S``.

Cells of two assays of which none has both, with some proteins of ``pbmc_mosaic`` or
``sln_unpaired`` (as in ``tests.benchmarks.few_links``), or the commonest regions of
``snareseq_cortex`` and its genes (``many_links``), fitted at defaults. Labels go from each assay to
the other. Prints a line of JSON for each direction, by votes as they come and labels that
went there and back alone (``plain``), and at defaults: share of the cells that get a label, their
mean probability and how many are right; the same of all cells; and the mean of -log of the true
label's probability.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
from tests.benchmarks.few_links import assays
from tests.benchmarks.many_links import LABEL, parts

from mosaicvi import MosaicVI, tl
from mosaicvi.model._counterparts import doubt_between
from mosaicvi.tl import _transfer_labels, _votes
from mosaicvi.tl._latents import Places, UnimodalCells, two_modalities

N_NEIGHBOURS = 30
ALL_GENES = 1677


def main() -> None:
    """Fit one subset of cells and features and print how far probabilities hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=("pbmc_mosaic", "sln_unpaired", "snareseq_cortex"))
    parser.add_argument("features", type=int, help="proteins or regions")
    parser.add_argument("--n-cells", type=int, default=1500, help="of each assay of SNARE-seq")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.data == "snareseq_cortex":
        mdata, links = parts(ALL_GENES, given.features, given.n_cells, given.seed)
        model = MosaicVI(mdata, graph=links, seed=given.seed)
        model.train(enable_progress_bar=False)
    else:
        rng = np.random.default_rng((given.seed, given.features))
        both = assays(given.data, given.features, rng)
        mdata, model = tl.build_atlas(both, batch_key="batch", seed=given.seed)
    names = list(mdata.mod)
    for source, target in (names, names[::-1]):
        known, asked = two_modalities(model, source, target, None)
        types = [_types(mdata[each.modality].obs, each) for each in (known, asked)]
        doubt = doubt_between(model.counterparts, source, target)
        for how in ("plain", "now"):
            found = _probabilities(known.places, asked.places, *types, doubt, how=how)
            row = {**vars(given), "source": source, "target": target, "how": how, **found}
            sys.stdout.write(json.dumps(row) + "\n")


def _types(obs: pd.DataFrame, cells: UnimodalCells) -> np.ndarray:
    return obs[LABEL].reindex(cells.names).to_numpy(str)


def _probabilities(
    known: Places, asked: Places, types: np.ndarray, truth: np.ndarray, doubt: float, *, how: str
) -> dict[str, float]:
    labels = np.unique(types)
    codes = pd.Categorical(types, categories=labels).codes.astype(np.int64)
    sides = [known, asked]
    alike = _votes.alike
    if how == "plain":
        sides = [replace(side, variance=np.zeros_like(side.variance)) for side in sides]

        def alike(target: Places) -> np.ndarray:
            return np.empty((len(target), 0), dtype=np.int64)

    tables = []

    def kept(probability: np.ndarray, temperature: float) -> np.ndarray:
        tables.append(_votes.at_temperature(probability, temperature))
        return tables[-1]

    with (
        mock.patch.object(_votes, "alike", alike),
        mock.patch.object(_transfer_labels, "alike", alike),
        mock.patch.object(_transfer_labels, "at_temperature", kept),
    ):
        done = _transfer_labels.transfer(
            sides[0], codes, sides[1], len(labels), N_NEIGHBOURS, 0, doubt
        )
    right, given = labels[done.code] == truth, done.given()
    table = (1.0 - doubt) * tables[-1] + doubt * np.bincount(codes) / len(codes)
    place = pd.Index(labels).get_indexer(truth)
    true = np.where(place >= 0, table[np.arange(len(truth)), place], 0.0)
    found = {
        "answered": given.mean(),
        "probability": done.probability[given].mean(),
        "right": right[given].mean(),
        "all_probability": done.probability.mean(),
        "all_right": right.mean(),
        "nats": -np.log(np.maximum(true, 1e-6)).mean(),
        "temperature": done.temperature,
        "doubt": doubt,
    }
    return {key: round(float(value), 4) for key, value in found.items()}


if __name__ == "__main__":
    main()
