"""What a fitted FactorVI says of its factors: weights, variance explained, activity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.data._structure import columns_of
from mosaicvi.factor._bound import cell_bounds, parameter_nats
from mosaicvi.factor._sampler import FactorSampler
from mosaicvi.factor._set_getters import GeneSetGetters
from mosaicvi.factor._variance import cell_deviances, most_explained, variance_table
from mosaicvi.model._answers import check_evidence
from mosaicvi.model._cells import Indices, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData


ACTIVE_R2 = 0.005
"""From this deviance R2 on a factor counts as active in a modality."""


class FactorGetters(GeneSetGetters):
    """Answers of a factor model, beside those that both models give."""

    groups: str | None
    refine: int | None

    def _sampler(self, adata: MuData | None, seed: int | None) -> FactorSampler:
        plain = super()._sampler(adata, seed)
        return FactorSampler(
            plain.module,
            plain.data,
            plain.dataset,
            library_pool=plain.library_pool,
            counterparts=plain.counterparts,
            seed=plain.seed,
            n_steps=self.refine,
            gains=self.module_spec.gains,
        )

    def get_factors(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        from_modalities: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Factors of cells by name: :meth:`get_latent_representation` as a DataFrame.

        Parameters
        ----------
        adata, indices
            Cells; None: all cells of the model's MuData.
        from_modalities
            Evidence to use; None: all that a cell has.

        Returns
        -------
        DataFrame ``(n_cells, n_factors)``; NaN for cells without evidence.
        """
        values = self.get_latent_representation(adata, indices, from_modalities=from_modalities)
        data = self._cells(adata).data
        names = data.obs_names[select(data, indices)].astype(str)
        return pd.DataFrame(np.asarray(values), index=pd.Index(names), columns=list(self.factors))

    def get_variance_explained(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        from_modalities: Sequence[str] | None = None,
        n_cells: int = 5000,
        seed: int | None = None,
    ) -> pd.DataFrame:
        r"""Share of the deviance of cells that factors explain.

        .. math:: R^2 = 1 - D(\text{factors}) / D(\text{no factor})

        with the Poisson deviance for counts, the Bernoulli deviance for zeros and ones, the
        binomial one for counts out of counts, and squared error for continuous values (of their
        logs for ``lognormal``; by the density for ``student``, to which one outlier is not all),
        each feature in units of its standard deviation. By default over the validation cells, whose
        values trained no weight, in no fit; their factors are inferred from their own values,
        unless ``from_modalities`` leaves the modality in question out. A modality that no
        validation cell holds is judged on all its cells. An R2 is at most one; it is negative where
        factors predict worse than none.

        Parameters
        ----------
        adata, indices
            Cells; None: the model's validation cells (all, where there are none).
        from_modalities
            Evidence about the factors; None: all that a cell has.
        n_cells
            More cells than this are subsampled; a modality that none of those holds is judged on
            as many of its own.
        seed
            Seed of subsample and bootstrap, neither of which depends on the order of cells; None:
            the model's.

        Returns
        -------
        DataFrame with the columns ``modality``, ``group``, ``factor``, ``r2`` (of the factor
        alone), ``low``, ``high`` (its 95 % bootstrap interval over cells), ``added`` (the R2 of all
        factors less that of all others) and ``n_cells``. Besides the factors there are two
        rows: ``"all factors"``, and ``"not additive"``, what all explain together beyond the
        sum of what each explains alone (negative where they overlap).

        Raises
        ------
        RequestError
            If a modality is unknown, indices are out of range, or ``n_cells`` is no number of
            cells.
        """
        check_whole(n_cells, "n_cells")
        sampler = self._sampler(adata, seed)
        asked = rest = select(sampler.data, indices)
        held = self.validation_indices_
        if adata is None and indices is None and held is not None and len(held):
            asked = np.asarray(held)
        cells, presence = sampler.data.obs_names, sampler.data.presence
        chosen = _some(asked, cells, n_cells, sampler.seed)
        unseen = ~presence[chosen].any(0)
        others = _unseen_cells(presence, chosen, (asked, rest), cells, n_cells)
        rows = np.concatenate([chosen, others])
        names = self._evidence(from_modalities, exclude=None)
        deviances = cell_deviances(sampler, rows, names)
        for name, lacking in zip(sampler.data.modalities, unseen, strict=True):
            if not lacking:
                # Cells that stand in for another modality may have trained this one.
                deviances[name][len(chosen) :] = np.nan
        # The bootstrap draws by place.
        places = np.argsort(cells[rows].astype(str), kind="stable")
        rows, deviances = rows[places], {name: own[places] for name, own in deviances.items()}
        codes = sampler.dataset.groups
        groups = np.full(len(rows), "all", dtype=object)
        if codes is not None:
            known = np.array([*self.module_spec.groups, "unknown"], dtype=object)
            groups = known[codes[rows]]
        return variance_table(deviances, self.factors, groups, seed=sampler.seed)

    def get_elbo(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        n_samples: int = 5,
        seed: int | None = None,
    ) -> float:
        """Evidence lower bound, the weights' divergence spread over the training cells.

        Parameters
        ----------
        adata, indices
            Cells, such as ``indices=model.validation_indices_``; None: all cells of the model's
            MuData.
        n_samples
            Draws of factors and weights.
        seed
            Seed of the draws; None: the model's.

        Returns
        -------
        Mean over the cells that hold a modality, in nats per cell; higher is better.

        Raises
        ------
        RequestError
            If indices are out of range, no selected cell holds a modality, or ``n_samples`` is no
            number of draws.
        """
        check_whole(n_samples, "n_samples")
        sampler = self._sampler(adata, seed)
        rows = select(sampler.data, indices)
        # A cell without any has no nats: the more of them, the better a mean would look.
        held = sampler.data.presence[rows].any(axis=1)
        if not held.any():
            check_evidence(held, self.module.modalities, "bound")
        cells = cell_bounds(sampler, rows[held], n_samples)
        trained: Any = self.train_indices_
        if trained is None:
            trained = self.split_keys.get("train", np.arange(sampler.data.n_cells))
        n_train = len(trained)
        return float(cells.mean() - parameter_nats(self.module) / max(n_train, 1))

    def get_stability(self) -> pd.DataFrame:
        """How well fits of half of the cells, and the other restarts, found each factor.

        Models of several seeds are compared by :func:`mosaicvi.tl.factor_stability`.

        Returns
        -------
        DataFrame, a row a factor, of absolute correlations of its weights with those of its
        partner in another fit, from 0 to 1. ``halves``: mean of the fits of either half of the
        training cells, ``half 1`` and ``half 2``, where ``train(least_stability=0)`` asked for
        them. With restarts: ``stability``, the mean over the others, ``least``, the smallest, and
        ``correlation 1`` and so on.

        Raises
        ------
        RequestError
            If training made neither.
        """
        halves, others = np.array(self.module_spec.halves), np.array(self.module_spec.stability)
        columns: dict[str, np.ndarray] = {}
        if halves.size:
            columns["halves"] = halves.mean(1)
            columns |= {f"half {n}": values for n, values in enumerate(halves.T, start=1)}
        if others.size:
            columns |= {"stability": others.mean(1), "least": others.min(1)}
            columns |= {f"correlation {n}": values for n, values in enumerate(others.T, start=1)}
        if not columns:
            raise RequestError(
                "the model was fitted once, and not to half of the cells",
                key="restarts",
                remedy="train a new model with least_stability=0 or restarts=5, or compare "
                "models by mosaicvi.tl.factor_stability",
            )
        return pd.DataFrame(columns, index=pd.Index(self.factors, name="factor"))

    def get_activity(self, *, threshold: float = ACTIVE_R2) -> pd.DataFrame:
        """Which factor acts in which modality.

        What a factor explains alone counts, or what it adds to all others, whichever is more.

        Parameters
        ----------
        threshold
            Least share of the deviance, in any group.

        Returns
        -------
        Bool DataFrame, factors x modalities.

        Raises
        ------
        RequestError
            If the model's data hold no cell of a modality.
        """
        best = most_explained(self.get_variance_explained(), self.factors)
        lacking = [name for name in self.module.modalities if name not in best]
        if lacking:
            raise RequestError(
                "no cell of the model's data holds it, so none says what acts there",
                modality=lacking[0],
                remedy="load the model with data that hold it, or ask get_variance_explained(), "
                "which answers for the others",
            )
        return best[list(self.module.modalities)] >= threshold

    def write_mofa_slots(self, mdata: MuData) -> None:
        """Write what muon's plots of MOFA read.

        ``mdata.obsm["X_mofa"]`` (factors), ``mdata.varm["LFs"]`` (weights, zero for features that
        the model does not have) and ``mdata.uns["mofa"]["variance"]`` (variance explained in per
        cent, by modality, and by group within it where there are several).

        Parameters
        ----------
        mdata
            The model's MuData, or another one with its modalities.

        Raises
        ------
        DataError
            If ``mdata.varmap`` is stale, as it is once a modality was filtered or reordered.
        """
        own = None if mdata is self.adata else mdata
        mdata.obsm["X_mofa"] = np.asarray(self.get_latent_representation(own))
        weights = np.zeros((mdata.n_vars, len(self.factors)))
        for name, part in mdata.mod.items():
            if name in self.module.modalities:
                columns = columns_of(mdata, name)
                table = self.get_weights(name).reindex(part.var_names.astype(str)).fillna(0.0)
                weights[columns >= 0] = table.to_numpy()[columns[columns >= 0]]
        mdata.varm["LFs"] = weights
        table = self.get_variance_explained()
        table = table[table["factor"].isin(self.factors)]
        variance: dict[str, Any] = {}
        for name, part in table.groupby("modality", sort=False):
            by_group = {
                group: 100 * own["r2"].to_numpy()
                for group, own in part.groupby("group", sort=False)
            }
            one = len({*self.module_spec.groups, *by_group}) == 1
            variance[str(name)] = by_group.popitem()[1] if one else by_group
        mdata.uns["mofa"] = {"variance": variance}


