"""Likelihoods: how the values of a modality arise from what the decoder says.

=============  ==========================================  ===============================
name           values                                      mean
=============  ==========================================  ===============================
nb             counts, negative binomial                   composition x library size
zinb           counts, negative binomial with dropout      composition x library size
nb_mixture     counts with background (antibodies)         background and foreground
poisson        counts, Poisson                             composition x library size
bernoulli      zeros and ones (accessibility)              1 - exp(-composition x library)
normal         continuous values, may be missing           identity
student        the same, with outliers                     identity
lognormal      positive values (intensities), may miss     exp, and half the variance
beta_binomial  counts out of counts (methylation)          a rate from 0 to 1
=============  ==========================================  ===============================

A new likelihood is one file in this folder and one line in :data:`TABLE`.
"""

from __future__ import annotations

from mosaicvi._errors import RequestError
from mosaicvi.likelihoods._base import FeatureStart, Head, Likelihood, Parameters
from mosaicvi.likelihoods._bernoulli import Bernoulli
from mosaicvi.likelihoods._beta_binomial import BetaBinomial
from mosaicvi.likelihoods._lognormal import LogNormal
from mosaicvi.likelihoods._nb import NegativeBinomial
from mosaicvi.likelihoods._nb_mixture import NegativeBinomialMixture
from mosaicvi.likelihoods._normal import Normal
from mosaicvi.likelihoods._poisson import Poisson
from mosaicvi.likelihoods._student import Student
from mosaicvi.likelihoods._zinb import ZeroInflatedNegativeBinomial

TABLE: dict[str, Likelihood] = {
    likelihood.name: likelihood
    for likelihood in (
        NegativeBinomial(),
        ZeroInflatedNegativeBinomial(),
        NegativeBinomialMixture(),
        Poisson(),
        Bernoulli(),
        Normal(),
        Student(),
        LogNormal(),
        BetaBinomial(),
    )
}
"""Every likelihood by name; they hold no state."""


def get(name: str) -> Likelihood:
    """Return the likelihood of a name.

    Parameters
    ----------
    name
        A key of :data:`TABLE`.

    Raises
    ------
    RequestError
        The name is unknown.
    """
    try:
        return TABLE[name]
    except KeyError:
        raise RequestError(
            f"unknown likelihood {name!r}",
            key="likelihood",
            expected="one of " + ", ".join(repr(known) for known in TABLE),
            remedy="choose one of the known likelihoods for this modality",
        ) from None


__all__ = [
    "TABLE",
    "Bernoulli",
    "BetaBinomial",
    "FeatureStart",
    "Head",
    "Likelihood",
    "LogNormal",
    "NegativeBinomial",
    "NegativeBinomialMixture",
    "Normal",
    "Parameters",
    "Poisson",
    "Student",
    "ZeroInflatedNegativeBinomial",
    "get",
]
