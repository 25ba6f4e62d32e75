"""The cache: what is there is used, what is not there is downloaded or explained."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import stat
from pathlib import Path

import pooch
import pytest
import requests

from mosaicvi import _fetch
from mosaicvi._errors import DownloadError, RequestError
from mosaicvi._settings import settings

NAME = "snareseq_genes.txt"
CONTENT = b"Gad1\nSlc17a7\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, and a known file whose registered hash is that of CONTENT."""
    monkeypatch.setenv("MOSAICVI_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(settings, "_data_dir", None)
    source = dataclasses.replace(_fetch.SOURCES[NAME], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(_fetch.SOURCES, NAME, source)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """No network; addresses that were asked for."""
    addresses = []

    def refuse(url, *args, **kwargs):
        addresses.append(url)
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests.Session, "request", lambda self, method, url, **k: refuse(url))
    return addresses


def test_addresses_are_pinned():
    assert len(_fetch.SOURCES) == 15
    for name, source in _fetch.SOURCES.items():
        assert source.name == name
        assert "/" not in name
        assert re.fullmatch(r"[0-9a-f]{40}", source.commit)
        assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
        assert source.address.startswith(f"https://github.com/{source.repository}/raw/")
        # The cache may rename a file, never its content's kind.
        assert Path(source.path).suffix == Path(name).suffix
    assert (
        _fetch.SOURCES["snareseq_GxC1.npz"].address
        == "https://github.com/PeterZZQ/scMoMaT/raw/dbd954de4b1be415cdea543baf2856df0fda6992/"
        "data/real/MOp_5batches/GxC1.npz"
    )


def test_folder_is_setting_then_variable_then_system(folder, tmp_path_factory, monkeypatch):
    assert _fetch.cache_folder() == folder
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setattr(settings, "_data_dir", other)
    assert _fetch.cache_folder() == other
    monkeypatch.setattr(settings, "_data_dir", None)
    monkeypatch.delenv("MOSAICVI_DATA_DIR")
    assert _fetch.cache_folder() == Path(pooch.os_cache("mosaicvi"))


def test_cached_file_needs_no_network_and_no_right_to_write(folder, asked, monkeypatch):
    def write(*args, **kwargs):
        pytest.fail("the cache was written to")

    # Rights do not bind the superuser, as whom tests may run: catch the attempt as well.
    monkeypatch.setattr(pooch.core, "make_local_storage", write)
    monkeypatch.setattr(pooch.core, "stream_download", write)
    (folder / NAME).write_bytes(CONTENT)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        path = _fetch.fetch(NAME, dataset="snareseq_cortex")
        assert [path.name for path in folder.iterdir()] == [NAME]
    finally:
        folder.chmod(stat.S_IRWXU)
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert asked == []


def test_missing_file_without_network_is_explained(folder, asked):
    with pytest.raises(DownloadError) as caught:
        _fetch.fetch(NAME, dataset="snareseq_cortex")
    message = str(caught.value)
    address = _fetch.SOURCES[NAME].address
    assert asked == [address]
    for part in ("snareseq_cortex", NAME, address, str(folder), "MOSAICVI_DATA_DIR", "by hand"):
        assert part in message
    assert "Name or service not known" in message
    assert list(folder.iterdir()) == []


def test_altered_file_is_not_used(folder, asked):
    (folder / NAME).write_bytes(b"altered")
    with pytest.raises(DownloadError, match="another sha256"):
        _fetch.fetch(NAME, dataset="snareseq_cortex")
    assert len(asked) == 1


def test_downloaded_file_is_checked_and_kept(folder, monkeypatch):
    served = {"content": b"truncated"}

    def serve(address, output_file, pooch_, **kwargs):
        Path(output_file).write_bytes(served["content"])

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *a, **k: serve)
    with pytest.raises(DownloadError, match="hash"):
        _fetch.fetch(NAME, dataset="snareseq_cortex")
    assert list(folder.iterdir()) == []
    served["content"] = CONTENT
    assert _fetch.fetch(NAME, dataset="snareseq_cortex").read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_folder_that_cannot_be_made_is_explained(folder, asked, monkeypatch):
    (folder / "file").write_bytes(b"")
    monkeypatch.setattr(settings, "_data_dir", folder / "file" / "below")
    with pytest.raises(DownloadError, match="below"):
        _fetch.fetch(NAME, dataset="snareseq_cortex")


def test_unknown_file_is_refused():
    with pytest.raises(RequestError, match="pbmc10k_harmo_rna"):
        _fetch.fetch("nothing.csv", dataset="nothing")


def test_level_of_pooch_is_left_as_it_was(folder, asked):
    level = pooch.get_logger().level
    with pytest.raises(DownloadError):
        _fetch.fetch(NAME, dataset="snareseq_cortex")
    assert pooch.get_logger().level == level


def test_what_may_not_be_read_is_explained(folder, asked, monkeypatch):
    """As in another user's cache."""

    def closed(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(folder / NAME))

    (folder / NAME).write_bytes(b"closed")
    monkeypatch.setattr(pooch.core, "hash_matches", closed)
    with pytest.raises(DownloadError, match="may not be read"):
        _fetch.fetch(NAME, dataset="snareseq_cortex")
