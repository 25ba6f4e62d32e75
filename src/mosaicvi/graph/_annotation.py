"""Gene annotations: read from GTF or GFF3 files, or fetched from GENCODE at a fixed address."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError
from mosaicvi._fetch import fetch_file
from mosaicvi.graph._modality import shown

COLUMNS = ("chrom", "start", "end", "gene", "strand", "gene_id", "biotype")
"""Columns of an annotation."""

_FIELDS = ("chrom", "source", "kind", "start", "end", "score", "strand", "frame", "attributes")
_GENE_KINDS = ("gene", "ncRNA_gene", "pseudogene")  # the last two in Ensembl's GFF3
_CHUNK = 200_000
_VERSION = r"\.\d+(?:_\d+)?(_PAR_Y)?$"  # ENSG00000223972.5, lifted over ENSG00000223972.5_2
_MAGIC = b"\x1f\x8b"
_KEYS = {
    "gene": ("gene_name", "Name"),
    "gene_id": ("gene_id", "ID"),
    "biotype": ("gene_type", "gene_biotype", "biotype"),
}
_BUILDS = {
    "GRCh37": "hg19",
    "GRCh38": "hg38",
    "GRCm37": "mm9",
    "NCBIM37": "mm9",
    "GRCm38": "mm10",
    "GRCm39": "mm39",
}


@dataclass(frozen=True)
class AnnotationSource:
    """Where GENCODE serves a release.

    Attributes
    ----------
    name
        Name of the file in the cache.
    address
        Address of the release, which GENCODE does not change.
    sha256
        Hash of the file.
    """

    name: str
    address: str
    sha256: str


_GENCODE = "https://ftp.ebi.ac.uk/pub/databases/gencode"

ANNOTATIONS: dict[str, AnnotationSource] = {
    "hg38": AnnotationSource(
        "gencode.v41.basic.annotation.gff3.gz",
        f"{_GENCODE}/Gencode_human/release_41/gencode.v41.basic.annotation.gff3.gz",
        "b82a655bdb736ca0e463a8f5d00242bedf10fa88ce9d651a017f135c7c4e9285",
    ),
    "hg19": AnnotationSource(
        "gencode.v41lift37.basic.annotation.gff3.gz",
        f"{_GENCODE}/Gencode_human/release_41/GRCh37_mapping/"
        "gencode.v41lift37.basic.annotation.gff3.gz",
        "df96d3f0845127127cc87c729747ae39bc1f4c98de6180b112e71dda13592673",
    ),
    "mm10": AnnotationSource(
        "gencode.vM25.basic.annotation.gff3.gz",
        f"{_GENCODE}/Gencode_mouse/release_M25/gencode.vM25.basic.annotation.gff3.gz",
        "e8ed48bef6a44fdf0db7c10a551d4398aa341318d00fbd9efd69530593106846",
    ),
    "mm39": AnnotationSource(
        "gencode.vM30.basic.annotation.gff3.gz",
        f"{_GENCODE}/Gencode_mouse/release_M30/gencode.vM30.basic.annotation.gff3.gz",
        "6f433e2676e26569a678ce78b37e94a64ddd50a09479e433ad6f75e37dc82e48",
    ),
}
"""Annotations that the package may download, by assembly."""


def fetch_annotation(assembly: str) -> Path:
    """Return the path of GENCODE's basic annotation, downloading it first if it is not cached.

    Releases: ``hg38`` v41, ``hg19`` v41 lifted to GRCh37, ``mm10`` vM25, ``mm39`` vM30. Files are
    checked by their sha256 and kept where datasets are kept (``mosaicvi.settings.data_dir``).

    Parameters
    ----------
    assembly
        ``"hg38"``, ``"hg19"``, ``"mm10"`` or ``"mm39"``.

    Returns
    -------
    Path of the file (GFF3, gzip), for :func:`read_annotation` or
    :func:`from_coordinates`.

    Raises
    ------
    RequestError
        No annotation of that assembly is known.
    DownloadError
        The file is neither in the cache nor reachable.

    Examples
    --------
    >>> annotation = mosaicvi.graph.fetch_annotation("hg38")
    >>> mosaicvi.graph.from_coordinates(mdata, annotation=annotation, assembly="hg38")
    """
    if assembly not in ANNOTATIONS:
        raise RequestError(
            f"found {assembly!r}",
            key="assembly",
            expected=f"one of {shown(ANNOTATIONS)}",
            remedy="pass the path of a GTF of your assembly to from_coordinates instead",
        )
    return fetch_file(ANNOTATIONS[assembly], needed_by=f"the annotation of {assembly}")


def read_annotation(path: str | Path) -> pd.DataFrame:
    """Read the genes of a GTF or GFF3 file, plain or gzip.

    Parameters
    ----------
    path
        The file, such as Ensembl's, GENCODE's or the ``genes.gtf`` of Cell Ranger. Only rows of
        kind ``gene`` are kept; memory is O(genes).

    Returns
    -------
    One row a gene: ``chrom``, ``start``, ``end`` (0-based, half-open; the file is 1-based and
    closed), ``gene`` (symbol; the identifier where there is none), ``strand``, ``gene_id``
    (without version), ``biotype`` (empty where the file has none). ``attrs["assembly"]`` is the
    assembly that the file's header names (``hg38``, ``mm10``, ...), or None.

    Raises
    ------
    DataError
        The file is not there, truncated, not GTF or GFF3, or has no rows of kind ``gene``.
    """
    file = Path(path)
    try:
        with _open(file) as stream:
            header = _header(stream)
        chunks = _genes(file)
    except FileNotFoundError as error:
        raise DataError(
            f"there is no file {str(file)!r}",
            key="annotation",
            remedy=f"pass annotation=mosaicvi.graph.fetch_annotation({str(path)!r})"
            if str(path) in ANNOTATIONS
            else "correct the path, or use mosaicvi.graph.fetch_annotation",
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _truncated(file, f"the compressed stream breaks off ({error})") from error
    except (OSError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise _not_gtf(file, " ".join(str(error).split())) from error
    table = _attributes(chunks, file)
    table.attrs["assembly"] = _assembly(header)
    return table


def _open(file: Path) -> IO[bytes]:
    with file.open("rb") as stream:
        compressed = stream.read(2) == _MAGIC
    return gzip.open(file, "rb") if compressed else file.open("rb")  # type: ignore[return-value]


def _header(stream: IO[bytes]) -> list[str]:
    lines = []
    for line in stream:
        if not line.startswith(b"#"):
            break
        lines.append(line.decode("utf-8", errors="replace"))
    return lines


def _assembly(header: list[str]) -> str | None:
    text = "\n".join(header)
    for build, name in _BUILDS.items():
        if build in text:
            return name
    return None


def _genes(file: Path) -> pd.DataFrame:
    """Rows of kind ``gene``, read a chunk at a time."""
    kept, kinds, last = [], set(), None
    with (
        _open(file) as stream,
        pd.read_csv(
            stream,
            sep="\t",
            header=None,
            names=list(_FIELDS),
            dtype=str,
            chunksize=_CHUNK,
            quoting=3,
            keep_default_na=False,
            na_values=[],
        ) as chunks,
    ):
        for chunk in chunks:
            rows = chunk[~chunk["chrom"].str.startswith("#")]
            short = rows["attributes"].isna() | (rows["attributes"].astype(str) == "")
            if short.all() and len(rows) and last is None:
                raise _not_gtf(file, f"row {int(rows.index[0]) + 1} has no ninth column")
            if short.any():
                raise _truncated(file, f"row {int(rows.index[short][0]) + 1} has no ninth column")
            kinds |= set(rows["kind"])
            kept.append(rows[rows["kind"].isin(_GENE_KINDS)])
            last = rows.iloc[-1] if len(rows) else last
    genes = pd.concat(kept) if kept else pd.DataFrame(columns=list(_FIELDS))
    if not len(genes):
        raise _not_gtf(
            file, f"it has rows of kind {shown(sorted(kinds)) or 'none'}, none of 'gene'"
        )
    if last is not None and 'gene_id "' in genes["attributes"].iloc[0]:
        _check_last(str(last["attributes"]), file)
    return genes


def _check_last(attributes: str, file: Path) -> None:
    """Refuse a GTF whose last row breaks off within its attributes."""
    quotes_close = attributes.count('"') % 2 == 0
    tail = attributes.rpartition(";")[2].split()
    if not quotes_close or len(tail) == 1 or "gene_id" not in attributes:
        raise _truncated(file, f"its last row ends in {attributes[-40:]!r}")


def _attributes(rows: pd.DataFrame, file: Path) -> pd.DataFrame:
    table = {key: _attribute(rows["attributes"], names) for key, names in _KEYS.items()}
    if (table["gene_id"] == "").any():
        row = rows.index[(table["gene_id"] == "").to_numpy()][0]
        raise _not_gtf(file, f"row {int(row) + 1} has no gene_id")
    start = pd.to_numeric(rows["start"], errors="coerce").to_numpy(dtype=np.float64)
    end = pd.to_numeric(rows["end"], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~((start >= 1) & (end >= start)) | ~rows["strand"].isin(["+", "-", ".", "?"]).to_numpy()
    if bad.any():
        raise _not_gtf(
            file,
            f"{int(bad.sum())} genes have malformed coordinates, the first "
            f"{table['gene_id'].to_numpy()[bad][0]!r}",
        )
    gene_id = table["gene_id"].str.replace(r"^gene:", "", regex=True)
    gene = table["gene"].where(table["gene"] != "", gene_id)
    return pd.DataFrame(
        {
            "chrom": rows["chrom"].to_numpy(dtype=object),
            "start": start.astype(np.int64) - 1,
            "end": end.astype(np.int64),
            "gene": gene.to_numpy(dtype=object),
            "strand": rows["strand"].to_numpy(dtype=object),
            "gene_id": gene_id.str.replace(_VERSION, r"\1", regex=True).to_numpy(dtype=object),
            "biotype": table["biotype"].to_numpy(dtype=object),
        }
    )


def _attribute(column: pd.Series, names: tuple[str, ...]) -> pd.Series:
    """Value of the first attribute that is there: ``key "value";`` or ``key=value;``."""
    found = pd.Series("", index=column.index, dtype=object)
    for name in names:
        values = column.str.extract(rf'(?:^|[;\s]){name}(?:\s+"([^"]*)"|=([^;]*))')
        read = np.where(values[0].notna(), values[0], values[1])
        read = np.where(pd.isna(read), "", read)
        found = pd.Series(np.where(found != "", found, read), index=column.index, dtype=object)
    return found


def _truncated(file: Path, what: str) -> DataError:
    return DataError(
        f"the file {str(file)!r} is truncated: {what}",
        key="annotation",
        expected="a whole GTF or GFF3 file",
        remedy="download it again and compare its size or checksum with the server's",
    )


def _not_gtf(file: Path, what: str) -> DataError:
    return DataError(
        f"the file {str(file)!r} cannot be read as GTF or GFF3: {what}",
        key="annotation",
        expected="nine columns separated by tabs, rows of kind 'gene' with a gene_id",
        remedy="use a GTF of Ensembl or GENCODE, or pass a DataFrame with columns chrom, start, "
        "end, gene and strand",
    )
