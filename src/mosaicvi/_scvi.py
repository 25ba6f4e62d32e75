"""The one file that knows scvi-tools' private names, or that its and mudata's versions differ.

Everything else imports these names from here, so a new version of scvi-tools, mudata or anndata is
met in one place. Tested with scvi-tools 1.4.2 (mudata 0.3, anndata 0.12) and 1.5 (mudata 0.4,
anndata 0.13).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import rich.pretty  # noqa: F401  (scvi-tools 1.4's view_registry uses it without importing it)
import scvi
from scvi.data import AnnDataManager
from scvi.data import _constants as _scvi_constants
from scvi.data._manager import AnnDataManagerValidationCheck
from scvi.data._utils import _assign_adata_uuid
from scvi.data.fields import BaseAnnDataField
from scvi.model._utils import parse_device_args
from scvi.model.base import BaseModelClass
from scvi.train import Trainer, TrainRunner
from scvi.utils import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

UUID_KEY: str = _scvi_constants._SCVI_UUID_KEY
MANAGER_UUID_KEY: str = _scvi_constants._MANAGER_UUID_KEY
UNS_KEYS: tuple[str, ...] = (UUID_KEY, MANAGER_UUID_KEY)
"""The only slots of the user's object that registration writes."""

MINIFY_TYPE_KEY: str = _scvi_constants._ADATA_MINIFY_TYPE_UNS_KEY
VERSION_KEY: str = _scvi_constants._SCVI_VERSION_KEY
MODEL_NAME_KEY: str = _scvi_constants._MODEL_NAME_KEY
SETUP_ARGS_KEY: str = _scvi_constants._SETUP_ARGS_KEY
SETUP_METHOD_KEY: str = _scvi_constants._SETUP_METHOD_NAME
FIELD_REGISTRIES_KEY: str = _scvi_constants._FIELD_REGISTRIES_KEY
STATE_REGISTRY_KEY: str = _scvi_constants._STATE_REGISTRY_KEY


def validation_checks() -> AnnDataManagerValidationCheck:
    """scvi-tools' own checks, all off: ours name the modality and the remedy.

    The check that a MuData is fully paired has to go, for a mosaic never is; views are refused by
    our own check.
    """
    return AnnDataManagerValidationCheck(check_if_view=False, check_fully_paired_mudata=False)


def state_registry(registry: Mapping[str, Any], field_key: str) -> dict[str, Any] | None:
    """State of one field in a registry, or None where the registry has no such field."""
    fields = registry.get(FIELD_REGISTRIES_KEY) or {}
    if field_key not in fields:
        return None
    state: dict[str, Any] = fields[field_key].get(STATE_REGISTRY_KEY) or {}
    return state or None


def assign_new_uuid(mdata: MuData) -> None:
    """Give a MuData a scvi-tools identity of its own, as a copy of a registered one needs."""
    _assign_adata_uuid(mdata, overwrite=True)


def progress(steps: Sequence[int], *, disable: bool) -> Iterable[int]:
    """Steps with scvi-tools' progress bar, unless its verbosity is above ``INFO``."""
    quiet = disable or scvi.settings.verbosity > logging.INFO
    found: Iterable[int] = track(steps, description="mosaicvi: chunks of cells", disable=quiet)
    return found


def layer_names(adata: AnnData) -> tuple[str, ...]:
    """Names of the layers; anndata 0.13 also lists ``X`` there, under the key None."""
    return tuple(str(name) for name in adata.layers if name is not None)


def pulled_column(mdata: MuData, modality: str, key: str) -> pd.Series | None:
    """Column that mudata up to 0.3 pulled from a modality as ``modality:key``; None where absent.

    mudata 0.4 pulls nothing on its own.
    """
    name = f"{modality}:{key}"
    return mdata.obs[name] if name in mdata.obs.columns else None


__all__ = [
    "FIELD_REGISTRIES_KEY",
    "MANAGER_UUID_KEY",
    "MINIFY_TYPE_KEY",
    "MODEL_NAME_KEY",
    "SETUP_ARGS_KEY",
    "SETUP_METHOD_KEY",
    "STATE_REGISTRY_KEY",
    "UNS_KEYS",
    "UUID_KEY",
    "VERSION_KEY",
    "AnnDataManager",
    "AnnDataManagerValidationCheck",
    "BaseAnnDataField",
    "BaseModelClass",
    "TrainRunner",
    "Trainer",
    "assign_new_uuid",
    "layer_names",
    "parse_device_args",
    "progress",
    "pulled_column",
    "state_registry",
    "validation_checks",
]
