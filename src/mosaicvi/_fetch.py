"""Download, check and cache the files that datasets and annotations are read from.

Every file has a fixed address (of a dataset: repository, commit and path) and is checked by its
sha256, so that what is read today is what is read in a year. The package carries none of them.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pooch

from mosaicvi._errors import DownloadError, RequestError
from mosaicvi._settings import DATA_DIR_VARIABLE, logger, settings

if TYPE_CHECKING:
    from collections.abc import Iterator


class RemoteFile(Protocol):
    """A file that can be downloaded and checked."""

    @property
    def name(self) -> str:
        """Name of the file in the cache, which is flat."""

    @property
    def address(self) -> str:
        """Address from which the file is downloaded, fixed for all time."""

    @property
    def sha256(self) -> str:
        """Hash of its content."""


@dataclass(frozen=True)
class Source:
    """Where a file on GitHub comes from.

    Attributes
    ----------
    name
        Name of the file in the cache, which is flat.
    repository
        ``owner/name`` on GitHub.
    commit
        Full commit hash.
    path
        Path of the file within the repository.
    sha256
        Hash of its content.
    """

    name: str
    repository: str
    commit: str
    path: str
    sha256: str

    @property
    def address(self) -> str:
        """Address from which the file is downloaded."""
        return f"https://github.com/{self.repository}/raw/{self.commit}/{self.path}"


def _group(repository: str, commit: str, files: dict[str, tuple[str, str]]) -> dict[str, Source]:
    """Name the files of one commit, from cache name to (path, sha256)."""
    return {
        name: Source(name, repository, commit, path, sha256)
        for name, (path, sha256) in files.items()
    }


_TOTALVI = _group(
    "YosefLab/totalVI_reproducibility",
    "27d65a9c49182f39df0c4325249bc7dc8e663dd0",
    {
        "pbmc10k_harmo_rna.csv.gz": (
            "data/raw_data/pbmc10k_harmo_rna.csv.gz",
            "77cacfec0e17dce2a9b00c479a07a162e29dc9263ff5dc4cb5235df4679baba9",
        ),
        "pbmc10k_harmo_pro.csv.gz": (
            "data/raw_data/pbmc10k_harmo_pro.csv.gz",
            "184afe670d264b598e24cca73ccfd4f07c7bde696b8fb4cb53ba62d89b13f048",
        ),
        "pbmc5k_harmo_rna.csv.gz": (
            "data/raw_data/pbmc5k_harmo_rna.csv.gz",
            "7c2467fb1974355fdf4907228be1d4f47be4286300e65b5efe6379a12b6208fa",
        ),
        "sln_d2_harmo_rna_seurat.csv.gz": (
            "data/raw_data/sln_d2_harmo_rna_seurat.csv.gz",
            "0935bba98ce4bcbcc5bc843c2acf2c0b1d1807ce665e5e62c487014062f22b87",
        ),
        "sln_d1_harmo_pro_seurat.csv.gz": (
            "data/raw_data/sln_d1_harmo_pro_seurat.csv.gz",
            "0b29d3fe477fa3c20eadbd74307333c108a0b1eb34a80d06b3c5d520194c1cf7",
        ),
        "annotations_subclustered.csv": (
            "spleen_lymph_all/annotations/annotations_subclustered.csv",
            "a78a664e8e0ebcb48c1cb93f9ae8feb98c3e37b1ccf7072b70f50e77e5d2fd12",
        ),
        "hashtag_labels.csv": (
            "data/metadata/spleenLN111/hashtag_labels.csv",
            "64de865e412b7a30e56b77a3e9f305f93444dbcb273e937db40d2ad18cc2f816",
        ),
        "TotalSeq_ADT111_barcodes_RNA_20190717.csv": (
            "data/metadata/protein_metadata/TotalSeq_ADT111_barcodes_RNA_20190717.csv",
            "b06d0aa8c2c6d0b9c8393795f63ab2ae675d3f5dc2ac9a1f1d9e8a539d52f8c4",
        ),
    },
)

_MIDAS = _group(
    "labomics/midas",
    "5f0f57973bd6bea6f9ed034fffb4d9b3aa703777",
    {
        "quickstart_pbmc_mosaic.h5mu": (
            "src/scmidas/data/quickstart_pbmc_mosaic.h5mu",
            "ba7e65819b77dca7cae0473043893a471920e25a07ee08bc91b3eb9fcc2e1cdd",
        ),
    },
)

_SCMOMAT = _group(
    "PeterZZQ/scMoMaT",
    "dbd954de4b1be415cdea543baf2856df0fda6992",
    {
        "snareseq_GxC1.npz": (
            "data/real/MOp_5batches/GxC1.npz",
            "44e48e6243954feafe0541f33b6b116093ca1ed4a25fc2f3ca146d89d1ab1bab",
        ),
        "snareseq_RxC1.npz": (
            "data/real/MOp_5batches/RxC1.npz",
            "59d6f46dc4e908194bfc859b7773bc666d96ab74d9386b0a8f92d6b29dfcacf7",
        ),
        "snareseq_GxR.npz": (
            "data/real/MOp_5batches/GxR.npz",
            "a08249c98fb40a18c8271c9653bbd9540c23464135bf1b02f37a1243d472489f",
        ),
        "snareseq_genes.txt": (
            "data/real/MOp_5batches/genes.txt",
            "9d722d1d281f5ff152dc8a1fb257fec883b8aa28ea3f4f79783d0595dd8b4833",
        ),
        "snareseq_regions.txt": (
            "data/real/MOp_5batches/regions.txt",
            "d77319b1ad8a51af2c97ffa5d23d5458e95356b1926e9ae4e0ab821cc7e492a3",
        ),
        "snareseq_meta_c1.csv": (
            "data/real/MOp_5batches/meta_c1.csv",
            "05ea13be8042f66ee51516ccf9fd28ca43972498a69748a9e89b5b1ca280b037",
        ),
    },
)

SOURCES: dict[str, Source] = {**_TOTALVI, **_MIDAS, **_SCMOMAT}
"""Every file that the package may download, by its name in the cache."""


def cache_folder() -> Path:
    """Return ``settings.data_dir`` (which reads ``MOSAICVI_DATA_DIR``), else the system's cache."""
    chosen = settings.data_dir
    return Path(pooch.os_cache("mosaicvi")) if chosen is None else chosen.expanduser()


