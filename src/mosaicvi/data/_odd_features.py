"""Features that do not belong into their modality, told by their names and kinds."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import pandas as pd

from mosaicvi._errors import MosaicviWarning
from mosaicvi.data._schema import has_background
from mosaicvi.data._structure import shown

if TYPE_CHECKING:
    from anndata import AnnData

    from mosaicvi.likelihoods._base import Likelihood

FEATURE_TYPES = "feature_types"
"""Column of ``var`` in which 10x Genomics' files say what a feature is."""

_HASHTAG = re.compile(r"(?:^|[^a-z])(?:hash[ ._-]?tags?|hto)(?![a-z])|^cmo\d{3}$", re.I)


def is_hashtag(name: str) -> bool:
    """Whether an antibody is a hashtag of samples by name, such as ``Hashtag1_TotalSeqC``."""
    return bool(_HASHTAG.search(name))


def warn_odd_features(adata: AnnData, name: str, likelihood: Likelihood) -> None:
    """Tell of features of several kinds in one modality, and of hashtags among antibodies.

    Parameters
    ----------
    adata
        The modality.
    name
        Its name.
    likelihood
        Its likelihood.
    """
    if FEATURE_TYPES in adata.var:
        kinds = pd.Series(adata.var[FEATURE_TYPES]).astype(str).value_counts()
        if len(kinds) > 1:
            counts = ", ".join(f"{number} {kind!r}" for kind, number in kinds.items())
            warnings.warn(
                f"modality {name!r} holds features of several kinds ({counts}), which one "
                "likelihood and one library size hardly suit. Make a modality of each: "
                'mudata.MuData({"rna": adata[:, adata.var["feature_types"] == "Gene Expression"]'
                ".copy(), ...}), or read the file with muon.read_10x_h5.",
                MosaicviWarning,
                stacklevel=2,
            )
    hashtags = [str(each) for each in adata.var_names if is_hashtag(str(each))]
    if hashtags and has_background(likelihood):
        warnings.warn(
            f"modality {name!r}: {shown(hashtags)} look like hashtags, which tell samples apart "
            "and nothing of a cell's state. Leave them out: mdata.mod"
            f'["{name}"] = mdata["{name}"][:, keep].copy(), then mdata.update().',
            MosaicviWarning,
            stacklevel=2,
        )
