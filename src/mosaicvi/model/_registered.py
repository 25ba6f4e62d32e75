"""How a model is told of its data: setup of a MuData, and the registration of one."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from mosaicvi._errors import DataError, RequestError
from mosaicvi._scvi import BaseModelClass
from mosaicvi.data import ModalitySpec, MosaicManager, build_manager

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData


class RegisteredModel(BaseModelClass):
    """A model of scvi-tools that reads a MuData as it is."""

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str | Mapping[str, Any] | ModalitySpec],
        *,
        batch_key: str | Mapping[str, str] | None = None,
        layer: str | Mapping[str, str | None] | None = "auto",
        size_factor_key: str | Mapping[str, str] | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        panel_key: str | Mapping[str, str] | None = None,
        empty_droplets: Mapping[str, Any] | None = None,
        source_registry: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a MuData as it is: paired, mosaic or unpaired.

        Nothing is copied, reordered or padded; scvi-tools' registration keys in ``mdata.uns`` are
        the only thing written.

        Parameters
        ----------
        mdata
            Cells; each modality holds the cells that it measured.
        modalities
            Modality to likelihood (``"nb"``, ``"zinb"``, ``"nb_mixture"``, ``"poisson"``,
            ``"bernoulli"``, ``"normal"``, ``"student"``, ``"lognormal"``, ``"beta_binomial"``) or
            to a :class:`~mosaicvi.ModalitySpec`.
        batch_key
            Column of the technical batch: one for all modalities, or one a modality. Read in
            ``mdata.obs`` and the modalities' ``obs``; places that contradict each other are an
            error.
        layer
            Where values are, for all modalities or by modality: ``"auto"`` takes X if it holds
            counts, else ``layers["counts"]``, and else is an error; None takes X; any other name
            is that of a layer.
        size_factor_key
            Column that replaces counts a cell as library size, on their scale: factors with a mean
            of one are to be multiplied by the mean of counts a cell.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of further covariates of the decoders.
        panel_key
            ``varm`` key of a features x batches table, True where a batch measured a feature.
        empty_droplets
            Modality to counts of empty droplets, which set the background of ``nb_mixture``: an
            AnnData or DataFrame with the same features in any order, or a matrix in their order.
        source_registry
            Registry of an earlier setup, whose categories and features are used.

        Raises
        ------
        DataError
            If the data are not what the model needs; the message names modality, key and remedy.
        RequestError
            If a modality, likelihood, option or argument is unknown.

        Examples
        --------
        >>> modalities = {"rna": "zinb", "protein": "nb_mixture"}
        >>> mosaicvi.MosaicVI.setup_mudata(mdata, modalities, batch_key="batch")

        A batch key for each modality, and RNA counts in a layer:

        >>> keys = {"rna": "lane", "protein": "stain"}
        >>> layers = {"rna": "raw"}
        >>> mosaicvi.MosaicVI.setup_mudata(mdata, modalities, batch_key=keys, layer=layers)
        """
        if kwargs and source_registry is None:
            known = [*signature(cls.setup_mudata).parameters][1:-1]
            raise RequestError(
                f"unknown arguments {sorted(kwargs)}",
                key="setup_mudata",
                expected="some of " + ", ".join(map(repr, known)),
                remedy="layers are named by modality, layer={'rna': 'counts'}; labels are given to "
                "the functions that use them",
            )
        arguments = cls._get_setup_method_args(
            cls=cls,
            mdata=mdata,
            modalities=modalities,
            batch_key=batch_key,
            layer=layer,
            size_factor_key=size_factor_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            panel_key=panel_key,
        )
        manager = build_manager(
            mdata,
            modalities,
            batch_key=batch_key,
            layer=layer,
            size_factor_key=size_factor_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            panel_key=panel_key,
            empty_droplets=empty_droplets,
            setup_method_args=arguments,
            source_registry=source_registry,
            **kwargs,
        )
        cls.register_manager(manager)

    @classmethod
    def setup_anndata(cls, adata: AnnData, *args: Any, **kwargs: Any) -> None:
        """Refuse an AnnData and say how to make a MuData of it.

        Raises
        ------
        RequestError
            Always.
        """
        raise RequestError(
            f"{cls.__name__} reads a MuData, and was given {type(adata).__name__}",
            remedy="mdata = mudata.MuData({'rna': adata}); "
            f"{cls.__name__}.setup_mudata(mdata, {{'rna': 'zinb'}})",
        )

    @classmethod
    def _get_most_recent_anndata_manager(
        cls, adata: MuData, required: bool = False
    ) -> MosaicManager | None:
        """Registration of a MuData; scvi-tools' own messages speak of ``setup_anndata``."""
        try:
            found: MosaicManager | None = super()._get_most_recent_anndata_manager(adata, required)
        except ValueError as error:
            raise DataError(
                "the MuData was not set up for this model, or is a copy or subset of one that was",
                expected=f"the very object that {cls.__name__}.setup_mudata was given",
                remedy=f"call {cls.__name__}.setup_mudata(mdata, ...) on this object, then "
                f"{cls.__name__}(mdata); a model that is trained takes other cells by adata=",
            ) from error
        return found
