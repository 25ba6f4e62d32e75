"""Controls: alignment tasks of which it is known what an honest method must say.

Adding one: a file here and a line in the table.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mosaicvi._errors import RequestError
from mosaicvi.bm.controls._base import Untouched
from mosaicvi.bm.controls._drop import Drop
from mosaicvi.bm.controls._imbalance import Imbalance
from mosaicvi.bm.controls._permuted import Permuted
from mosaicvi.bm.controls._rewired import Rewired

if TYPE_CHECKING:
    from mosaicvi.bm.controls._base import Control

TABLE: dict[str, type[Control]] = {
    kind.name: kind for kind in (Untouched, Permuted, Drop, Rewired, Imbalance)
}
"""By the name that a control's text begins with."""


def parse(text: str) -> Control:
    """Read a control from its text, such as ``rewired:0.3``.

    Raises
    ------
    RequestError
        If there is no such control, or what follows its name does not fit.
    """
    name, _, argument = text.partition(":")
    if name not in TABLE:
        raise RequestError(f"{name!r}", key="controls", expected=f"of {sorted(TABLE)}")
    return TABLE[name].parse(argument)


def parse_all(text: str) -> list[Control]:
    """Read controls separated by commas; a comma within a list of types separates nothing."""
    parts = re.split(rf",(?=(?:{'|'.join(TABLE)})(?:[:,]|$))", text)
    return [parse(part) for part in parts]
