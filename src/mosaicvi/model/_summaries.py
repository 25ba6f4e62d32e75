"""Streaming summaries of draws: what an answer reports of each cell and feature."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mosaicvi._errors import RequestError
from mosaicvi.likelihoods import NegativeBinomialMixture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.model._chunks import PredictiveChunk

MAX_QUANTILE_ENTRIES = 2**24
"""Entries that :func:`torch.quantile` takes at once."""

LEAST_DRAWS = 10
"""Draws from which on their means are freed of chance: fewer do not tell a slope."""

SCALES = ("counts", "log1p", "clr", "foreground")
"""Scales on which an answer can be given."""


def on_scale(chunk: PredictiveChunk, counts: Tensor, scale: str) -> Tensor:
    """Bring draws to a scale.

    ``counts`` as drawn; ``log1p`` their natural log1p; ``clr`` log1p minus its mean over the
    features of a cell (Stoeckius et al. 2017, as in muon, with a pseudocount of one);
    ``foreground`` the mean of the foreground component times its probability.

    Returns
    -------
    Shape ``(n_samples, n_cells, n_features)``.
    """
    if scale == "counts":
        return counts
    if scale == "log1p":
        return torch.log1p(counts)
    if scale == "clr":
        logs = torch.log1p(counts)
        return logs - logs.mean(-1, keepdim=True)
    parameters = chunk.parameters
    return parameters["foreground_mean"] * torch.sigmoid(-parameters["mixing_logit"])


def average(draws: Tensor) -> Tensor:
    """Mean over draws, ``(n_cells, n_features)``, added up one after the other.

    So that a cell's is the same bits wherever it stands: how torch adds along the first dimension
    depends on the place.
    """
    total = torch.zeros_like(draws[0])
    for draw in draws:
        total += draw
    return total / len(draws)


def mean_of(values: Tensor, counts: Tensor, means: Tensor, scale: str) -> Tensor:
    r"""Mean of draws on a scale, without most of what their count noise does to it.

    The noise of draws has a known mean, zero, and what it is in these draws by chance is taken out
    again (a control variate; Owen 2013, chapter 8.9):

    .. math:: \bar v - \beta (\bar x - \bar \mu), \qquad
        \beta = \operatorname{Cov}(v, x - \mu) / \operatorname{Var}(x - \mu).

    Of genes with few counts some hundred draws say little by themselves: most are zero. As the
    slope is of the same draws, the mean is a little too high (about 1 % of log1p with 100 draws,
    two with 25, more where counts vary most); slopes of the other draws alone would have no bias,
    and a larger error.

    Parameters
    ----------
    values
        Draws v on the scale, ``(n_samples, n_cells, n_features)``.
    counts, means
        Draws x, and the likelihood's mean at each, of that shape.
    scale
        Name of the scale.

    Returns
    -------
    Shape ``(n_cells, n_features)``.
    """
    mean = average(values)
    if scale == "foreground" or len(values) < LEAST_DRAWS:  # the foreground has no count noise
        return mean
    if scale == "clr":
        logs = mean_of(torch.log1p(counts), counts, means, "log1p")
        return logs - logs.mean(-1, keepdim=True)
    if scale == "counts":
        return average(means)
    chance = average(counts) - average(means)
    covariance, variance = torch.zeros_like(mean), torch.zeros_like(mean)
    # A draw at a time: products of all would need the memory of the draws several times over.
    for value, count, expected in zip(values, counts, means, strict=True):
        noise = count - expected - chance
        covariance += (value - mean) * noise
        variance += noise.square()
    slope = (covariance / variance.clamp_min(1e-30)).clamp(0.0, 1.0)
    # Of zeros and ones it is known, and draws that are all alike would not tell it.
    slope = torch.where((counts <= 1).all(0), math.log(2.0), slope)
    return torch.where(chance.isfinite(), mean - slope * chance, mean).clamp_min(0)


def check_scale(scale: str, likelihood: object, modality: str) -> None:
    """Refuse a scale that is unknown or that the likelihood cannot give."""
    if scale not in SCALES:
        raise RequestError(
            f"scale {scale!r} is not known",
            modality=modality,
            key="scale",
            expected="one of " + ", ".join(map(repr, SCALES)),
        )
    is_count = bool(getattr(likelihood, "is_count", False))
    if scale == "foreground" and not isinstance(likelihood, NegativeBinomialMixture):
        raise RequestError(
            "only the 'nb_mixture' likelihood separates foreground from background",
            modality=modality,
            key="scale",
            remedy="choose 'counts'" + (", 'log1p' or 'clr'" if is_count else ""),
        )
    if scale in {"log1p", "clr"} and not is_count:
        raise RequestError(
            f"scale {scale!r} is for counts, and this modality is continuous",
            modality=modality,
            key="scale",
            remedy="choose 'counts', which leaves continuous values as they are",
        )


def check_quantiles(quantiles: Sequence[float] | float) -> tuple[float, ...]:
    """Refuse what is no quantile; a single level is one, of numpy as of Python.

    Raises
    ------
    RequestError
        If these are no numbers, or a level is not between 0 and 1.
    """
    given: list[Any]
    try:
        given = list(quantiles)  # type: ignore[arg-type]  # of a number: TypeError
    except TypeError:
        given = [quantiles]
    try:
        levels = tuple(float(level) for level in given)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"found {quantiles!r}",
            key="quantiles",
            expected="levels from 0 to 1, such as (0.05, 0.95)",
            remedy="quantiles=() for none",
        ) from error
    bad = [level for level in levels if not 0 <= level <= 1]
    if bad:
        raise RequestError(f"found {bad}", key="quantiles", expected="levels from 0 to 1")
    return levels


@dataclass
class Summaries:
    """Arrays of an answer, filled chunk by chunk.

    Parameters
    ----------
    n_cells, n_features
        Shape of the answer.
    quantiles
        Quantiles to report.
    scale
        Scale of mean, standard deviation and quantiles.
    is_count
        Whether to report the mean of log1p draws.
    """

    n_cells: int
    n_features: int
    quantiles: Sequence[float]
    scale: str
    is_count: bool
    mean: np.ndarray = field(init=False)
    layers: dict[str, np.ndarray] = field(init=False)
    evidence: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Allocate, with NaN for cells that never get an answer."""
        shape = (self.n_cells, self.n_features)
        self.mean = np.full(shape, np.nan, dtype=np.float32)
        names = ["sd", "denoised", *(quantile_name(q) for q in self.quantiles)]
        if self.is_count:
            names.insert(0, "log1p_mean")
        self.layers = {name: np.full(shape, np.nan, dtype=np.float32) for name in names}
        self.evidence = np.zeros(self.n_cells, dtype=bool)

    def add(self, chunk: PredictiveChunk) -> None:
        """Summarise one chunk of draws; cells without evidence stay NaN."""
        counts = chunk.counts()
        values = on_scale(chunk, counts, self.scale)
        keep = chunk.evidence
        places = chunk.places[keep]
        self.evidence[chunk.places] = keep

        def put(target: np.ndarray, tensor: Tensor) -> None:
            target[places] = tensor.float().cpu().numpy()[keep]

        means = chunk.mean().expand(counts.shape)
        put(self.mean, mean_of(values, counts, means, self.scale))
        put(
            self.layers["sd"], values.std(0) if values.shape[0] > 1 else torch.zeros_like(values[0])
        )
        put(self.layers["denoised"], average(means))
        if self.is_count:
            logs = values if self.scale == "log1p" else torch.log1p(counts)
            put(self.layers["log1p_mean"], mean_of(logs, counts, means, "log1p"))
        if self.quantiles:
            levels = torch.tensor(
                places_of(self.quantiles, len(values)), dtype=values.dtype, device=values.device
            )
            for level, values_at in zip(self.quantiles, _quantiles(values, levels), strict=True):
                put(self.layers[quantile_name(level)], values_at)


