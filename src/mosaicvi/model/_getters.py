"""Answers that a fitted model gives, however it was fitted: latent space, draws, imputation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mosaicvi.model import _answers, _imputation
from mosaicvi.model._base import MultimodalModel
from mosaicvi.model._cells import Indices, select
from mosaicvi.model._counterparts import N_AVERAGED
from mosaicvi.model._summaries import check_quantiles, check_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData


class PosteriorGetters(MultimodalModel):
    """Getters that ask the shared sampler, and so are the same in every model."""

    def get_latent_representation(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        from_modalities: Sequence[str] | None = None,
        give_mean: bool = True,
        return_dist: bool = False,
        seed: int | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Latent representation of every cell, whatever it was measured by.

        Batches are kept where they tell of values; for neighbours, clusters and UMAP,
        :func:`mosaicvi.tl.correct_latent` takes them out.

        Parameters
        ----------
        adata
            MuData to embed; None: the one the model was built on.
        indices
            Row numbers or a mask of cells; None: all.
        from_modalities
            Evidence to use; None: all that a cell has.
        give_mean
            Posterior mean; False gives one draw.
        return_dist
            Also return the posterior variance.
        seed
            Seed of the draw; None: the model's.

        Returns
        -------
        Array ``(n_cells, n_latent)``, or mean and variance; NaN for cells without evidence.

        Raises
        ------
        RequestError
            If a modality is unknown or no selected cell has any of the evidence.

        Examples
        --------
        >>> latent = model.get_latent_representation()
        >>> by_rna = model.get_latent_representation(from_modalities=["rna"])
        """
        sampler = self._sampler(adata, seed)
        names = self._evidence(from_modalities, exclude=None)
        location, variance = _answers.latent_representation(
            sampler, select(sampler.data, indices), names, give_mean=give_mean
        )
        return (location, variance) if return_dist else location

    def impute(
        self,
        modality: str,
        from_modalities: Sequence[str] | None = None,
        *,
        adata: MuData | None = None,
        indices: Indices | None = None,
        n_samples: int = 100,
        quantiles: Sequence[float] = (0.05, 0.95),
        transform_batch: str | Sequence[str] | None = None,
        library_size: float | None = None,
        scale: Literal["counts", "log1p", "clr", "foreground"] = "counts",
        seed: int | None = None,
    ) -> AnnData:
        """Impute one modality for every cell, with intervals.

        Draws the posterior predictive: latent point, offset of a batch that never measured the
        modality, library size and count noise all vary from draw to draw. Of a
        :class:`~mosaicvi.MosaicVI`, where few training cells or none held both evidence and answer,
        some or all latent points are those of cells nearby that hold the answer's modality (see
        :doc:`/models/mosaicvi`).

        Parameters
        ----------
        modality
            Modality to impute.
        from_modalities
            Evidence to use; None: every modality except the imputed one.
        adata, indices
            Cells; None: all cells of the model's MuData.
        n_samples
            Draws a cell.
        quantiles
            Quantiles to report, each in a layer such as ``q05``. The k-th smallest of n draws is
            the quantile k / (n + 1), so that a measured value lies between 5 and 95 % in nine of
            ten cells, if the draws are right; 19 draws or more reach these, fewer end at their
            smallest and largest. Of ``beta_binomial`` they are those of rates that coverage without
            end would show: rates of few reads scatter more (see :doc:`/faq`).
        transform_batch
            Answer as if cells were of this batch, in offsets and library sizes (or of these, which
            draws take in turn: as many draws as batches, or more).
        library_size
            Counts a cell to answer for; None: drawn from cells that measured the modality, at what
            the cell's other modalities tell (see :doc:`/models/mosaicvi`).
        scale
            ``"counts"``; ``"log1p"``; ``"clr"`` (log1p minus the cell's mean over features;
            Stoeckius et al. 2017; ``muon.prot.pp.clr(adata, axis=1, flavor="stoeckius")``, whose
            defaults are another scale); ``"foreground"`` (``nb_mixture`` only: mean counts of the
            foreground component times its probability, without count noise).
        seed
            Seed of the draws; None: the model's.

        Returns
        -------
        AnnData ``(n_cells, n_features)``. ``X``: posterior predictive mean on ``scale``, from ten
        draws on without most of their count noise (on counts: as ``denoised``). Layers:
        ``log1p_mean`` (the same of log1p; of counts only, not of continuous values and
        ``beta_binomial``), ``sd`` and quantiles on ``scale``, ``denoised`` (mean of the likelihood,
        without count noise; of ``bernoulli`` the probability). ``obs["measured"]``,
        ``obs["evidence"]``. ``var``: ``imputability`` (held-out Pearson correlation, on log1p of
        counts and logs of ``lognormal`` values, NaN with too few paired held-out cells) and
        ``imputable`` (at least 0.5). Cells without evidence are NaN.

        Raises
        ------
        RequestError
            If a modality or scale is unknown, ``scale`` is not one of the likelihood (``"log1p"``
            and ``"clr"`` are of counts), it has no library size, or no selected cell has any of the
            evidence.

        Examples
        --------
        >>> protein = model.impute("protein", from_modalities=["rna"])
        >>> protein.to_df(layer="log1p_mean")
        >>> protein.var["imputable"]
        """
        sampler = self._sampler(adata, seed)
        request = self._request(modality, from_modalities, n_samples, transform_batch, library_size)
        check_scale(scale, self.module.decoders[modality].likelihood, modality)
        return _imputation.impute(
            sampler,
            select(sampler.data, indices),
            request,
            quantiles=check_quantiles(quantiles),
            scale=scale,
            imputability=self._get_imputability(request),
        )

    def posterior_predictive_sample(
        self,
        modality: str,
        from_modalities: Sequence[str] | None = None,
        *,
        adata: MuData | None = None,
        indices: Indices | None = None,
        n_samples: int = 1,
        transform_batch: str | Sequence[str] | None = None,
        library_size: float | Literal["observed"] | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Draw counts from the posterior predictive.

        Draws of cells alike belong together, since a model errs for all of them alike: average over
        cells first, then take quantiles over draws, for the mean of a cluster. (One draw alone is
        drawn cell by cell.)

        Parameters
        ----------
        modality
            Modality to draw.
        from_modalities
            Evidence to use; None: every modality, the drawn one included, as a posterior predictive
            check needs (:meth:`impute` leaves it out).
        adata, indices
            Cells; None: all cells of the model's MuData.
        n_samples
            Draws a cell.
        transform_batch
            Answer as if cells were of this batch (or of these, which draws take in turn).
        library_size
            Counts a cell to draw for; ``"observed"``: each cell's own; None: as in :meth:`impute`.
        seed
            Seed of the draws; None: the model's.

        Returns
        -------
        Array ``(n_samples, n_cells, n_features)``, float32, counts (values of a continuous
        modality, rates of ``beta_binomial``); NaN for cells without evidence. Features are in the
        order of setup, whatever theirs in ``adata``: that of ``impute(...).var_names``.

        Raises
        ------
        RequestError
            As in :meth:`impute`, or if ``library_size="observed"`` and a cell lacks the modality.

        Examples
        --------
        >>> draws = model.posterior_predictive_sample("protein", ["rna"], n_samples=100)
        >>> np.quantile(draws.mean(axis=1), [0.05, 0.95], axis=0)  # the cells' mean, a protein each
        """
        sampler = self._sampler(adata, seed)
        request = self._request(
            modality,
            self.module.modalities if from_modalities is None else from_modalities,
            n_samples,
            transform_batch,
            library_size,
        )
        return _answers.predictive_sample(sampler, select(sampler.data, indices), request)

    def get_normalized_expression(
        self,
        modality: str,
        from_modalities: Sequence[str] | None = None,
        *,
        adata: MuData | None = None,
        indices: Indices | None = None,
        n_samples: int | None = None,
        transform_batch: str | Sequence[str] | None = None,
        library_size: float | Literal["observed"] | None = 1.0,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Denoised expression: the likelihood's mean, averaged over latent draws.

        Parameters
        ----------
        modality
            Modality to describe.
        from_modalities
            Evidence to use; None: every modality, this one included.
        adata, indices
            Cells; None: all cells of the model's MuData.
        n_samples
            Latent draws a cell. None: one of each batch, as scvi-tools does, but 25 or more where
            cells are answered for in a batch that did not measure all of the modality, whose
            offsets are drawn, and, of a :class:`~mosaicvi.MosaicVI`, for a modality that shares
            few cells with another, where a draw may be one of several cells nearby.
        transform_batch
            Answer as if cells were of this batch, or the mean over these.
        library_size
            Sum to which a composition is scaled (1 by default, as in scvi-tools; ignored by
            likelihoods without a library); ``"observed"``: each cell's own; None: drawn, as in
            :meth:`impute`. The mean of ``zinb`` counts its dropout, so that rows sum to somewhat
            less; means of ``bernoulli`` are probabilities, and sum to it only near the numbers that
            were measured.
        seed
            Seed of the draws; None: the model's.

        Returns
        -------
        DataFrame ``(n_cells, n_features)``, cells and features by name: shares of a library of
        ``library_size``, or counts (values) where the likelihood has none; NaN for cells without
        evidence.

        Raises
        ------
        RequestError
            As in :meth:`posterior_predictive_sample`.

        Examples
        --------
        >>> model.get_normalized_expression("rna", library_size=1e4)[["CD3E", "MS4A1"]]
        """
        sampler = self._sampler(adata, seed)
        _answers.check_modality(modality, self.module.modalities)
        rows = select(sampler.data, indices)
        if not self.module.decoders[modality].likelihood.uses_library_size:
            library_size = None
        if n_samples is None:
            codes = self._batch_codes(modality, transform_batch)
            n_batches = len(codes or (0,))
            several = modality in self.counterparts or self._draws_offsets(
                modality, codes or sampler.data.modalities[modality].cell_batch[rows]
            )
            n_samples = N_AVERAGED if several else 1
            n_samples = -(-n_samples // n_batches) * n_batches
        request = self._request(
            modality,
            self.module.modalities if from_modalities is None else from_modalities,
            n_samples,
            transform_batch,
            library_size,
        )
        return self._frame(
            sampler, rows, modality, _answers.normalized_expression(sampler, rows, request)
        )

    def _draws_offsets(self, modality: str, codes: Sequence[int] | np.ndarray) -> bool:
        """Whether one of these batches, -1 a new one, did not measure each feature.

        All its cells share an offset that is drawn, so that no mean over cells evens it out.
        """
        measured = self.module.decoders[modality].measured.all(1).cpu().numpy()
        return any(code < 0 or not measured[code] for code in set(map(int, codes)))

    def get_protein_foreground_probability(
        self,
        modality: str = "protein",
        from_modalities: Sequence[str] | None = None,
        *,
        adata: MuData | None = None,
        indices: Indices | None = None,
        n_samples: int = 25,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Probability that each protein is foreground, not background.

        Where a cell's own counts are part of the evidence, the probability is conditioned on them.
        The model of background and foreground follows totalVI (Gayoso et al. 2021).

        Parameters
        ----------
        modality
            Modality whose likelihood is ``nb_mixture``.
        from_modalities
            Evidence to use; None: every modality, this one included.
        adata, indices
            Cells; None: all cells of the model's MuData.
        n_samples
            Latent draws a cell.
        seed
            Seed of the draws; None: the model's.

        Returns
        -------
        DataFrame ``(n_cells, n_features)``, probabilities from 0 to 1; NaN for cells without
        evidence.

        Raises
        ------
        RequestError
            If the modality is unknown or its likelihood is not ``nb_mixture``, or no selected cell
            has any of the evidence.
        """
        sampler = self._sampler(adata, seed)
        request = self._request(
            modality,
            self.module.modalities if from_modalities is None else from_modalities,
            n_samples,
            None,
            None,
        )
        rows = select(sampler.data, indices)
        return self._frame(
            sampler, rows, modality, _answers.foreground_probability(sampler, rows, request)
        )