def _some(rows: np.ndarray, cells: np.ndarray, n_cells: int, seed: int) -> np.ndarray:
    """All rows, or so many of them at random, in order.

    They are drawn from a list sorted by the names in ``cells``, so that rows do not matter.
    """
    if len(rows) <= n_cells:
        return rows
    rows = rows[np.argsort(cells[rows].astype(str), kind="stable")]
    return np.sort(np.random.default_rng(seed).choice(rows, n_cells, replace=False))


def _unseen_cells(
    presence: np.ndarray,
    chosen: np.ndarray,
    pools: Sequence[np.ndarray],
    cells: np.ndarray,
    n_cells: int,
) -> np.ndarray:
    """Cells of the modalities that no chosen cell holds, of the first pool that has some.

    Parameters
    ----------
    presence
        Which cells have which modality, bool ``(n_cells, n_modalities)``.
    chosen
        Cells that are judged anyway.
    pools
        Cells to take them from.
    cells
        Names of all cells.
    n_cells
        At most so many a modality.
    """
    found = [np.empty(0, dtype=np.int64)]
    for column in np.flatnonzero(~presence[chosen].any(0)):
        holders = [pool[presence[pool, column]] for pool in pools]
        own = next((rows for rows in holders if len(rows)), holders[0])
        found.append(_some(own, cells, n_cells, 0))
    return np.unique(np.concatenate(found))
