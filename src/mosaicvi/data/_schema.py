"""What the user asks for: one specification a modality, and the keys they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from mosaicvi import likelihoods
from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from mosaicvi.likelihoods._base import Likelihood

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class ModalitySpec:
    """How one modality is read and modelled.

    Parameters
    ----------
    likelihood
        Name of a likelihood: ``nb``, ``zinb``, ``nb_mixture``, ``poisson``, ``bernoulli``,
        ``normal``, ``student``, ``lognormal`` or ``beta_binomial``.
    layer
        Where the values are. ``"auto"`` (default): ``X`` if it holds counts, else
        ``layers["counts"]``, else an error that lists what could be meant; ``X`` for a likelihood
        of continuous values; ``layers["methylated"]`` for ``beta_binomial``. None: ``X`` as it is.
        Otherwise the name of a layer.
    coverage_layer
        For ``beta_binomial``: layer of the reads that ``layer`` holds a part of; None:
        ``layers["coverage"]``. Where it is zero, the value is missing.
    representation
        Key of ``mdata.mod[modality].obsm`` that the encoder reads instead of the values, such as a
        pretrained embedding, shape ``(n_modality_cells, n_inputs)``.
    size_factor_key
        Column of the modality's ``obs``, else of ``mdata.obs``, that replaces counts a cell as
        library size: on the scale of counts, above zero. Factors with a mean of one, as scran and
        scanpy give, are to be multiplied by the mean of counts a cell.
    panel_key
        Key of ``mdata.mod[modality].varm`` that says which features each batch measured:
        features x batches, True where measured; a DataFrame with batch names as columns, or an
        array whose columns are the batches in sorted order.
    isotypes
        For a likelihood with a background component: names of isotype-control features (a string is
        one name), ``"auto"`` (default) to find them by name, or None for none.
    background
        Known log background level (log counts a cell) of each feature, NaN or None where unknown;
        ``setup_mudata(empty_droplets=...)`` computes it.

    Raises
    ------
    RequestError
        If ``isotypes`` are no names, or ``background`` no numbers.
    """

    likelihood: str
    layer: str | None = AUTO
    coverage_layer: str | None = None
    representation: str | None = None
    size_factor_key: str | None = None
    panel_key: str | None = None
    isotypes: tuple[str, ...] | Literal["auto"] | None = AUTO
    background: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Take sequences of any kind as tuples, and one name as such."""
        object.__setattr__(self, "isotypes", _names(self.isotypes))
        object.__setattr__(self, "background", _levels(self.background))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; an unknown background level becomes None."""
        values = asdict(self)
        if isinstance(self.isotypes, tuple):
            values["isotypes"] = list(self.isotypes)
        if self.background is not None:
            values["background"] = [
                None if math.isnan(level) else level for level in self.background
            ]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModalitySpec:
        """Build from :meth:`to_dict`'s values, or from the user's dict.

        Raises
        ------
        RequestError
            If a key is unknown, or ``likelihood`` is missing.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown or "likelihood" not in values:
            raise RequestError(
                f"unknown keys {unknown}" if unknown else "no likelihood given",
                key="modalities",
                expected=f"some of {known}, 'likelihood' among them",
            )
        return cls(**values)


def _names(given: object) -> tuple[str, ...] | Literal["auto"] | None:
    """Names of isotype controls as a tuple, as they are ``"auto"`` and None."""
    if given is None or isinstance(given, tuple):
        return given
    if isinstance(given, str):
        return AUTO if given == AUTO else (given,)
    if not isinstance(given, Iterable):
        raise RequestError(
            f"found {given!r}", key="isotypes", expected="names of features, 'auto' or None"
        )
    return tuple(str(name) for name in given)


def _levels(given: object) -> tuple[float, ...] | None:
    """Levels of background as a tuple, NaN where unknown."""
    if given is None:
        return None
    try:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError("no sequence")
        return tuple(math.nan if level is None else float(level) for level in given)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"found {given!r}",
            key="background",
            expected="a log level for each feature, NaN or None where unknown",
            remedy="setup_mudata(empty_droplets=...) computes it",
        ) from error


@dataclass(frozen=True)
class Request:
    """A whole setup, normalised: what ``setup_mudata`` was asked for.

    Attributes
    ----------
    specs
        Specification of each modality, in the user's order.
    batch_key
        One column for all modalities, one a modality, or None.
    categorical_keys, continuous_keys
        Covariate columns.
    """

    specs: Mapping[str, ModalitySpec]
    batch_key: str | dict[str, str] | None = None
    categorical_keys: tuple[str, ...] = ()
    continuous_keys: tuple[str, ...] = ()


def likelihood_of(spec: ModalitySpec) -> Likelihood:
    """Likelihood that a specification names."""
    return likelihoods.get(spec.likelihood)


def has_background(likelihood: Likelihood) -> bool:
    """Whether the likelihood has a background component, whose level may be known beforehand."""
    return any(head.name == "background" for head in likelihood.heads)


