"""What the package says of its choices is seen, unless the user decides otherwise."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mosaicvi._settings import logger

if TYPE_CHECKING:
    import pytest


class Kept(logging.Handler):
    """Stands for scvi-tools' own."""

    def __init__(self, level: int = logging.INFO) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Scvi-tools' handler where nobody has set logging up, as in a notebook (pytest has)."""
    kept = Kept()
    monkeypatch.setattr(logging.getLogger("scvi"), "handlers", [kept])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return kept


def test_choices_are_said_in_the_style_of_scvi_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = nobody_listens(monkeypatch)
    logger.info("alignment=%r", "pairs")
    logger.debug("a detail")
    assert shown.said == ["alignment='pairs'"]


def test_its_verbosity_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = nobody_listens(monkeypatch)
    scvi_logger = logging.getLogger("scvi")
    before = scvi_logger.level
    scvi_logger.setLevel(logging.WARNING)
    try:
        logger.info("alignment='pairs'")
        logger.warning("the model is as it was")
    finally:
        scvi_logger.setLevel(before)
    assert shown.said == ["the model is as it was"]


def test_the_users_own_logging_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, own = nobody_listens(monkeypatch), Kept()
    monkeypatch.setattr(logging.getLogger(), "handlers", [own])
    logger.info("alignment='pairs'")
    assert own.said == ["alignment='pairs'"]
    assert not shown.said
