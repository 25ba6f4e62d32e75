"""Which batch each draw of an answer is for, and the offsets of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mosaicvi._noise import CellNoise
from mosaicvi._settings import logger
from mosaicvi.data import UNSTATED_BATCH

if TYPE_CHECKING:
    from mosaicvi.data import MosaicData
    from mosaicvi.model._chunks import PredictiveRequest
    from mosaicvi.module import MultimodalModule


class AnsweredBatches:
    """Batches that the draws of one request answer for.

    Each cell's own, unless others are asked for. A cell without one, which lacks the modality and
    has no value of a key that is the modality's alone, is of no new batch: as if batches that
    measured the modality had it, each draw takes the next of these.

    Parameters
    ----------
    module
        Fitted network.
    data
        Cells to answer for.
    request
        What is asked.
    seed
        Seed of offsets that are drawn.
    """

    def __init__(
        self, module: MultimodalModule, data: MosaicData, request: PredictiveRequest, seed: int
    ) -> None:
        self._module, self._request, self._seed = module, request, seed
        self._modality = data.modalities[request.modality]
        self._decoder = module.decoders[request.modality]
        wanted = request.transform_batch
        if wanted is None:
            wanted = tuple(torch.nonzero(self._decoder.measured.any(-1)).flatten().tolist())
        self._picks = np.resize(np.asarray(wanted, dtype=np.int64), request.n_samples)

    def _own(self, rows: np.ndarray) -> np.ndarray:
        """Cells that are answered for in a batch of their own, bool ``(n_cells,)``."""
        named = self._modality.cell_batch_names[rows] != UNSTATED_BATCH
        return np.asarray(named & (self._request.transform_batch is None))

    def announce(self, rows: np.ndarray) -> None:
        """Say which cells have no batch of their own, and what they are answered for in."""
        lacking = int((~self._own(rows)).sum())
        if lacking and self._request.transform_batch is None:
            modality = self._modality
            names = [modality.batch_categories[code] for code in sorted(set(self._picks.tolist()))]
            logger.info(
                "%r: no batch is stated for %d cells, which are answered for as in %s, where it "
                "was measured. For another, also one that is new, set the column of its batch_key "
                "in mdata.obs.",
                modality.name,
                lacking,
                " and ".join(map(repr, names)) if len(names) < 4 else f"all {len(names)} batches",
            )

    def codes(self, rows: np.ndarray) -> np.ndarray:
        """Codes of the batches, broadcastable to ``(n_samples, n_cells)``; -1 for a new one."""
        own, codes = self._own(rows), self._modality.cell_batch[rows]
        return codes if own.all() else np.where(own, codes, self._picks[:, None])

    def offsets(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """Offsets of every draw, and codes of cells' own batches, -1 where these are not asked for.

        A batch draws one for all its cells where it did not measure. Batches that training never
        saw have one code, -1, but each its draw.
        """
        own, device = self._own(rows), self._module.device
        if not own.any():
            return self._picked(), torch.full((len(rows),), -1, device=device)
        codes, names = self._modality.cell_batch[rows], self._modality.cell_batch_names[rows]
        batch = torch.as_tensor(codes, device=device)
        offsets = self._decoder.batch_offsets(batch)
        for name, code in sorted(set(zip(names[own].tolist(), codes[own].tolist(), strict=True))):
            unmeasured = torch.tensor(True, device=device)
            if code >= 0:
                unmeasured = ~self._decoder.measured[code]
            if bool(unmeasured.any()):
                cells = torch.as_tensor(own & (names == name) & (codes == code), device=device)
                self._renew(offsets, name, cells.view(1, -1, 1) & unmeasured)
        if not own.all():
            cells = torch.as_tensor(own, device=device).view(1, -1, 1)
            for head, picked in self._picked().items():
                offsets[head] = torch.where(cells, offsets.get(head, picked.new_zeros(())), picked)
        return offsets, batch

    def _picked(self) -> dict[str, Tensor]:
        """Offsets of the batch that each draw takes, ``(n_samples, 1, n_features)``."""
        picks = torch.as_tensor(self._picks, device=self._module.device)
        offsets = {k: v.unsqueeze(1) for k, v in self._decoder.batch_offsets(picks).items()}
        for code in sorted(set(self._picks.tolist())):
            unmeasured, draws = ~self._decoder.measured[code], (picks == code).view(-1, 1, 1)
            if bool(unmeasured.any()):
                self._renew(offsets, self._modality.batch_categories[code], draws & unmeasured)
        return offsets

    def _renew(self, offsets: dict[str, Tensor], name: str, where: Tensor) -> None:
        """Draw a batch's offsets ``where`` it measured nothing, bool, as broadcast to draws."""
        for head in self._decoder.offsets:
            new = self._new_batch(name, head).to(where.device)
            offsets[head] = torch.where(where, new, offsets.get(head, new.new_zeros(())))

    def _new_batch(self, name: str, head: str) -> Tensor:
        """Offsets of a batch that never measured the modality, ``(n_samples, 1, n_features)``."""
        request, offsets = self._request, self._decoder.offsets[head]
        noise = CellNoise(self._seed, [name], purpose=f"batch/{request.modality}/{head}")
        shape = (request.n_samples, 1, int(offsets.raw.shape[1]))
        device = offsets.raw.device
        return offsets.draw_new(noise.normal(*shape).to(device), noise.uniform(*shape).to(device))
