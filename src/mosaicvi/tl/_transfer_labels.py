"""Labels of one modality's cells given to another's, with a probability and abstention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi import _keys
from mosaicvi._errors import DataError, RequestError, check_whole
from mosaicvi._settings import logger
from mosaicvi.data._columns import as_label, labels
from mosaicvi.data._structure import rows_of
from mosaicvi.model._counterparts import doubt_between
from mosaicvi.tl._counterparts import alignment_confidence_of
from mosaicvi.tl._latents import Floats, Places, UnimodalCells, two_modalities
from mosaicvi.tl._votes import Voters, alike, at_temperature, averaged, fit_temperature, vote
from mosaicvi.tl._write import mudata_of, spread, write

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import NDArray

    from mosaicvi.model import MosaicVI

N_NEIGHBOURS = 30
MIN_PROBABILITY = 0.5
CONFIDENCE_RANGE = (0.5, 0.9)
"""Between which the least confidence is set: modalities differ in how local their trips are, so
nearly all cells of one may be surer than most of the other's."""
REFUSED = 0.05
"""Share of the labelled source cells whose confidence would be too low for a label."""


@dataclass(frozen=True)
class Transferred:
    """Labels and their probabilities, before anything is written.

    Attributes
    ----------
    code
        Most probable label of each target cell.
    probability
        Its probability.
    confidence
        Alignment confidence of each target cell.
    temperature
        Temperature that the round trip chose.
    least_confidence
        Confidence below which a cell abstains by default.
    """

    code: np.ndarray
    probability: Floats
    confidence: Floats
    temperature: float
    least_confidence: float

    def given(
        self, min_probability: float = MIN_PROBABILITY, min_confidence: float | None = None
    ) -> NDArray[np.bool_]:
        """Whether each target cell gets its label; the others abstain."""
        if min_confidence is None:
            min_confidence = self.least_confidence
        return (self.probability >= min_probability) & (self.confidence >= min_confidence)


def transfer_labels(
    model: MosaicVI,
    label_key: str,
    *,
    source: str,
    target: str,
    adata: MuData | None = None,
    n_neighbours: int = N_NEIGHBOURS,
    min_probability: float = MIN_PROBABILITY,
    min_confidence: float | None = None,
    key_added: str | None = None,
    copy: bool = False,
    seed: int = 0,
) -> MuData | None:
    """Give labels of one modality's cells to the cells of another.

    Each target cell asks its nearest labelled source cells in the latent space, each cell placed
    there by its own modality alone, and its votes are averaged with those of five target cells
    alike. The probability of a label is calibrated by labels that went to the target and back, and
    by source cells as the target would see them (see :doc:`/models/alignment_diagnostics`). It
    holds where the source has the cell's type, in about the target's shares or apart from others,
    and is too low where the source is the sparser one. Whether the source has the type is another
    question, which the alignment confidence answers
    (:func:`alignment_confidence`): a cell abstains, that is, gets no label, if either is too low.
    Where few links tie the modalities, or hundreds, and do not bear each other out
    (:meth:`~mosaicvi.MosaicVI.get_link_agreement`), probabilities are drawn towards the
    source's composition, all the way where they do not agree at all.

    Parameters
    ----------
    model
        Fitted model.
    label_key
        Column with the labels, in ``mdata.obs`` or in the source modality's ``obs``. Source cells
        without a value are left out.
    source, target
        Modality whose labels are known, and modality whose cells ask.
    adata
        MuData to write to; None: the one the model was built on.
    n_neighbours
        Labelled source cells that each target cell asks.
    min_probability
        A label that is less probable is not given.
    min_confidence
        A cell of lower alignment confidence gets no label. None: the confidence that 5 % of the
        labelled source cells stay below, between .5 and .9. 0: every cell that is sure enough.
    key_added
        Column to write; None: ``mosaicvi_<label_key>``.
    copy
        Write to a copy and return it.
    seed
        Seed of what calibrates: a split of the source, and where cells would lie.

    Returns
    -------
    None, or the copy. Written, for target cells (others are missing or NaN):

    - ``obs[key_added]``: label, categorical; missing where the cell abstains.
    - ``obs[key_added + "_probability"]``: probability of the most probable label, from 0 to 1, also
      where it was not given.
    - ``obs[key_added + "_confidence"]``: alignment confidence, from 0 to 1.
    - ``uns["mosaicvi"]["transfer_labels"]``: parameters and the temperature.

    Raises
    ------
    RequestError
        If a modality is unknown, both are the same, or a number is out of range.
    DataError
        If the column is in no ``obs`` or says different things in two, no source cell has a label,
        or the target's own labels in this column share none with the source's.

    Examples
    --------
    >>> mosaicvi.tl.transfer_labels(model, "cell_type", source="rna", target="protein")
    >>> mdata.obs["mosaicvi_cell_type"]
    """
    _check(n_neighbours, min_probability, min_confidence)
    mdata = mudata_of(model, adata)
    known, asked = two_modalities(model, source, target, adata)
    names, codes = _source_labels(mdata, label_key, known, target)
    doubt = doubt_between(model.counterparts, source, target)
    done = transfer(known.places, codes, asked.places, len(names), n_neighbours, seed, doubt)
    given = done.given(min_probability, min_confidence)
    logger.info(
        "labels for %d of %d cells of %r; %d abstain", given.sum(), len(asked), target, sum(~given)
    )
    answer = np.full(mdata.n_obs, -1)
    answer[asked.rows[given]] = done.code[given]
    key = f"{_keys.OBS_LABEL_PREFIX}{label_key}" if key_added is None else key_added
    return write(
        mdata,
        {
            key: pd.Categorical.from_codes(answer, categories=pd.Index(names)),
            key + _keys.OBS_PROBABILITY_SUFFIX: spread(done.probability, asked.rows, mdata.n_obs),
            key + _keys.OBS_CONFIDENCE_SUFFIX: spread(done.confidence, asked.rows, mdata.n_obs),
        },
        tool="transfer_labels",
        parameters={
            "label_key": label_key,
            "key_added": key,
            "source": source,
            "target": target,
            "n_neighbours": n_neighbours,
            "min_probability": min_probability,
            "min_confidence": done.least_confidence if min_confidence is None else min_confidence,
            "temperature": done.temperature,
            "seed": seed,
        },
        copy=copy,
    )


