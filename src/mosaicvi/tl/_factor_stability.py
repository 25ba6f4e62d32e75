"""Which factors of a model other fits find again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError
from mosaicvi.factor import FactorVI
from mosaicvi.factor._stability import match, together


def factor_stability(
    models: Sequence[FactorVI], *, by: Literal["weights", "factors"] = "weights"
) -> pd.DataFrame:
    """How well each factor of a model is found by other fits, such as those of other seeds.

    Factors of two models are matched one to one, by the largest sum of absolute correlations. Signs
    and order do not matter.

    Parameters
    ----------
    models
        Two fitted models or more; the factors of the first are judged by the others.
    by
        Correlate ``"weights"``, over the features of all shared modalities, each modality counting
        alike, or ``"factors"``, over the cells that both models hold.

    Returns
    -------
    DataFrame, a row a factor of the first model: ``stability`` (mean absolute correlation over the
    other models, from 0 to 1; a model without a partner counts zero), ``least`` (the smallest), and
    for the other models ``partner 1`` (name of the factor there, ``None`` without one),
    ``correlation 1`` and so on.

    Raises
    ------
    RequestError
        If there are fewer than two models, one is no FactorVI, or ``by`` is unknown.
    DataError
        If two models share no features, or fewer than three cells.

    Examples
    --------
    >>> again = mosaicvi.FactorVI(mdata)
    >>> again.train(seed=1)
    >>> mosaicvi.tl.factor_stability([model, again])
    """
    models = list(models) if isinstance(models, Sequence) else [models]
    odd = [type(model).__name__ for model in models if not isinstance(model, FactorVI)]
    if len(models) < 2 or odd:
        raise RequestError(
            f"found {odd[0] if odd else len(models)}",
            key="models",
            expected="two fitted models of mosaicvi.FactorVI or more",
        )
    if by not in ("weights", "factors"):
        raise RequestError(f"found {by!r}", key="by", expected="'weights' or 'factors'")
    first, *others = models
    columns: dict[str, object] = {}
    found = []
    for number, other in enumerate(others, start=1):
        pair = _weights(first, other) if by == "weights" else _cells(first, other)
        partner, correlation = match(*pair)
        names = [other.factors[place] if place >= 0 else None for place in partner]
        columns |= {f"partner {number}": names, f"correlation {number}": correlation}
        found.append(correlation)
    table = np.stack(found)
    return pd.DataFrame(
        {"stability": table.mean(0), "least": table.min(0), **columns},
        index=pd.Index(first.factors, name="factor"),
    )


def _weights(first: FactorVI, second: FactorVI) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the features that both models have."""
    own, other = {}, {}
    for name in first.module.modalities:
        if name not in second.module.modalities:
            continue
        tables = first.get_weights(name), second.get_weights(name)
        shared = tables[0].index.intersection(tables[1].index)
        if len(shared):
            own[name], other[name] = (table.loc[shared].to_numpy() for table in tables)
    if not own:
        raise DataError(
            "two of the models share no features",
            key="models",
            expected="models of the same modalities",
        )
    return together(own), together(other)


def _cells(first: FactorVI, second: FactorVI) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the cells that both models hold."""
    own, other = first.get_factors().dropna(), second.get_factors().dropna()
    shared = own.index.intersection(other.index)
    if len(shared) < 3:
        raise DataError(
            f"two of the models share {len(shared)} cells",
            key="models",
            expected="three or more",
            remedy="compare by='weights'",
        )
    return own.loc[shared].to_numpy(), other.loc[shared].to_numpy()