def make_specs(
    modalities: Mapping[str, str | ModalitySpec | Mapping[str, Any]],
    *,
    layer: str | Mapping[str, str | None] | None = AUTO,
    size_factor_key: str | Mapping[str, str] | None = None,
    panel_key: str | Mapping[str, str] | None = None,
) -> dict[str, ModalitySpec]:
    """Normalise ``modalities`` and fill in what is given for all of them.

    Raises
    ------
    RequestError
        If nothing is asked for, a likelihood is unknown, or a key does not fit its likelihood.
    """
    if not isinstance(modalities, Mapping) or not modalities:
        raise RequestError(
            f"found {modalities!r}",
            key="modalities",
            expected="a dict from modality to likelihood or ModalitySpec",
            remedy='for example modalities={"rna": "zinb", "protein": "nb_mixture"}',
        )
    specs = {str(name): _one_spec(name, asked) for name, asked in modalities.items()}
    for name, spec in specs.items():
        if spec.likelihood not in likelihoods.TABLE:
            raise RequestError(
                f"unknown likelihood {spec.likelihood!r}",
                modality=name,
                key="modalities",
                expected="one of " + ", ".join(map(repr, likelihoods.TABLE)),
                remedy='name one for each modality: {"rna": "zinb", "protein": "nb_mixture"}',
            )
        _check_fits(name, spec)
    specs = _spread(specs, "layer", layer, unset=AUTO)
    specs = _spread(specs, "size_factor_key", size_factor_key, unset=None)
    return _spread(specs, "panel_key", panel_key, unset=None)


def _one_spec(name: str, asked: str | ModalitySpec | Mapping[str, Any]) -> ModalitySpec:
    if isinstance(asked, ModalitySpec):
        return asked
    if isinstance(asked, str):
        return ModalitySpec(likelihood=asked)
    if isinstance(asked, Mapping):
        return ModalitySpec.from_dict(asked)
    raise RequestError(
        f"found {type(asked).__name__}",
        modality=str(name),
        key="modalities",
        expected="the name of a likelihood, a ModalitySpec, or its dict",
    )


def _check_fits(name: str, spec: ModalitySpec) -> None:
    """Refuse options that the likelihood cannot use."""
    likelihood = likelihood_of(spec)
    if spec.size_factor_key is not None and not likelihood.uses_library_size:
        raise RequestError(
            f"the likelihood {spec.likelihood!r} has no library size",
            modality=name,
            key="size_factor_key",
            remedy="leave size_factor_key out for this modality",
        )
    if spec.coverage_layer is not None and not likelihood.reads_coverage:
        raise RequestError(
            f"the likelihood {spec.likelihood!r} reads no coverage",
            modality=name,
            key="coverage_layer",
            remedy="leave coverage_layer out, or use the likelihood 'beta_binomial'",
        )
    if not has_background(likelihood) and (
        isinstance(spec.isotypes, tuple) or spec.background is not None
    ):
        option = "isotypes" if isinstance(spec.isotypes, tuple) else "background"
        raise RequestError(
            f"the likelihood {spec.likelihood!r} has no background component",
            modality=name,
            key=option,
            remedy=f"leave {option} out, or use the likelihood 'nb_mixture'",
        )


def _spread(
    specs: dict[str, ModalitySpec],
    option: str,
    given: str | Mapping[str, str | None] | None,
    *,
    unset: str | None,
) -> dict[str, ModalitySpec]:
    """Set an option that was given for all modalities at once, where a spec leaves it unset.

    A size factor given for all reaches only the modalities that have a library size.
    """
    if given == unset:
        return specs
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(specs))
        if unknown:
            raise RequestError(
                f"names modalities {unknown}", key=option, expected=f"some of {list(specs)}"
            )
    chosen = {}
    for name, spec in specs.items():
        value = given.get(name, unset) if isinstance(given, Mapping) else given
        takes = getattr(spec, option) == unset
        if option == "size_factor_key" and not isinstance(given, Mapping):
            takes = takes and likelihood_of(spec).uses_library_size
        chosen[name] = replace(spec, **cast("Any", {option: value})) if takes else spec
        _check_fits(name, chosen[name])
    if option == "size_factor_key" and all(s.size_factor_key is None for s in chosen.values()):
        raise RequestError(
            f"none of the likelihoods {sorted({s.likelihood for s in specs.values()})} has a "
            "library size",
            key=option,
            remedy="leave size_factor_key out",
        )
    return chosen


def make_keys(keys: str | Sequence[str] | None, option: str) -> tuple[str, ...]:
    """Normalise covariate keys.

    Raises
    ------
    RequestError
        If a key is given twice.
    """
    given = () if keys is None else (keys,) if isinstance(keys, str) else keys
    chosen = tuple(str(key) for key in given)
    if len(set(chosen)) != len(chosen):
        raise RequestError(
            f"found a column twice in {list(chosen)}", key=option, expected="each column once"
        )
    return chosen
