"""The known truth behind a simulated modality: drawn, stored in a MuData, read back."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mosaicvi._errors import DataError
from mosaicvi.datasets._generative import RULES, Array, Mask, Predictor

if TYPE_CHECKING:
    import anndata as ad
    import mudata

    from mosaicvi.datasets._simulated_modality import SimulatedModality

Codes = npt.NDArray[np.int64]

PREFIX = "truth_"
PANEL = "panel"

_CELLS_AT_ONCE = 2048
_HIDDEN_UNITS = 16


def generator(seed: int, *purpose: str) -> np.random.Generator:
    """Start an independent stream a purpose, so that one modality more changes no other draw."""
    return np.random.default_rng([seed, *(zlib.crc32(word.encode()) for word in purpose)])


@dataclass(frozen=True)
class Truth:
    """Parameters of one modality's generative story.

    Attributes
    ----------
    likelihood
        Name of the rule.
    signal_sd
        Standard deviation of ``r(z) . v`` over cells for the features that carry signal.
    embedding
        ``v``, shape ``(n_features, n_latent)``.
    bias, scale
        Shape ``(n_features, n_batches)``.
    panel
        Measured features, shape ``(n_features, n_batches)``.
    parameters
        The rule's own, each ``(n_features,)`` or ``(n_features, n_batches)``.
    network
        Input and output weights of the residual of ``r``, shapes ``(n_latent, n_hidden)`` and
        ``(n_hidden, n_latent)``; zero output weights make ``r`` the identity.
    """

    likelihood: str
    signal_sd: float
    embedding: Array
    bias: Array
    scale: Array
    panel: Mask
    parameters: dict[str, Array]
    network: tuple[Array, Array]

    def predict(self, z: Array, batch: Codes, library_size: Array) -> Predictor:
        """Predictor of cells at ``z`` ``(n_cells, n_latent)`` with batch codes ``(n_cells,)``."""
        inward, outward = self.network
        signal = (z + np.tanh(z @ inward) @ outward) @ self.embedding.T
        return Predictor(
            signal=signal / self.signal_sd,
            head=self.scale[:, batch].T * signal + self.bias[:, batch].T,
            library_size=library_size,
            measured=self.panel[:, batch].T,
            parameters={
                name: value[:, batch].T if value.ndim > 1 else value[None, :]
                for name, value in self.parameters.items()
            },
        )

    def mean(self, z: Array, batch: Codes, library_size: Array) -> Array:
        """Mean of the values given z, batch and library size, ``(n_cells, n_features)``."""
        rule = RULES[self.likelihood]
        return np.concatenate(
            [
                rule.mean(self.predict(z[part], batch[part], library_size[part]))
                for part in _parts(len(z))
            ]
        )

    def draw(
        self, rng: np.random.Generator, z: Array, batch: Codes, library_size: Array
    ) -> list[tuple[Array, dict[str, Mask]]]:
        """Values and hidden states, some cells at a time."""
        rule = RULES[self.likelihood]
        return [
            rule.draw(rng, self.predict(z[part], batch[part], library_size[part]))
            for part in _parts(len(z))
        ]


def _parts(n_cells: int) -> list[slice]:
    return [slice(at, at + _CELLS_AT_ONCE) for at in range(0, n_cells, _CELLS_AT_ONCE)]


def draw_truth(
    spec: SimulatedModality,
    rng: np.random.Generator,
    *,
    n_latent: int,
    panel: Mask,
    embedding: Array,
) -> Truth:
    """Draw the parameters of a modality whose embeddings are given.

    Parameters
    ----------
    spec
        Description of the modality.
    rng
        Source of randomness.
    n_latent
        Dimensions of z.
    panel
        Shape ``(n_features, n_batches)``.
    embedding
        Shape ``(n_features, n_latent)``.
    """
    n_features, n_batches = panel.shape
    centre, spread = spec.abundance
    common: Array = rng.normal(centre, spread, size=(n_features,))
    bias = common[:, None] + rng.normal(0, spec.batch_sd, (n_features, n_batches))
    scale = np.exp(rng.normal(0, 0.05, (n_features, n_batches)))
    parameters = RULES[spec.likelihood].parameters(
        rng, n_features=n_features, n_batches=n_batches, batch_sd=spec.batch_sd
    )
    if spec.n_isotypes:
        # Never foreground: the logistic of -50 is zero for all purposes.
        parameters["mixing_slope"][-spec.n_isotypes :] = 0.0
        parameters["mixing_offset"][-spec.n_isotypes :] = -50.0
    network = (
        rng.normal(0, 1.5 / np.sqrt(n_latent), (n_latent, _HIDDEN_UNITS)),
        rng.normal(0, spec.nonlinearity / np.sqrt(_HIDDEN_UNITS), (_HIDDEN_UNITS, n_latent)),
    )
    return Truth(
        spec.likelihood, spec.signal_sd, embedding, bias, scale, panel, parameters, network
    )


def write_truth(mdata: mudata.MuData, modality: str, truth: Truth) -> None:
    """Store parameters in the modality's ``var`` and ``varm`` and in ``mdata.uns["truth"]``."""
    part: ad.AnnData = mdata.mod[modality]
    part.varm[PREFIX + "embedding"] = truth.embedding
    part.varm[PREFIX + "bias"] = truth.bias
    part.varm[PREFIX + "scale"] = truth.scale
    for name, value in truth.parameters.items():
        if value.ndim > 1:
            part.varm[PREFIX + name] = value
        else:
            part.var[PREFIX + name] = value
    mdata.uns["truth"][modality] = {
        "likelihood": truth.likelihood,
        "signal_sd": truth.signal_sd,
        "n_features": len(truth.embedding),
        "network_in": truth.network[0],
        "network_out": truth.network[1],
    }