def fetch(name: str, *, dataset: str) -> Path:
    """Return the path of a file in the cache, downloading it first if it is not there.

    A file that is already there is checked by its sha256 and used as it is; the folder may then be
    read-only and the machine without a network. A file with another hash is downloaded anew.

    Parameters
    ----------
    name
        Name in the cache, a key of :data:`SOURCES`.
    dataset
        Name of the dataset that needs it, for messages.

    Returns
    -------
    Path of the checked file.

    Raises
    ------
    RequestError
        ``name`` is not known.
    DownloadError
        The file is not in the cache and cannot be downloaded or written there.
    """
    if name not in SOURCES:
        raise RequestError(
            f"unknown file {name!r}", key="name", expected=f"one of {', '.join(sorted(SOURCES))}"
        )
    return fetch_file(SOURCES[name], needed_by=f"dataset {dataset!r}")


def fetch_file(source: RemoteFile, *, needed_by: str) -> Path:
    """Return the path of a file in the cache, downloading it first; see :func:`fetch`.

    Parameters
    ----------
    source
        The file: name in the cache, address, sha256.
    needed_by
        What needs it, for messages.

    Returns
    -------
    Path of the checked file.

    Raises
    ------
    DownloadError
        The file is not in the cache and cannot be downloaded or written there.
    """
    name, folder = source.name, cache_folder()
    present = os.access(folder / name, os.F_OK)  # False in a folder that is closed to the user
    files = pooch.create(
        path=folder,
        base_url="",
        registry={name: f"sha256:{source.sha256}"},
        urls={name: source.address},
    )
    if not present:
        logger.info("Downloading %s for %s to %s", source.address, needed_by, folder)
    try:
        with _quiet_pooch():
            return Path(files.fetch(name))
    # requests' errors are OSErrors; pooch raises ValueError when a download has another hash.
    except (OSError, ValueError) as error:
        raise _download_error(source, needed_by, folder, present=present, cause=error) from error


def _download_error(
    source: RemoteFile, needed_by: str, folder: Path, *, present: bool, cause: Exception
) -> DownloadError:
    state = "is there but has another sha256" if present else "is not there"
    if present and isinstance(cause, PermissionError):
        state = "is there but may not be read or replaced"
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return DownloadError(
        f"{needed_by} needs the file {source.name!r}, which {state} (looked in {folder}), "
        f"and downloading it from {source.address} failed: {_shorten(reason)}",
        expected=f"a file with sha256 {source.sha256}",
        remedy=f"set {DATA_DIR_VARIABLE} (or mosaicvi.settings.data_dir) to a folder that holds "
        f"{source.name!r} or may be written to; or download {source.address} by hand on a machine "
        f"with a network and save it as {folder / source.name}",
    )


def _shorten(text: str, length: int = 300) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Silence pooch's own progress messages for a moment; ours name the dataset too."""
    other = pooch.get_logger()
    level = other.level
    other.setLevel(logging.ERROR)
    try:
        yield
    finally:
        other.setLevel(level)
