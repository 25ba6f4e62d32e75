"""What one simulated modality looks like, and names for its features."""

from __future__ import annotations

from dataclasses import dataclass

from mosaicvi._errors import RequestError
from mosaicvi.datasets._generative import RULES

# Protein and the gene that codes for it. Names differ between the two modalities in every row, so
# that feature names stay unique in the MuData.
_PROTEINS = (
    ("CD3", "CD3E"),
    ("CD8", "CD8A"),
    ("CD20", "MS4A1"),
    ("CD11b", "ITGAM"),
    ("CD56", "NCAM1"),
    ("CD16", "FCGR3A"),
    ("CD45RA", "PTPRC"),
    ("CD127", "IL7R"),
    ("HLA-DR", "HLA-DRA"),
    ("CD11c", "ITGAX"),
    ("CD25", "IL2RA"),
    ("PD-1", "PDCD1"),
    ("CD161", "KLRB1"),
    ("CD123", "IL3RA"),
)

_MARKERS = (
    *("CD3D", "TRAC", "CD4", "CD8B", "CCR7", "LEF1", "GZMK", "GZMB", "NKG7", "GNLY", "KLRD1"),
    *("CD79A", "CD19", "TCL1A", "IGHM", "IGHD", "JCHAIN", "LYZ", "S100A8", "S100A9", "CD14"),
    *("FCN1", "VCAN", "MS4A7", "FCER1A", "CLEC10A", "LILRA4", "PPBP", "PF4", "FOXP3", "TIGIT"),
)

PROTEIN_NAMES = tuple(protein for protein, _ in _PROTEINS)
GENE_NAMES = (*(gene for _, gene in _PROTEINS), *_MARKERS)

_ISOTYPES = ("IgG1-isotype-ctrl", "IgG2a-isotype-ctrl", "IgG2b-isotype-ctrl")


