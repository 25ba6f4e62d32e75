"""What registration remembers, as plain JSON: enough to read another MuData the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi._errors import FileError
from mosaicvi.data._schema import ModalitySpec

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
"""Format of the state; a file of a later one is refused."""

NO_BATCH = "0"
"""The one batch of a modality for which no batch key is given."""


@dataclass(frozen=True)
class RegisteredModality:
    """What is remembered of one modality.

    Attributes
    ----------
    spec
        The specification.
    var_names
        Registered features, in order.
    batch_key
        Column of batches, or None.
    batch_categories
        Batch names; a batch code is a place in this tuple.
    unmeasured
        Batch name to the places of the features its panel lacks; None where no panel was given.
        Cells that are asked about may bring batches that are no categories.
    log_background
        Known log background level of each feature, NaN where unknown; None where nothing is known.
    n_representation
        Width of the representation, or None.
    species
        ``"human"`` or ``"mouse"`` by the case of gene names, None where they do not say.
    """

    spec: ModalitySpec
    var_names: tuple[str, ...]
    batch_key: str | None
    batch_categories: tuple[str, ...]
    unmeasured: Mapping[str, tuple[int, ...]] | None = None
    log_background: tuple[float, ...] | None = None
    n_representation: int | None = None
    species: str | None = None

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.var_names)

    def panel(self) -> np.ndarray | None:
        """Measured features of each batch, bool ``(n_batches, n_features)``; None where all are."""
        if self.unmeasured is None:
            return None
        table = np.ones((len(self.batch_categories), self.n_features), dtype=bool)
        for row, batch in enumerate(self.batch_categories):
            table[row, list(self.unmeasured.get(batch, ()))] = False
        return table

    def new_panels(self) -> dict[str, np.ndarray]:
        """Measured features of batches that are no categories, each bool ``(n_features,)``."""
        found = {}
        for batch, places in (self.unmeasured or {}).items():
            if batch not in self.batch_categories:
                found[batch] = np.ones(self.n_features, dtype=bool)
                found[batch][list(places)] = False
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        levels = self.log_background
        return {
            "spec": self.spec.to_dict(),
            "var_names": list(self.var_names),
            "batch_key": self.batch_key,
            "batch_categories": list(self.batch_categories),
            "unmeasured": None
            if self.unmeasured is None
            else [[batch, [int(i) for i in places]] for batch, places in self.unmeasured.items()],
            "log_background": None
            if levels is None
            else [None if np.isnan(level) else float(level) for level in levels],
            "n_representation": self.n_representation,
            "species": self.species,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RegisteredModality:
        """Build from :meth:`to_dict`'s values."""
        unmeasured, levels = values["unmeasured"], values["log_background"]
        return cls(
            spec=ModalitySpec.from_dict(values["spec"]),
            var_names=tuple(values["var_names"]),
            batch_key=values["batch_key"],
            batch_categories=tuple(values["batch_categories"]),
            unmeasured=None
            if unmeasured is None
            else {batch: tuple(places) for batch, places in unmeasured},
            log_background=None
            if levels is None
            else tuple(np.nan if level is None else float(level) for level in levels),
            n_representation=values["n_representation"],
            species=values["species"],
        )


@dataclass(frozen=True)
class MosaicState:
    """What is remembered of a whole MuData.

    Attributes
    ----------
    modalities
        Modality name to what is remembered of it, in the user's order.
    n_cells
        Number of cells of the MuData that was read.
    shared_batch_key
        The one batch column of all modalities; None when there is none, or one a modality.
    categorical
        Covariate column to its categories.
    continuous
        Covariate column to the mean and standard deviation that standardise it.
    """

    modalities: Mapping[str, RegisteredModality]
    n_cells: int
    shared_batch_key: str | None
    categorical: Mapping[str, tuple[str, ...]]
    continuous: Mapping[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": FORMAT,
            # The order stands apart: JSON writers, and scvi-tools' views, may sort keys.
            "order": list(self.modalities),
            "modalities": {name: part.to_dict() for name, part in self.modalities.items()},
            "n_cells": int(self.n_cells),
            "shared_batch_key": self.shared_batch_key,
            "categorical": [[key, list(names)] for key, names in self.categorical.items()],
            "continuous": [[key, list(moments)] for key, moments in self.continuous.items()],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MosaicState:
        """Build from :meth:`to_dict`'s values.

        Raises
        ------
        FileError
            If the state was written by a newer version, or is not such a state.
        """
        found = values.get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise FileError(
                f"found a data registry of format {found!r}",
                expected=f"a format up to {FORMAT}",
                remedy="update mosaicvi" if isinstance(found, int) else "save the model again",
            )
        try:
            return cls(
                modalities={
                    name: RegisteredModality.from_dict(values["modalities"][name])
                    for name in values["order"]
                },
                n_cells=int(values["n_cells"]),
                shared_batch_key=values["shared_batch_key"],
                categorical={key: tuple(names) for key, names in values["categorical"]},
                continuous={
                    key: (float(moments[0]), float(moments[1]))
                    for key, moments in values["continuous"]
                },
            )
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise FileError(
                f"the data registry is damaged ({error!r})", remedy="save the model again"
            ) from error
