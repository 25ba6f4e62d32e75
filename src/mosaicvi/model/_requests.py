"""What models are asked for: numbers, batches and options that make sense, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mosaicvi._errors import RequestError, check_whole
from mosaicvi.data._columns import as_label
from mosaicvi.data._stream import BlockShuffle

if TYPE_CHECKING:
    from collections.abc import Sequence


SPLITTER = ("blocks", "drop_last", "loader_kwargs", "resident", "shuffle", "visits")
"""What ``datasplitter_kwargs`` may name."""

SAMPLER = {"batch_sampler", "batch_size", "drop_last", "sampler", "shuffle"}
"""Arguments of torch's loaders that are our samplers' matter."""


def check_seed(seed: object, *, other: str = "") -> None:
    """Refuse what is no seed of all that draws random numbers; scikit-learn's are the smallest.

    Raises
    ------
    RequestError
        If it is no whole number, or none of 32 bits.
    """
    check_whole(seed, "seed", 0, other=other)
    if seed >= 2**32:  # type: ignore[operator]  # a whole number by now
        raise RequestError(
            f"found {seed}", key="seed", expected=f"a whole number below {2**32}{other}"
        )


def check_torch() -> None:
    """Refuse defaults of torch, which another package may have set, that networks cannot work with.

    Raises
    ------
    RequestError
        If new tensors are not of single precision, or not on the processor.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    if dtype != torch.float32:
        raise RequestError(
            f"torch's default is {dtype}",
            key="torch.set_default_dtype",
            expected="torch.float32, in which models compute",
            remedy="torch.set_default_dtype(torch.float32)",
        )
    if device.type != "cpu":
        raise RequestError(
            f"torch's default is {device}",
            key="torch.set_default_device",
            expected="cpu, from where fits take data to the GPU as they need them",
            remedy="torch.set_default_device(None)",
        )


def check_named(key: str, given: object, known: Sequence[str]) -> None:
    """Refuse an argument that may name modalities if it names one that the model does not have.

    Parameters
    ----------
    key
        Name of the argument.
    given
        What was given; what is no mapping names none.
    known
        Modalities of the model.

    Raises
    ------
    RequestError
        If a modality is unknown.
    """
    unknown = sorted(set(given) - set(known)) if isinstance(given, Mapping) else []
    if unknown:
        raise RequestError(
            f"unknown modalities {unknown}",
            key=key,
            expected="some of " + ", ".join(map(repr, known)),
        )


def batch_codes(
    modality: str, given: object, categories: Sequence[str], usable: Sequence[str]
) -> tuple[int, ...]:
    """Codes of the batches that an answer is asked for.

    Parameters
    ----------
    modality
        Whose batches they are.
    given
        One batch or several, by name or by the value that the column holds.
    categories
        Names of the modality's batches, in the order of their codes.
    usable
        Those in which it was measured.

    Raises
    ------
    RequestError
        If one did not measure the modality, or none is given.
    """
    asked = list(given) if np.iterable(given) and not isinstance(given, str) else [given]
    expected = "one of " + ", ".join(map(repr, usable))
    if not asked:
        raise RequestError(
            "no batch given",
            modality=modality,
            key="transform_batch",
            expected=f"{expected}, or several; None answers for each cell as it was measured",
        )
    codes = []
    for each in asked:
        label = as_label(each)
        if label not in usable:
            raise RequestError(
                f"batch {each!r} did not measure it",
                modality=modality,
                key="transform_batch",
                expected=expected,
            )
        codes.append(list(categories).index(label))
    return tuple(codes)


def splitter_arguments(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the user asks of the data module.

    Raises
    ------
    RequestError
        If an argument is unknown, is one of ``train()``, or not what the data module takes.
    """
    found = dict(given or {})
    unknown = sorted(set(found) - set(SPLITTER))
    if unknown:
        raise RequestError(
            f"unknown arguments {unknown}",
            key="datasplitter_kwargs",
            expected="some of " + ", ".join(SPLITTER),
            remedy="batch_size, train_size, validation_size and indices are arguments of train(), "
            "seed is one of the model; those of torch's loaders go into loader_kwargs, as in "
            "{'loader_kwargs': {'num_workers': 2}}",
        )
    taken = sorted(SAMPLER & set(found.get("loader_kwargs") or {}))
    if taken:
        raise RequestError(
            f"found {taken}",
            key="loader_kwargs",
            expected="arguments that do not choose cells, such as num_workers",
            remedy="batch_size is an argument of train(); shuffle and drop_last are named beside "
            "loader_kwargs",
        )
    for key, kind in {"blocks": BlockShuffle, "visits": Mapping}.items():
        if not isinstance(found.get(key), kind | None):
            raise RequestError(
                f"found {found[key]!r}",
                key=key,
                expected="None, or "
                + (
                    "a mosaicvi.BlockShuffle"
                    if key == "blocks"
                    else "how often cells of each presence pattern are seen, by its number"
                ),
            )
    return found
