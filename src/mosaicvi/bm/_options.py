"""Options of the command line, read, and held against the calls that they go to."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from mosaicvi import _scvi, likelihoods
from mosaicvi._errors import RequestError
from mosaicvi.bm.methods._mosaicvi import sort_options
from mosaicvi.factor import FactorVI
from mosaicvi.model import MosaicVI

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MODELS: dict[str, type[MosaicVI | FactorVI]] = {
    "mosaicvi": MosaicVI,
    "mosaicvi_paired": MosaicVI,
    "factorvi": FactorVI,
}
DATA = {"self", "adata", "mdata", "registry", "source_registry", "modality", "indices"}
"""What the comparison alone can give."""


def read_pairs(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts; values are JSON where they parse as such, else text."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise RequestError(f"{text!r}", key="option", expected="key=value")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = {"True": True, "False": False, "None": None}.get(value, value)
    return found


def read_likelihoods(texts: Sequence[str]) -> dict[str, str]:
    """Likelihoods by modality, which a worker would find unknown after all had been prepared."""
    found = {modality: str(name) for modality, name in read_pairs(texts).items()}
    for name in found.values():
        likelihoods.get(name)
    return found


def check_options(method: str, options: Mapping[str, Any], comparison: str) -> None:
    """Refuse options that no call takes, which a worker would only find once it runs.

    Parameters
    ----------
    method
        Name of the method; those of other packages check their own.
    options
        Its options, without its name.
    comparison
        Name of the comparison: predictions are made in the imputation alone.

    Raises
    ------
    RequestError
        Lists what the call takes.
    """
    model = MODELS.get(method)
    if model is None:
        return
    calls: dict[str, Callable[..., Any]] = {"model": model.__init__, "train": model.train}
    further = {"train": _names(Trainer.__init__) | _names(_scvi.Trainer.__init__)}
    if model is MosaicVI:
        calls["setup"] = model.setup_mudata
    if comparison == "imputation":
        calls["predict"] = model.posterior_predictive_sample
        further["model"] = {"query_cells"}
    for place, given in sort_options(dict(options)).items():
        known = _names(calls[place]) if place in calls else set()
        unknown = sorted(set(given) - known - further.get(place, set()))
        if unknown:
            prefix = "" if place == "model" else f"{place}."
            raise RequestError(
                f"{method} has no such option: {prefix}{unknown[0]}",
                key="option",
                expected=", ".join(prefix + name for name in sorted(known)) or None,
            )


def _names(call: Callable[..., Any]) -> set[str]:
    """Arguments of a call, by name."""
    parameters = inspect.signature(call).parameters.values()
    named = {p.name for p in parameters if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}}
    return named - DATA
