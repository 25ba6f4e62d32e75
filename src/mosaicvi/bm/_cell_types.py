"""Types for scores inside types, where the data have no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anndata import AnnData
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph

from mosaicvi.bm.methods._features import Components

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp
    from numpy.typing import NDArray

RESOLUTION = 1.0
NEIGHBOURS = 15


def leiden_types(
    training: sp.csr_matrix, query: sp.csr_matrix
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Leiden clusters of the training cells; query cells take the majority of their neighbours.

    Principal components of log-normalised training counts, symmetric graph of 15 neighbours,
    Leiden (igraph flavour, seed 0) at resolution 1.0, always; the types depend on nothing that is
    imputed.

    Parameters
    ----------
    training, query
        Counts of the source modality, ``(n_cells, n_features)``.

    Returns
    -------
    Types of the training cells and of the query cells.
    """
    import scanpy as sc

    components = Components.fit(training)
    known = components.transform(training)
    n_neighbours = min(NEIGHBOURS, known.shape[0] - 1)
    graph = kneighbors_graph(known, n_neighbours, mode="connectivity")
    table = AnnData(known)
    sc.tl.leiden(
        table,
        resolution=RESOLUTION,
        adjacency=graph.maximum(graph.T).tocsr(),
        flavor="igraph",
        n_iterations=-1,
        directed=False,
        random_state=0,
    )
    types = table.obs["leiden"].to_numpy().astype(str)
    classifier = KNeighborsClassifier(n_neighbours).fit(known, types)
    return types, classifier.predict(components.transform(query)).astype(str)