@dataclass(frozen=True)
class SimulatedModality:
    """Frozen description of one modality for :func:`mosaicvi.datasets.simulate`.

    :meth:`rna`, :meth:`protein`, :meth:`atac` and :meth:`normal` give realistic ones;
    :func:`dataclasses.replace` changes a field.

    Parameters
    ----------
    likelihood
        ``"nb"``, ``"zinb"``, ``"nb_mixture"``, ``"poisson"``, ``"bernoulli"``, ``"normal"``,
        ``"student"``, ``"lognormal"`` or ``"beta_binomial"``.
    names
        Feature names; their number is the number of features.
    depth
        Median library size, in counts a cell; for ``nb_mixture`` a factor on every background
        (median staining, 1); for ``beta_binomial`` the median coverage of a feature. Not used by
        ``normal``, ``student`` and ``lognormal``.
    depth_sd
        Standard deviation of log library size over cells.
    abundance
        Mean and standard deviation, over features, of the head's bias: log abundance under a
        softmax, log(foreground / background - 1) for ``nb_mixture``, the value for ``normal`` and
        ``student``, its log for ``lognormal``, log odds of the rate for ``beta_binomial``.
    signal_sd
        Standard deviation of ``r(z) . v`` over cells (natural logarithm for counts).
    batch_sd
        Standard deviation of the bias of a feature over batches.
    nonlinearity
        Weight of a random one-layer network in ``r(z)``; 0 makes the decoder bilinear.
    linked_to
        Modality whose features these are linked to, in order and cyclically; None: no links.
    link_weight
        Range of the weights of links: correlation of the embeddings of two linked features.
    negative_links
        Fraction of links with sign -1.
    n_isotypes
        How many of the last features are isotype controls: background only, never linked
        (``nb_mixture``).
    factors
        Dimensions of z that act on the modality, from 0; None: all.
    density
        Share of features, drawn for each dimension, on which it acts; 1: all.
    """

    likelihood: str
    names: tuple[str, ...]
    depth: float = 1.0
    depth_sd: float = 0.3
    abundance: tuple[float, float] = (0.0, 1.0)
    signal_sd: float = 0.7
    batch_sd: float = 0.2
    nonlinearity: float = 0.0
    linked_to: str | None = None
    link_weight: tuple[float, float] = (0.6, 0.95)
    negative_links: float = 0.0
    n_isotypes: int = 0
    factors: tuple[int, ...] | None = None
    density: float = 1.0

    def __post_init__(self) -> None:
        if self.likelihood not in RULES:
            raise RequestError(
                f"unknown likelihood {self.likelihood!r}",
                key="likelihood",
                expected=f"one of {', '.join(RULES)}",
            )
        if not self.names or len(set(self.names)) != len(self.names):
            raise RequestError(
                "no features, or two of the same name",
                key="names",
                expected="one name or more, each once",
            )
        if self.n_isotypes and self.likelihood != "nb_mixture":
            raise RequestError(
                f"isotype controls for likelihood {self.likelihood!r}",
                key="n_isotypes",
                expected="0, or likelihood 'nb_mixture'",
            )
        self._check_ranges()

    def _check_ranges(self) -> None:
        low, high = self.link_weight
        for key, fits, expected in (
            ("depth", self.depth > 0, "a number above 0"),
            ("depth_sd", self.depth_sd >= 0, "0 or more"),
            ("abundance", self.abundance[1] >= 0, "a mean, and a standard deviation of 0 or more"),
            ("signal_sd", self.signal_sd > 0, "a number above 0"),
            ("batch_sd", self.batch_sd >= 0, "0 or more"),
            ("link_weight", 0 <= low <= high <= 1, "two numbers from 0 to 1, the larger one last"),
            ("negative_links", 0 <= self.negative_links <= 1, "a fraction from 0 to 1"),
            ("n_isotypes", 0 <= self.n_isotypes <= len(self.names), "0 to the number of features"),
            ("density", 0 <= self.density <= 1, "a share from 0 to 1"),
        ):
            if not fits:
                raise RequestError(f"found {getattr(self, key)}", key=key, expected=expected)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.names)

    @classmethod
    def rna(cls, n_features: int = 2000, likelihood: str = "zinb") -> SimulatedModality:
        """RNA, known blood genes first; by default 2,100 counts a cell and 13 % nonzero."""
        names = _names(GENE_NAMES, n_features, "GENE")
        return cls(likelihood, names, depth=2800.0, abundance=(0.0, 2.8), signal_sd=0.8)

    @classmethod
    def protein(
        cls, n_features: int = 14, n_isotypes: int = 2, linked_to: str | None = "rna"
    ) -> SimulatedModality:
        """Surface proteins linked to the first genes, and isotype controls at the end."""
        names = _names(PROTEIN_NAMES, n_features, "AB") + _names(_ISOTYPES, n_isotypes, "isotype")
        return cls(
            "nb_mixture",
            names,
            abundance=(2.6, 0.5),
            signal_sd=0.5,
            linked_to=linked_to,
            n_isotypes=n_isotypes,
        )

    @classmethod
    def atac(
        cls, n_features: int = 2000, likelihood: str = "poisson", linked_to: str | None = "rna"
    ) -> SimulatedModality:
        """Peaks with a median of 1,000 fragments a cell, linked to genes in turn."""
        names = _names((), n_features, "peak")
        return cls(likelihood, names, depth=1000.0, signal_sd=1.0, linked_to=linked_to)

    @classmethod
    def normal(cls, n_features: int = 30, linked_to: str | None = None) -> SimulatedModality:
        """Continuous values of unit scale, such as scores or images' features."""
        return cls("normal", _names((), n_features, "score"), signal_sd=1.0, linked_to=linked_to)

    @classmethod
    def methylation(cls, n_features: int = 200, linked_to: str | None = None) -> SimulatedModality:
        """Methylated reads of a median coverage of 4 reads a region."""
        names = _names((), n_features, "region")
        return cls(
            "beta_binomial", names, depth=4.0, depth_sd=0.5, signal_sd=1.0, linked_to=linked_to
        )


def _names(known: tuple[str, ...], n_features: int, prefix: str) -> tuple[str, ...]:
    further = (f"{prefix}{number:04d}" for number in range(1, n_features - len(known) + 1))
    return (*known[:n_features], *further)