def transfer(
    source: Places,
    codes: np.ndarray,
    target: Places,
    n_labels: int,
    k: int,
    seed: int,
    doubt: float = 0.0,
) -> Transferred:
    """Transfer labels between two modalities.

    Parameters
    ----------
    source, target
        Where their cells lie.
    codes
        Label of each source cell, -1 where it has none.
    n_labels
        Number of labels.
    k
        Neighbours asked.
    seed
        Seed of the split.
    doubt
        How far anchors between the two are in doubt, from 0 to 1.
    """
    labelled = codes >= 0
    # Unlabelled source cells are no evidence for a type: the target is held against the labelled.
    known = source.part(labelled)
    voters = Voters(known.latent, codes[labelled], n_labels)
    back = alignment_confidence_of(known, target, seed=seed)
    temperature = fit_temperature(known, voters.codes, n_labels, back, target, k, seed=seed)
    votes = averaged(vote(voters, target.latent, k), alike(target))
    probability = at_temperature(votes, temperature)
    probability = (1.0 - doubt) * probability + doubt * voters.composition
    return Transferred(
        probability.argmax(axis=1),
        probability.max(axis=1),
        alignment_confidence_of(target, known, seed=seed),
        temperature,
        float(np.clip(np.quantile(back, REFUSED), *CONFIDENCE_RANGE)),
    )


def _check(n_neighbours: int, min_probability: float, min_confidence: float | None) -> None:
    check_whole(n_neighbours, "n_neighbours")
    for key, value in (("min_probability", min_probability), ("min_confidence", min_confidence)):
        if value is not None and not 0.0 <= value <= 1.0:
            raise RequestError(f"{value}", key=key, expected="between 0 and 1")


def _source_labels(
    mdata: MuData, key: str, known: UnimodalCells, target: str
) -> tuple[list[str], np.ndarray]:
    """Names of the labels, and the code of each source cell (-1: none)."""
    rows = {known.modality: rows_of(mdata, known.modality)}
    column = labels(mdata, key, rows, option="label_key", complete=False)
    values = column[known.rows]
    has = ~pd.isna(values)
    if not has.any():
        raise DataError(
            "no cell has a label",
            modality=known.modality,
            key=key,
            remedy="choose the modality that has labels as source, or another column",
        )
    names = sorted(set(values[has]))
    if len(names) < 2:
        raise DataError(
            f"all labels are {names[0]!r}", modality=known.modality, key=key, expected="two or more"
        )
    _check_shared(mdata, key, names, target)
    return names, pd.Categorical(values, categories=names).codes.astype(np.int64)


def _check_shared(mdata: MuData, key: str, names: list[str], target: str) -> None:
    """Refuse two modalities whose own columns of one name share no category."""
    own = mdata.mod[target].obs
    if key not in own.columns:
        return
    others = {as_label(value) for value in own[key].dropna().unique()}
    if others and not others & set(names):
        raise DataError(
            f"the source's labels ({_some(names)}) and the target's ({_some(sorted(others))}) "
            "share none",
            modality=target,
            key=key,
            expected="one vocabulary in both",
            remedy="rename the labels of one modality, or drop the column there",
        )


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
