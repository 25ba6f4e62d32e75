"""The package's own field in scvi-tools' registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich.table

from mosaicvi import _keys
from mosaicvi._errors import RequestError
from mosaicvi._scvi import BaseAnnDataField
from mosaicvi.data._register import register
from mosaicvi.data._state import MosaicState
from mosaicvi.data._transfer import transfer

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi.data._schema import Request


class FieldRegistries(dict[str, Any]):
    """Registered fields by key; scvi-tools' own keeps an empty entry for any key it is asked for.

    With such an entry, as of ``get_state_registry("batch")``, a saved model could not be loaded.
    """

    def __missing__(self, key: str) -> Any:
        """Refuse a key of scvi-tools' own fields, of which there are none."""
        raise RequestError(
            f"there is no field {key!r}",
            key="registry_key",
            expected=f"{_keys.REGISTRY!r}, the one field of all modalities",
            remedy="names of batches are in model.batch_categories, those of features in "
            "model.get_var_names(), arguments of the setup in model.get_setup_arg(name)",
        )


class MosaicField(BaseAnnDataField):
    """All of a MuData that the model reads, as one field.

    One field sees every modality at once, which the checks across modalities need. It writes
    nothing to the MuData; its state is plain JSON (:class:`~mosaicvi.data._state.MosaicState`).

    Parameters
    ----------
    request
        What the setup asks for; None for a field that only transfers a saved registration.
    """

    def __init__(self, request: Request | None) -> None:
        self._request = request

    @property
    def registry_key(self) -> str:
        """Key of the field in the registry."""
        return _keys.REGISTRY

    @property
    def attr_name(self) -> str:
        """Attribute of the MuData that holds the data."""
        return "mod"

    @property
    def attr_key(self) -> None:
        """No key below the attribute: the field reads all registered modalities."""

    @property
    def is_empty(self) -> bool:
        """Never empty."""
        return False

    def validate_field(self, mdata: MuData) -> None:
        """Validate a MuData; see :func:`mosaicvi.data._register.register`."""
        self.register_field(mdata)

    def register_field(self, mdata: MuData) -> dict[str, Any]:
        """Validate a MuData and return the state, plain JSON."""
        if self._request is None:
            raise RequestError(
                "nothing was asked for", remedy="call setup_mudata with modalities=..."
            )
        return register(mdata, self._request).to_dict()

    def transfer_field(
        self, state_registry: dict[str, Any], mdata: MuData, *, extend_batches: bool = False
    ) -> dict[str, Any]:
        """Validate a new MuData against an earlier state and return its own state."""
        state = MosaicState.from_dict(state_registry)
        return transfer(mdata, state, extend_batches=extend_batches).to_dict()

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Numbers that scvi-tools shows for a setup."""
        state = MosaicState.from_dict(state_registry)
        parts = state.modalities.values()
        batches = {batch for part in parts for batch in part.batch_categories}
        return {
            "n_cells": state.n_cells,
            "n_modalities": len(state.modalities),
            "n_vars": sum(part.n_features for part in parts),
            "n_batch": len(batches),
            "n_extra_categorical_covs": len(state.categorical),
            "n_extra_continuous_covs": len(state.continuous),
        }

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table:
        """Table of the registered modalities."""
        state = MosaicState.from_dict(state_registry)
        table = rich.table.Table(title="mosaicvi modalities")
        for column in ("modality", "likelihood", "layer", "features", "batches"):
            table.add_column(column)
        for name, part in state.modalities.items():
            table.add_row(
                name,
                part.spec.likelihood,
                "X" if part.spec.layer is None else part.spec.layer,
                str(part.n_features),
                f"{len(part.batch_categories)} ({part.batch_key or 'no key'})",
            )
        return table