def read_truth(mdata: mudata.MuData, modality: str) -> Truth:
    """Read back what :func:`write_truth` stored.

    Raises
    ------
    DataError
        The MuData was not simulated by this package, or lacks the modality or features of it.
    """
    known = mdata.uns.get("truth", {})
    if modality not in known or modality not in mdata.mod:
        raise DataError(
            "no simulated truth is stored",
            modality=modality,
            key='uns["truth"]',
            expected=f"one of {', '.join(map(repr, known)) or 'nothing here'}",
            remedy="make the MuData with mosaicvi.datasets.simulate",
        )
    part, own = mdata.mod[modality], known[modality]
    n_features = int(own.get("n_features", part.n_vars))
    if part.n_vars != n_features:
        raise DataError(
            f"{part.n_vars} of {n_features} simulated features are there",
            modality=modality,
            expected="all of them, since shares of counts run over all",
            remedy="take the MuData as it was simulated, and choose columns of its mean",
        )
    named = {"embedding", "bias", "scale"}
    stored = {
        key.removeprefix(PREFIX): np.asarray(table[key])
        for table, keys in ((part.varm, list(part.varm)), (part.var, list(part.var.columns)))
        for key in keys
        if key.startswith(PREFIX)
    }
    return Truth(
        likelihood=str(own["likelihood"]),
        signal_sd=float(own["signal_sd"]),
        embedding=stored["embedding"],
        bias=stored["bias"],
        scale=stored["scale"],
        panel=part.varm[PANEL].to_numpy(dtype=bool),
        parameters={name: value for name, value in stored.items() if name not in named},
        network=(np.asarray(own["network_in"]), np.asarray(own["network_out"])),
    )


def true_mean(mdata: mudata.MuData, modality: str) -> Array:
    """Compute the mean of a simulated modality for every cell, measured or not.

    Parameters
    ----------
    mdata
        What :func:`mosaicvi.datasets.simulate` returned, or some of its cells, or that read back
        from a file. All features must be there: a softmax runs over them.
    modality
        Name of the modality.

    Returns
    -------
    Mean of the values given the true z, batch, panel and library size, shape
    ``(n_cells, n_features)``, float64, in the order of ``mdata.obs_names``: counts a cell, values
    of a ``normal``, ``student`` or ``lognormal`` modality, the rate (methylated share) of a
    ``beta_binomial`` one. Where the cell's batch lacks the feature 0, and NaN for these four.

    Raises
    ------
    DataError
        The MuData was not simulated by this package, or lacks the modality or features of it.
    """
    truth = read_truth(mdata, modality)
    batches = [str(name) for name in mdata.uns["truth"]["batches"]]
    codes = np.array([batches.index(str(name)) for name in mdata.obs["batch"]], dtype=np.int64)
    return truth.mean(
        np.asarray(mdata.obsm[PREFIX + "z"], dtype=np.float64),
        codes,
        mdata.obs[f"{PREFIX}library_{modality}"].to_numpy(dtype=np.float64),
    )
