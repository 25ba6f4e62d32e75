"""Registration of a MuData with scvi-tools, read the package's own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from torch.utils.data import Dataset, Subset

from mosaicvi import _keys, _scvi
from mosaicvi._errors import DataError, FileError
from mosaicvi.data._background import with_empty_droplets
from mosaicvi.data._changes import changed, check_told, contents, same, told, total
from mosaicvi.data._dataset import MultiDataset
from mosaicvi.data._field import FieldRegistries, MosaicField
from mosaicvi.data._mosaic_data import MosaicData, resolve
from mosaicvi.data._schema import (
    AUTO,
    ModalitySpec,
    Request,
    likelihood_of,
    make_keys,
    make_specs,
)
from mosaicvi.data._state import MosaicState
from mosaicvi.data._stored import StoredValues
from mosaicvi.data._structure import check_known, check_object
from mosaicvi.data._values import count_sums, stored

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from mosaicvi.data._values import Matrix


_OWNERS: WeakValueDictionary[str, MuData] = WeakValueDictionary()
"""Registered MuData, as long as they live, by scvi-tools' identity, which copies share."""


class MosaicManager(_scvi.AnnDataManager):
    """scvi-tools' manager, for a MuData whose modalities need not share cells or their order.

    Registration verifies the MuData and writes nothing to it but scvi-tools' two registration keys
    in ``uns``.

    Parameters
    ----------
    fields
        Fields; ours is a :class:`~mosaicvi.data._field.MosaicField`.
    setup_method_args
        scvi-tools' record of the setup call.
    validation_checks
        Ignored: our own checks replace scvi-tools'.
    """

    columns: tuple[str, ...] = ()
    """Further columns of ``obs`` that a model reads."""

    def __init__(
        self,
        fields: list[Any] | None = None,
        setup_method_args: dict[str, Any] | None = None,
        validation_checks: Any = None,
    ) -> None:
        super().__init__(
            fields=fields,
            setup_method_args=setup_method_args,
            validation_checks=_scvi.validation_checks(),
        )
        self._registry[_scvi.FIELD_REGISTRIES_KEY] = FieldRegistries()
        self._data: MosaicData | None = None
        self._names: dict[str, pd.Index] = {}
        self._sums: dict[str, list[float]] = {}
        self._told: dict[tuple[str | None, str], int] = {}
        self._totals: dict[str, complex | None] = {}
        self._contents: dict[tuple[str, ...], Any] = {}

    def register_fields(
        self, adata: MuData, source_registry: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Validate a MuData, from scratch or against an earlier registration.

        Parameters
        ----------
        adata
            The MuData (scvi-tools' name of the argument).
        source_registry
            An earlier registration.
        kwargs
            ``extend_batches``; see :func:`mosaicvi.data._transfer.transfer`.

        Raises
        ------
        FileError
            If the earlier registration is not one of ours.
        """
        if (
            source_registry is not None
            and _scvi.state_registry(source_registry, _keys.REGISTRY) is None
        ):
            raise FileError(
                "the registry was not written by mosaicvi",
                key="source_registry",
                remedy="load the model with the class that saved it",
            )
        self._data = None
        if _OWNERS.get(str(adata.uns.get(_scvi.UUID_KEY)), adata) is not adata:
            # A copy, or read from a file: with its identity it would take the original's place.
            _scvi.assign_new_uuid(adata)
        super().register_fields(adata, source_registry, **kwargs)
        _OWNERS[self.adata_uuid] = adata
        self._names = _names_of(adata)
        self._sums, self._told = {}, {}
        if source_registry is None:
            self._told = told(adata, self.state)
            for name, part in self.state.modalities.items():
                if likelihood_of(part.spec).is_count:
                    self._sums[name] = count_sums(adata.mod[name], part.spec, name)

    def validate(self) -> None:
        """Check that the registered MuData is as it was; scvi-tools calls this before an answer.

        Raises
        ------
        DataError
            If cells or features changed since the registration: the arrays that were read then no
            longer belong to them; or if values that the arrays share changed in place.
        """
        if self.adata is not None:
            now = _names_of(self.adata)
            for place, names in self._names.items():
                if place not in now or not names.equals(now[place]):
                    raise DataError(
                        f"{place} of the MuData changed after it was set up",
                        expected="the cells and features of the setup",
                        remedy="call setup_mudata again; or, to ask a trained model about the "
                        "changed data, pass them as another object: adata=mdata.copy(), or "
                        "where values lie on disk adata=mudata.MuData(dict(mdata.mod), "
                        "obs=mdata.obs)",
                    )
        for name, before in self._totals.items() if self._data is not None else ():
            if not same(before, total(self.data.modalities[name].values)):
                raise DataError(
                    "the values changed in place after they were read",
                    modality=name,
                    key="layer",
                    expected="the values of the setup: they are not copied",
                    remedy="put them back, or pass a MuData of the counts, adata=mdata; keep "
                    f"counts in mdata['{name}'].layers['counts'] before X is transformed",
                )
        super().validate()

    def is_stale(self) -> bool:
        """Whether the MuData was given other values or columns since it was read.

        Cells or features that changed are :meth:`validate`'s.
        """
        if self._data is None or self.adata is None:
            return False
        read = [self.data.modalities[name].values for name in self._totals]
        own = all(map(same, self._totals.values(), map(total, read)))
        return not own or changed(self._contents, contents(self.adata, self.state, self.columns))

    @property
    def state(self) -> MosaicState:
        """What is remembered of the MuData."""
        found = _scvi.state_registry(self.registry, _keys.REGISTRY)
        if found is None:
            raise DataError("no MuData is registered", remedy="call setup_mudata first")
        return MosaicState.from_dict(found)

    @property
    def data(self) -> MosaicData:
        """The registered MuData as arrays, resolved at first use and kept.

        Raises
        ------
        DataError
            If values, or columns, changed since they were checked.
        """
        if self._data is None:
            if self._told:
                check_told(self._told, told(self.adata, self.state))
            data = resolve(self.adata, self.state)
            for name, sums in self._sums.items():
                values = data.modalities[name].values
                if isinstance(values, StoredValues) or not sums:
                    continue
                if not np.isclose(stored(values).sum(dtype=np.float64), sums, rtol=1e-9).any():
                    raise DataError(
                        "the values changed after they were set up",
                        modality=name,
                        key="layer",
                        expected="the values of the setup, in X or a layer",
                        remedy="call setup_mudata again, or keep counts in "
                        f"mdata['{name}'].layers['counts'] before normalising X",
                    )
            self._data = data
            self._totals = {name: total(each.values) for name, each in data.modalities.items()}
            self._contents = contents(self.adata, self.state, self.columns)
        return self._data

    def create_torch_dataset(
        self,
        indices: Sequence[int] | np.ndarray | None = None,
        data_and_attributes: Any = None,
        load_sparse_tensor: bool = False,
        *,
        encoder_inputs: Mapping[str, np.ndarray] | None = None,
    ) -> Dataset[Any]:
        """Return a dataset of minibatches; scvi-tools calls this.

        Parameters
        ----------
        indices
            Cells to keep; None for all.
        data_and_attributes, load_sparse_tensor
            Ignored: a minibatch always carries its present modalities, counts sparse.
        encoder_inputs
            Modality name to what its encoder reads, ``(n_modality_cells, n_inputs)``.
        """
        dataset = MultiDataset(self.data, encoder_inputs or {})
        return dataset if indices is None else Subset(dataset, np.asarray(indices))  # type: ignore[arg-type]


def build_manager(
    mdata: MuData,
    modalities: Mapping[str, str | ModalitySpec | Mapping[str, Any]],
    *,
    batch_key: str | Mapping[str, str] | None = None,
    layer: str | Mapping[str, str | None] | None = AUTO,
    size_factor_key: str | Mapping[str, str] | None = None,
    categorical_covariate_keys: str | Sequence[str] | None = None,
    continuous_covariate_keys: str | Sequence[str] | None = None,
    panel_key: str | Mapping[str, str] | None = None,
    empty_droplets: Mapping[str, AnnData | pd.DataFrame | Matrix] | None = None,
    setup_method_args: Mapping[str, Any] | None = None,
    source_registry: dict[str, Any] | None = None,
    **kwargs: Any,
) -> MosaicManager:
    """Validate a MuData and register it.

    Parameters
    ----------
    mdata
        The MuData; nothing but scvi-tools' registration keys in ``uns`` is written to it.
    modalities
        Modality to likelihood, :class:`ModalitySpec`, or its dict; the order is that of results.
    batch_key
        Column of technical groups: one for all modalities, or one a modality. Cells that lack a
        modality, and have no value in a column that is its alone, are answered for as in batches
        that measured it.
    layer
        Where values are, for modalities whose specification leaves it at ``"auto"``.
    size_factor_key
        Column of size factors, for modalities with a library size.
    categorical_covariate_keys, continuous_covariate_keys
        Columns of covariates.
    panel_key
        Key of ``varm`` with the features that each batch measured: for one modality each, or one
        key that some of the modalities have.
    empty_droplets
        Modality to droplets without a cell: an AnnData, a DataFrame or a matrix, droplets x
        features.
    setup_method_args
        scvi-tools' record of the setup call; the record kept is plain JSON.
    source_registry
        An earlier registration to follow; the other arguments then only document it.
    kwargs
        With ``source_registry``: ``extend_batches``.

    Raises
    ------
    RequestError
        If something is asked for that the data or a likelihood cannot have.
    DataError
        If the data are not what is expected.
    """
    check_object(mdata)
    record = dict(setup_method_args or {})
    if source_registry is not None:
        manager = MosaicManager([MosaicField(None)], _as_json(record, None))
        manager.register_fields(mdata, source_registry, **kwargs)
        return manager
    panels = _panel_keys(mdata, modalities, panel_key)
    specs = make_specs(modalities, layer=layer, size_factor_key=size_factor_key, panel_key=panels)
    check_known(mdata, list(specs))
    specs = with_empty_droplets(mdata, specs, empty_droplets)
    request = Request(
        specs=specs,
        batch_key=dict(batch_key) if isinstance(batch_key, Mapping) else batch_key,
        categorical_keys=make_keys(categorical_covariate_keys, "categorical_covariate_keys"),
        continuous_keys=make_keys(continuous_covariate_keys, "continuous_covariate_keys"),
    )
    manager = MosaicManager([MosaicField(request)], _as_json(record, specs))
    manager.register_fields(mdata, None, **kwargs)
    return manager


def _names_of(mdata: MuData) -> dict[str, pd.Index]:
    """Cell and feature names by place; pandas compares unchanged ones at no cost."""
    names = {"obs_names": mdata.obs_names}
    for name, adata in mdata.mod.items():
        names[f"obs_names of modality {name!r}"] = adata.obs_names
        names[f"var_names of modality {name!r}"] = adata.var_names
    return names


def _panel_keys(
    mdata: MuData,
    modalities: Mapping[str, Any],
    panel_key: str | Mapping[str, str] | None,
) -> Mapping[str, str] | None:
    """Turn one key for all into one for each modality that has such a table."""
    if not isinstance(panel_key, str):
        return panel_key
    having = [
        name for name in modalities if name in mdata.mod and panel_key in mdata.mod[name].varm
    ]
    if not having:
        raise DataError(
            "no modality has such a table in varm",
            key=panel_key,
            expected="a features x batches table in mdata.mod[...].varm",
        )
    return dict.fromkeys(having, panel_key)


def _as_json(record: dict[str, Any], specs: Mapping[str, ModalitySpec] | None) -> dict[str, Any]:
    """Return the setup record as plain JSON: what empty droplets said is in the specifications."""
    arguments = dict(record.get(_scvi.SETUP_ARGS_KEY) or {})
    for name in ("modalities", "empty_droplets", "source_registry"):
        given = arguments.get(name)
        if name == "modalities" and given is not None:
            asked = make_specs(given) if specs is None else specs
            arguments[name] = {modality: spec.to_dict() for modality, spec in asked.items()}
        elif name == "empty_droplets" and name in arguments:
            arguments[name] = None
        elif name == "source_registry":
            arguments.pop(name, None)
    record[_scvi.SETUP_ARGS_KEY] = _plain(arguments)
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
