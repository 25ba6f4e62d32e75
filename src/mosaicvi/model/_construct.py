"""From registered data to a network: sizes, frozen inputs, starting values, loss weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mosaicvi import likelihoods
from mosaicvi._errors import DataError, RequestError, check_whole
from mosaicvi.alignment import Anchors, AnchorSpec
from mosaicvi.model._inputs import (
    default_width,
    fit_modality_projection,
    fit_regressions,
    fit_rows,
    join_predictors,
    measured_table,
    project,
    rows_read,
    target_sum,
)
from mosaicvi.model._linkage import graph_arrays, link
from mosaicvi.model._scarce import n_tied
from mosaicvi.model._ties import ENOUGH_PAIRS
from mosaicvi.model._trust import modality_trust
from mosaicvi.module._build import ModalitySize, ModuleSpec, build_module
from mosaicvi.nn._familiar_depth import depth_levels, nothing_known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.data._stored import Rows
    from mosaicvi.graph import FeatureGraph
    from mosaicvi.likelihoods._base import FeatureStart
    from mosaicvi.module._mosaic_module import MosaicModule
    from mosaicvi.nn._cross_predictor import CrossPredictor
    from mosaicvi.nn._projection import Projection

MIN_PAIRED_CELLS = 100
"""A modality's decoder gets its residual MLP when at least this many of its cells also hold another
modality (or when the model has only one modality); otherwise it stays bilinear. Where anchors align
modalities, these must be :data:`~mosaicvi.model._ties.ENOUGH_PAIRS` of its cells, too: few pairs do
not keep an MLP of each modality from using the latent space in a way of its own."""

ENOUGH_CELLS = 400
MOST_WIDENING = 8.0
"""The prior of embeddings is wider for a modality that fewer cells hold than the first number, by
how many times fewer, up to the second: so few cells do not move embeddings out of a narrow prior,
and the modality would be imputed near its mean (decisions, "Few cells with a modality")."""


DROPOUT_RATE, FEW_CELLS = (0.5, 0.35), 2500
"""Default dropout rates of the encoders: where up to so many cells tie the modalities, and more."""

_ROWS = 64
"""Rows that are looked at together, for a feature that varies."""


@dataclass(frozen=True)
class NetworkSpec:
    """Choices that fix the network, besides the data.

    Attributes
    ----------
    n_latent, n_hidden, n_layers, dropout_rate
        Latent dimensions; width, depth and dropout rate of the encoders (None:
        :func:`default_dropout`).
    n_projection
        Width of the frozen projections; None: :func:`default_width`.
    fusion
        Name of the fusion rule.
    batch_prior_scale, batch_prior_weight
        Prior spread between batches on the log scale, and how many batches it counts for.
    embedding_prior_scale
        Prior standard deviation of the feature embeddings' entries.
    """

    n_latent: int
    n_hidden: int
    n_layers: int
    dropout_rate: float | None
    n_projection: int | None
    fusion: str
    batch_prior_scale: float
    batch_prior_weight: float
    embedding_prior_scale: float

    def __post_init__(self) -> None:
        """Refuse a network without units."""
        for key, least in {"n_latent": 1, "n_hidden": 1, "n_layers": 0}.items():
            check_whole(getattr(self, key), key, least)
        if self.n_projection is not None:
            check_whole(self.n_projection, "n_projection")
        if not self.batch_prior_scale > 0:
            raise RequestError(
                f"found {self.batch_prior_scale}",
                key="batch_prior_scale",
                expected="a number above 0",
            )


def default_dropout(n_cells: int, *, align: bool = False) -> float:
    """Dropout rate of the encoders: few cells overfit (decisions, "More dropout for few cells").

    ``n_cells`` are those that tie the modalities (:func:`~mosaicvi.model._scarce.n_tied`). Fits
    that start from anchors end before they overfit.
    """
    few, many = DROPOUT_RATE
    return few if n_cells <= FEW_CELLS and not align else many


def construct(
    data: MosaicData,
    network: NetworkSpec,
    keys: np.ndarray,
    *,
    seed: int,
    graph: FeatureGraph | None = None,
    align: bool = False,
) -> tuple[ModuleSpec, MosaicModule, Anchors | None]:
    """Build the network for registered data.

    Parameters
    ----------
    data
        Registered data.
    network
        Choices.
    keys
        Keys of the cells' names, shape ``(n_cells,)``, int64.
    seed
        Seed of the projections and of the initial weights; torch's global state is left alone.
    graph
        Feature graph over exactly the registered features; None: pairs alone tie modalities.
    align
        Whether encoders share inputs that anchors between modalities point to.

    Returns
    -------
    Shapes, network, and the anchors where modalities are aligned.
    """
    target_sums = {name: target_sum(modality) for name, modality in data.modalities.items()}
    projections, starts = {}, {}
    for name, modality in data.modalities.items():
        width = network.n_projection or default_width(modality.n_cells, align=align)
        projections[name], starts[name] = fit_once(modality, width, target_sums[name], seed)
    linkage = None
    if align:
        projected = {
            name: project(modality, projections[name], target_sums[name])
            for name, modality in data.modalities.items()
        }
        linkage = link(data, graph, projected, AnchorSpec(), seed=seed)
    regressions = fit_regressions(data, projections, target_sums, keys, seed=seed)
    trust = modality_trust(regressions)
    predictors = join_predictors(regressions, projections, trust)
    sizes = {
        name: replace(
            modality_size(
                data,
                name,
                projections[name],
                target_sums[name],
                predictors[name],
                align=align,
            ),
            n_directions=0 if linkage is None else linkage.inputs[name].n_directions,
            trust=trust[name],
        )
        for name in data.modalities
    }
    confidence = None if linkage is None else linkage.confidence
    arrays = None if graph is None else graph_arrays(data, graph, confidence)
    measured = {
        name: torch.as_tensor(measured_table(modality, sizes[name].n_batches))
        for name, modality in data.modalities.items()
    }
    muted = [name for name, value in trust.items() if value == 0]
    spec = ModuleSpec(
        modalities=sizes,
        n_latent=network.n_latent,
        n_hidden=network.n_hidden,
        n_layers=network.n_layers,
        dropout_rate=default_dropout(n_tied(data, muted), align=align)
        if network.dropout_rate is None
        else network.dropout_rate,
        fusion=network.fusion,
        batch_prior_scale=network.batch_prior_scale,
        batch_prior_weight=network.batch_prior_weight,
        embedding_prior_scale=network.embedding_prior_scale,
        n_categories=tuple(len(c) for c in data.categorical_categories),
        n_continuous=0 if data.continuous is None else data.continuous.shape[1],
        n_edges=None if arrays is None else len(arrays.weight),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_module(
            spec,
            projections=projections,
            predictors=predictors,
            starts=starts,
            measured=measured,
            aligned=None if linkage is None else linkage.inputs,
            graph=arrays,
        )
    return spec, module, None if linkage is None else linkage.anchors


def fit_once(
    modality: ModalityData, n_components: int, target_sum: float, seed: int
) -> tuple[Projection, FeatureStart]:
    """Frozen projection and starting values of one modality, from one reading of its rows.

    Raises
    ------
    DataError
        If all its features are constant.
    """
    rows = fit_rows(modality, seed)
    values = rows_read(modality, rows)
    _check_varies(modality, values)
    projection = fit_modality_projection(
        modality,
        n_components=n_components,
        target_sum=target_sum,
        seed=seed,
        rows=rows,
        values=values,
    )
    projection.levels = _levels(modality, projection)
    start = likelihoods.get(modality.spec.likelihood).start(
        values,
        modality.library_size[rows],
        background=modality.log_background,
        panel=modality.panel,
        batch=modality.batch[rows],
    )
    return projection, start


def _levels(modality: ModalityData, projection: Projection) -> torch.Tensor:
    """Depths of its cells, where values are read beside them: those of antibodies are not."""
    n_batches = max(len(modality.batch_categories), 1)
    if modality.depth is None or not likelihoods.get(modality.spec.likelihood).uses_library_size:
        return nothing_known(n_batches)
    found = depth_levels(modality.depth, modality.batch, n_batches, projection.depth)
    return torch.as_tensor(found, dtype=torch.float32)


def _check_varies(modality: ModalityData, values: Rows) -> None:
    """Refuse a modality of which no feature differs between cells."""
    likelihood = likelihoods.get(modality.spec.likelihood)
    low, high = np.full((2, modality.n_features), [[np.inf], [-np.inf]])
    # The first rows will do, as a rule.
    for start in range(0, values.shape[0], _ROWS):
        shown = likelihood.shown(values[start : start + _ROWS])
        block = shown if isinstance(shown, np.ndarray) else shown.toarray()
        low = np.minimum(low, np.nanmin(block, 0, initial=np.inf))
        high = np.maximum(high, np.nanmax(block, 0, initial=-np.inf))
        if (high > low).any():
            return
    raise DataError(
        f"all {modality.n_features} features are constant over its {modality.n_cells} cells",
        modality=modality.name,
        expected="features that differ between cells",
        remedy="remove the modality, or name another layer",
    )


def find_again(
    data: MosaicData,
    graph: FeatureGraph | None,
    module: MosaicModule,
    spec: ModuleSpec,
    *,
    seed: int,
) -> Anchors:
    """Anchors of a model that was read from a file, which does not hold them."""
    projected = {
        name: project(modality, module.projections[name], spec.modalities[name].target_sum)
        for name, modality in data.modalities.items()
    }
    return link(data, graph, projected, AnchorSpec(), seed=seed).anchors


def features_of(data: MosaicData) -> dict[str, list[str]]:
    """Registered features of each modality, in their order."""
    return {name: list(modality.var_names) for name, modality in data.modalities.items()}


def modality_size(
    data: MosaicData,
    name: str,
    projection: Projection,
    target_sum: float,
    predictor: CrossPredictor | None = None,
    *,
    align: bool = False,
) -> ModalitySize:
    """Sizes of one modality's networks; ``predictor=None``: it predicts no other modality."""
    modality = data.modalities[name]
    has_representation = modality.representation is not None
    width = projection.scale.shape[0] if has_representation else projection.components.shape[1]
    n_paired = int(((data.presence.sum(1) >= 2) & (modality.rows >= 0)).sum())
    enough = max(MIN_PAIRED_CELLS, ENOUGH_PAIRS * modality.n_cells if align else 0)
    return ModalitySize(
        likelihood=modality.spec.likelihood,
        n_features=len(modality.var_names),
        n_batches=max(len(modality.batch_categories), 1),
        n_components=int(width),
        has_depth=modality.depth is not None,
        has_representation=has_representation,
        residual=len(data.modalities) == 1 or n_paired >= enough,
        target_sum=target_sum,
        n_cross_scores=0 if predictor is None else predictor.n_scores,
        n_cross_members=0 if predictor is None else int(predictor.members.shape[0]),
        prior_widening=1.0 if align else prior_widening(modality.n_cells),
    )


def prior_widening(n_cells: int) -> float:
    """Factor of the prior spread of embeddings of a modality that so many cells hold."""
    return float(np.clip(ENOUGH_CELLS / max(n_cells, 1), 1.0, MOST_WIDENING))


def modality_weights(
    nats: Mapping[str, float], alpha: float, trust: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Weight of each modality's likelihood terms, ``trust * (largest nats / its nats) ** alpha``.

    A modality without trust has the weight it would have with it: its terms reach no parameter
    that others share (:mod:`~mosaicvi.module._objective`), and is not the largest unless all are.

    Parameters
    ----------
    nats
        Nats per cell of each modality at the start of training.
    alpha
        0: the plain likelihood, in which a large modality drowns a small one; 1: every modality
        counts alike.
    trust
        Modality to its trust; None: 1 for all.
    """
    given = dict.fromkeys(nats, 1.0) if trust is None else trust
    trusted = {name: value for name, value in nats.items() if given[name] > 0} or nats
    largest = max(trusted.values(), default=0.0)
    return {
        name: float((given[name] or 1.0) * (largest / max(value, 1e-6)) ** alpha)
        for name, value in nats.items()
    }