def places_of(quantiles: Sequence[float], n_samples: int) -> list[float]:
    """Where quantiles lie between the smallest draw, 0, and the largest, 1.

    The k-th of n draws is their quantile k / (n + 1) (Weibull 1939; type 6 of Hyndman & Fan 1996):
    a value that is one draw more lies between two levels as often as these say. Between the usual
    quantiles, (k - 1) / (n - 1), it lies less often: at 5 and 95 % of 100 draws .88, of 25 .83.
    """
    if n_samples == 1:
        return [0.5] * len(quantiles)
    places = ((n_samples + 1) * np.asarray(quantiles, dtype=np.float64) - 1) / (n_samples - 1)
    return [float(place) for place in np.clip(places, 0.0, 1.0)]


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Quantiles over draws, ``(n_levels, n_cells, n_features)``, in parts that torch can take."""
    width = max(1, MAX_QUANTILE_ENTRIES // (values.shape[0] * values.shape[1]))
    parts = [torch.quantile(part, levels, dim=0) for part in torch.split(values, width, dim=-1)]
    return torch.cat(parts, -1)


def quantile_name(level: float) -> str:
    """Layer name of a quantile: ``q05`` for 0.05, ``q97.5`` for 0.975."""
    percent = round(100 * level, 4)
    return f"q{int(percent):02d}" if percent == int(percent) else f"q{percent}"
