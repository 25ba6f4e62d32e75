"""Every error says what was expected, or what to do."""

from __future__ import annotations

import ast
from pathlib import Path

import mosaicvi

ERRORS = {"DataError", "RequestError", "FileError", "DownloadError"}


def test_errors_name_a_way_out() -> None:
    folder = Path(mosaicvi.__file__).parent
    mute = [
        f"{path.relative_to(folder)}:{call.lineno}"
        for path in sorted(folder.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) in ERRORS
        # None: arguments that are passed on, **kwargs.
        if not {word.arg for word in call.keywords} & {"expected", "remedy", None}
    ]
    assert not mute, f"neither expected= nor remedy= in {mute}"
