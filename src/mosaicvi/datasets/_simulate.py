"""Mosaic data drawn from the package's own generative story, with the truth kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mosaicvi._errors import RequestError, check_whole
from mosaicvi._keys import LAYER_COVERAGE, LAYER_METHYLATED
from mosaicvi.datasets._assemble import assemble, modality, restrict
from mosaicvi.datasets._features import Panels, Specs, draw_embeddings, panel_masks
from mosaicvi.datasets._generative import COVERAGE, RULES, Array, Mask
from mosaicvi.datasets._presence import Patterns, default_patterns, draw_presence
from mosaicvi.datasets._simulated_modality import SimulatedModality
from mosaicvi.datasets._truth import PANEL, PREFIX, Codes, Truth, draw_truth, generator, write_truth

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mudata

_TYPE_NAMES = ("CD4 T", "CD8 T", "Mono", "B", "NK", "DC", "other T", "Platelet", "Plasma", "HSPC")


def simulate(
    n_cells: int = 1000,
    modalities: Specs | None = None,
    *,
    patterns: Patterns | None = None,
    batches: int | Sequence[str] = 2,
    panels: Panels | None = None,
    n_latent: int = 8,
    n_types: int = 8,
    separation: float = 0.7,
    seed: int = 0,
) -> mudata.MuData:
    r"""Draw a mosaic MuData whose truth is known.

    The story, for cell c in batch s and feature f of a modality m: a type t, then
    ``z = sqrt(separation) mu_t + sqrt(1 - separation) e`` with ``mu_t`` and ``e`` standard normal,
    so that z is N(0, I) over draws of types (exactly so for ``n_types=0``); embeddings ``v_f``,
    those of linked features correlated by the link's weight and sign; a head
    ``scale_{s,f} r(z) . v_f + bias_{s,f}``, where the bias of a batch is normal around the
    feature's and ``r`` is the identity plus a small network; and values:

    - ``nb``, ``zinb``: library size x softmax of the head over the batch's measured features,
      gamma-Poisson noise with variance ``mean + mean^2 / dispersion``; ``zinb`` then loses each
      entry with the feature's ``dropout`` probability;
    - ``nb_mixture``: a background that is lognormal over cells; with a probability that rises
      steeply with ``r(z) . v_f``, foreground: background x (1 + exp(head));
    - ``poisson``, ``bernoulli``: fragment counts of the same mean, or 1 with probability
      ``1 - exp(-mean)``; ``normal``: the head plus noise; ``student``: the same with noise of
      heavy tails; ``lognormal``: the exponential of ``normal``;
    - ``beta_binomial``: Poisson coverage, and of it the share of a beta distribution around the
      logistic of the head, in ``layers["methylated"]`` (also ``X``) and ``layers["coverage"]``.

    A modality's draws depend on the seed, the cells and what it is linked to alone: another
    modality more, or other ``patterns``, change nothing in it.

    Parameters
    ----------
    n_cells
        Number of cells, named ``cell00000`` and so on.
    modalities
        Modality name to its description; None: RNA (2,000 genes, ``zinb``) and 16 proteins.
    patterns
        Fraction of cells of each presence pattern, such as ``{"rna+protein": 0.5, "rna": 0.5}``;
        or such a mapping for each batch. None: half of the cells have every modality, the others
        one each.
    batches
        Batch names, or how many; batches are of equal size.
    panels
        Modality to batch to the names of the features that the batch measures; batches that are
        not named measure all.
    n_latent
        Dimensions of z.
    n_types
        Number of cell types, of unequal frequency; 0: no types.
    separation
        Share of the variance of z that lies between types, from 0 to 1.
    seed
        Same arguments and seed, same data.

    Returns
    -------
    MuData; count modalities CSR float32, continuous ones dense float32 with NaN where a batch's
    panel lacks the feature.

    - ``obs``, here and in each modality: ``batch``, ``cell_type`` (if there are types).
    - ``mod[m].varm["panel"]``: features x batches, True where measured.
    - ``uns["links"]``: columns ``source``, ``target`` (feature names), ``source_modality``,
      ``target_modality``, ``sign`` (1, -1) and ``weight``.

    The truth, which a model must not be shown, follows cells and features when they are chosen,
    and is written to ``.h5mu`` with the rest:

    - ``obsm["truth_z"]``: ``(n_cells, n_latent)``; ``obsm["truth_<m>"]``: the complete values
      ``(n_cells, n_features)``, those of cells that lack the modality included;
      ``obsm["truth_<m>_foreground"]`` for ``nb_mixture``; ``obs["truth_library_<m>"]``.
    - ``mod[m].varm``: ``truth_embedding`` (v), ``truth_bias``, ``truth_scale`` and others by batch
      (columns as in ``uns["truth"]["batches"]``); ``mod[m].var``: ``truth_dispersion`` and others.
    - ``uns["truth"]``: the rest. :func:`true_mean` computes conditional means from these.

    Raises
    ------
    RequestError
        An argument is out of range, or names a modality, batch or feature that does not exist.

    Examples
    --------
    >>> kinds = mosaicvi.datasets.SimulatedModality
    >>> modalities = {"rna": kinds.rna(500), "atac": kinds.atac(2000)}
    >>> patterns = {"rna+atac": 0.5, "rna": 0.3, "atac": 0.2}
    >>> mosaicvi.datasets.simulate(1000, modalities, patterns=patterns)
    """
    specs = _specs(modalities)
    names = _batch_names(batches)
    for key, value, least in (
        ("n_cells", n_cells, 1),
        ("n_latent", n_latent, 1),
        ("n_types", n_types, 0),
        ("seed", seed, 0),
    ):
        check_whole(value, key, least)
    _check(n_cells, names, separation)
    _check_specs(specs, n_latent)
    batch = np.arange(n_cells, dtype=np.int64) * len(names) // n_cells
    z, types = _draw_cells(n_cells, n_latent, n_types, separation, seed)
    obs = pd.DataFrame(
        {"batch": pd.Categorical.from_codes(batch, categories=pd.Index(names))},
        index=pd.Index([f"cell{cell:05d}" for cell in range(n_cells)]),
    )
    if types is not None:
        obs["cell_type"] = types
    presence = draw_presence(
        generator(seed, "presence"),
        batch=batch,
        batch_names=names,
        modalities=tuple(specs),
        patterns=default_patterns(tuple(specs)) if patterns is None else patterns,
    )
    embeddings, links = draw_embeddings(specs, n_latent, seed)
    masks = panel_masks(specs, names, panels or {})
    truths = {
        name: draw_truth(
            spec,
            generator(seed, "parameters", name),
            n_latent=n_latent,
            panel=masks[name],
            embedding=embeddings[name],
        )
        for name, spec in specs.items()
    }
    return _draw_mudata(obs, specs, truths, presence, z, batch, links, seed)


def simulate_cite(seed: int = 0) -> mudata.MuData:
    """Draw a mosaic CITE-seq sample like :func:`pbmc_mosaic`.

    Parameters
    ----------
    seed
        Same seed, same data.

    Returns
    -------
    MuData of 1,600 cells in four batches of 400, as :func:`simulate` describes it: ``donor1`` has
    RNA only (500 genes, a median of some 500 counts), ``donor2`` protein only (14, and 2 isotype
    controls), ``donor3`` and ``donor4`` both. Every protein but the controls is linked to its gene;
    the protein's decoder is not quite bilinear.
    """
    paired = {"rna+protein": 1.0}
    rna = replace(SimulatedModality.rna(500), depth=700.0)
    protein = replace(SimulatedModality.protein(), nonlinearity=0.3)
    return simulate(
        1600,
        {"rna": rna, "protein": protein},
        patterns={
            "donor1": {"rna": 1.0},
            "donor2": {"protein": 1.0},
            "donor3": paired,
            "donor4": paired,
        },
        batches=("donor1", "donor2", "donor3", "donor4"),
        seed=seed,
    )


def _specs(modalities: Specs | None) -> dict[str, SimulatedModality]:
    if modalities is None:
        return {"rna": SimulatedModality.rna(), "protein": SimulatedModality.protein()}
    if not isinstance(modalities, Mapping):
        raise RequestError(
            f"found {type(modalities).__name__}",
            key="modalities",
            expected="a dict from modality to SimulatedModality",
        )
    for name, spec in modalities.items():
        if not isinstance(spec, SimulatedModality):
            raise RequestError(
                f"found {spec!r}",
                modality=str(name),
                key="modalities",
                expected="a SimulatedModality",
                remedy="SimulatedModality.rna(2000, likelihood='nb'), .protein(), .atac(), "
                ".normal() or .methylation()",
            )
    return dict(modalities)


def _batch_names(batches: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(batches, int | np.integer):
        return tuple(f"batch{number}" for number in range(1, batches + 1))
    names = () if isinstance(batches, str) else tuple(batches)
    if isinstance(batches, str) or not all(isinstance(name, str) for name in names):
        raise RequestError(
            f"found {batches!r}", key="batches", expected="how many, or a list of names"
        )
    return names


def _check(n_cells: int, batches: Sequence[str], separation: float) -> None:
    if not batches or len(set(batches)) != len(batches) or n_cells < len(batches):
        raise RequestError(
            f"{n_cells} cells in batches {list(batches)}",
            key="batches",
            expected="one batch or more, of different names, with a cell or more each",
        )
    if not 0 <= separation <= 1:
        raise RequestError(f"found {separation}", key="separation", expected="0 to 1")


def _check_specs(specs: Specs, n_latent: int) -> None:
    if not specs:
        raise RequestError("no modality", key="modalities", expected="one or more")
    for name, spec in specs.items():
        if not set(spec.factors or ()) <= set(range(n_latent)):
            raise RequestError(
                f"found {spec.factors}",
                modality=name,
                key="factors",
                expected=f"dimensions of z, from 0 to n_latent - 1 = {n_latent - 1}",
            )
        if spec.linked_to is not None and (spec.linked_to not in specs or spec.linked_to == name):
            raise RequestError(
                f"linked to {spec.linked_to!r}",
                modality=name,
                key="linked_to",
                expected=f"None, or another of {list(specs)}",
            )
        if spec.linked_to is not None and specs[spec.linked_to].linked_to is not None:
            raise RequestError(
                f"linked to {spec.linked_to!r}, which is itself linked",
                modality=name,
                key="linked_to",
                expected="a modality whose own linked_to is None",
            )


def _draw_cells(
    n_cells: int, n_latent: int, n_types: int, separation: float, seed: int
) -> tuple[Array, pd.Categorical[str] | None]:
    """Latent positions ``(n_cells, n_latent)`` and types."""
    rng = generator(seed, "cells")
    noise = rng.normal(size=(n_cells, n_latent))
    if n_types == 0:
        return noise, None
    centres = rng.normal(size=(n_types, n_latent))
    frequencies = np.sort(rng.dirichlet(np.full(n_types, 4.0)))[::-1]
    codes = rng.choice(n_types, size=n_cells, p=frequencies)
    further = [f"type {number}" for number in range(len(_TYPE_NAMES) + 1, n_types + 1)]
    names = [*_TYPE_NAMES[:n_types], *further]
    z: Array = np.sqrt(separation) * centres[codes] + np.sqrt(1 - separation) * noise
    return z, pd.Categorical.from_codes(codes, categories=pd.Index(names))


def _draw_mudata(
    obs: pd.DataFrame,
    specs: Specs,
    truths: Mapping[str, Truth],
    presence: Mask,
    z: Array,
    batch: Codes,
    links: pd.DataFrame,
    seed: int,
) -> mudata.MuData:
    """Draw every value of every cell, and hand out those that are present."""
    batches = list(obs["batch"].cat.categories)
    parts, hidden, libraries = {}, {"z": z}, {}
    for column, (name, spec) in enumerate(specs.items()):
        rng = generator(seed, "values", name)
        library = spec.depth * np.exp(rng.normal(0, spec.depth_sd, len(z)))
        drawn = truths[name].draw(rng, z, batch, library)
        values = _stack(drawn, is_count=RULES[spec.likelihood].is_count)
        libraries[f"{PREFIX}library_{name}"] = library
        hidden[name] = values
        for state in drawn[0][1]:
            hidden[f"{name}_{state}"] = np.concatenate([states[state] for _, states in drawn])
        here = np.flatnonzero(presence[:, column])
        parts[name] = modality(
            values[here], obs=restrict(obs, obs.index[here]), var=pd.Index(spec.names)
        )
        if COVERAGE in drawn[0][1]:
            coverage = hidden[f"{name}_{COVERAGE}"][here]
            parts[name].layers[LAYER_METHYLATED] = parts[name].X.copy()
            parts[name].layers[LAYER_COVERAGE] = sp.csr_matrix(coverage)
        parts[name].varm[PANEL] = pd.DataFrame(
            truths[name].panel, index=parts[name].var_names, columns=batches
        )
    mdata = assemble(parts, obs.assign(**libraries))
    rows = obs.index.get_indexer(mdata.obs_names)
    for key, value in hidden.items():
        mdata.obsm[PREFIX + key] = value[rows]
    mdata.uns["links"] = links
    mdata.uns["truth"] = {"batches": np.array(batches, dtype=object), "seed": seed}
    for name, truth in truths.items():
        write_truth(mdata, name, truth)
    return mdata


def _stack(
    drawn: Sequence[tuple[Array, dict[str, Mask]]], *, is_count: bool
) -> sp.csr_matrix | np.ndarray:
    if not is_count:
        return np.concatenate([values for values, _ in drawn]).astype(np.float32)
    return sp.csr_matrix(sp.vstack([sp.csr_matrix(x.astype(np.float32)) for x, _ in drawn]))
