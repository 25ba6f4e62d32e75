"""Gene-set tests on the weights of factors, by decoupler."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi._errors import MosaicviWarning, RequestError
from mosaicvi._scvi import progress

if TYPE_CHECKING:
    from mosaicvi.factor._gene_sets import Members

METHODS = ("ulm", "zscore", "gsea")
"""Tests of one set at a time that give a statistic and a p value."""

SIGNS = ("both", "positive", "negative", "absolute")
"""What of the weights is tested."""

SEED_OF_ZERO = 2**31 - 1
"""Seed of permutations in the place of 0, with which decoupler permutes nothing: p values of 1."""

COLUMNS = ("factor", "gene_set", "n_genes", "statistic", "p_value", "p_adjusted")


def tests_of(method: str) -> Any:
    """Test of decoupler by name.

    Raises
    ------
    RequestError
        If decoupler is not installed, or the test is not among :data:`METHODS`.
    """
    if method not in METHODS:
        raise RequestError(
            f"the test {method!r} is not known",
            key="method",
            expected="one of " + ", ".join(map(repr, METHODS)),
        )
    try:
        import decoupler
    except ImportError as error:
        raise RequestError(
            "the tests are those of decoupler, which is not installed",
            key="enrich",
            expected="decoupler 2.0 or later",
            remedy="install it with pip install 'mosaicvi[explain]', or pip install decoupler",
        ) from error
    return getattr(decoupler.mt, method)


def signed(weights: pd.DataFrame, sign: str) -> pd.DataFrame:
    """Weights, features x factors, of which only one sign, or the size, is left."""
    if sign not in SIGNS:
        raise RequestError(
            f"found {sign!r}", key="sign", expected="one of " + ", ".join(map(repr, SIGNS))
        )
    if sign == "absolute":
        return weights.abs()
    if sign == "positive":
        return weights.clip(lower=0)
    return (-weights).clip(lower=0) if sign == "negative" else weights


def warn_signed(gene_sets: object) -> None:
    """Tell of weights below zero in a table of gene sets, as networks of regulators have them."""
    if not isinstance(gene_sets, pd.DataFrame):
        return
    table = gene_sets[["weight"]] if "weight" in gene_sets else gene_sets
    negative = int((table.select_dtypes("number") < 0).to_numpy().sum())
    if negative:
        warnings.warn(
            f"{negative} weights in gene_sets are below zero. Weights are not read: all genes of a "
            "set count alike, and those that go down cancel those that go up. Remedy: "
            "sign='absolute', or a set for either direction: gene_sets.assign(source="
            "gene_sets['source'] + numpy.where(gene_sets['weight'] < 0, ' down', ' up')).",
            MosaicviWarning,
            stacklevel=3,
        )


def enrichment(
    weights: pd.DataFrame, members: Members, method: str, **options: Any
) -> pd.DataFrame:
    """Test every set on every factor.

    decoupler adjusts p values over the sets of one factor, and returns no others: sets are given to
    it one by one, where adjusting changes nothing.

    Parameters
    ----------
    weights
        Features x factors.
    members
        Members of the sets among these features.
    method
        One of :data:`METHODS`.
    **options
        Passed to the test.
    """
    table = weights.T.astype(np.float64)
    # A factor that acts nowhere has nothing to test.
    acts = table.index[(table.to_numpy() != table.to_numpy()[:, :1]).any(1)]
    features = np.asarray(weights.index, dtype=object)
    parts = []
    for number in progress(range(len(members.names)), disable=len(members.names) < 500):
        own = features[members.table[:, number]]
        part = pd.DataFrame({"factor": list(table.index), "gene_set": members.names[number]})
        part["n_genes"], part["statistic"], part["p_value"] = len(own), np.nan, np.nan
        if len(acts) and len(own) < len(features):
            net = pd.DataFrame({"source": "set", "target": own, "weight": 1.0})
            found, p = _tested(method, table.loc[acts], net, options)
            place = part["factor"].isin(acts).to_numpy()
            part.loc[place, "statistic"] = found.loc[acts, "set"].to_numpy()
            part.loc[place, "p_value"] = p.loc[acts, "set"].to_numpy()
        parts.append(part)
    result = pd.concat(parts, ignore_index=True)
    result["p_adjusted"] = adjusted(result["p_value"].to_numpy())
    result["factor"] = pd.Categorical(result["factor"], categories=list(table.index))
    result = result.sort_values(["factor", "p_value"], kind="stable", ignore_index=True)
    return result.astype({"factor": str})[list(COLUMNS)]


def _tested(
    method: str, table: pd.DataFrame, net: pd.DataFrame, options: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Statistics and p values of a set, by factor.

    Raises
    ------
    RequestError
        If the test does not take an option.
    """
    test = tests_of(method)
    if options.get("seed") == 0:
        options = {**options, "seed": SEED_OF_ZERO}
    try:
        found, p = test(table, net, tmin=1, empty=False, **options)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        raise RequestError(
            f"the test {method!r} of decoupler does not take all of {sorted(options)} ({error})",
            key="enrich",
            expected="options of the test beside those of enrich()",
            remedy="the smallest number of genes of a set is min_genes=",
        ) from error
    return found, p


def adjusted(p: np.ndarray) -> np.ndarray:
    """P values adjusted by Benjamini and Hochberg (1995) over all that are known.

    Parameters
    ----------
    p
        Shape ``(n_tests,)``; NaN stays.
    """
    result = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    raised = p[order] * len(order) / np.arange(1, len(order) + 1)
    result[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return result
