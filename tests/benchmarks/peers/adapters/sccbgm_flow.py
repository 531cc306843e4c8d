"""scCBGM with flow matching: its autoencoder's concepts condition a flow that inverts a cell and runs it forward again.

What its benchmark classes do (``CBMFM_MetaTrainer``, ``fm_config/model/cbmfm.yaml``, ``edit: True``), which name a GPU:
here the autoencoder and the flow (``Cond_FM``) are trained by their own loops, and `edit` is called with the concepts
that the autoencoder predicts, one of them set.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from rivals_shared import repeated, trained
from sccbgm import BATCH, EPOCHS
from sccbgm import Adapter as Autoencoder

STEPS = 100
"""Steps each way, in place of the 1,000 that its benchmark hard-codes: a tenth of the time a cell."""
FLOW = {"hidden_dim": 1024, "latent_dim": 128, "n_layers": 4, "dropout": 0.1, "p_uncond": 0.0}
LEARNING_RATE = 3e-4


class Adapter(Autoencoder):
    """scCBGM's flow matching on its autoencoder's concepts, edited from a cell's own noise."""

    name = "scCBGM, flow matching"
    lines = 22
    notes = (
        Autoencoder.notes[0],
        "no model of the cell as it is: its estimate is the cell's projection on 128 principal components",
        "reads no label and no library size at test time: all concepts but the one that is set are predicted",
        f"deterministic: edited without noise added, {STEPS} steps each way (1,000 are hard-coded in its benchmark)",
        "no licence; in its benchmark classes alone, which name a GPU",
    )

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.flows = self.import_module("conceptlab.models.cond_fm")

    def fit(self, cells: Any) -> None:
        """Train the autoencoder, then the flow on the concepts that it predicts."""
        super().fit(cells)
        self.fit_flow(trained(cells))

    def fit_flow(self, cells: Any) -> None:
        """Train the flow on the concepts that the autoencoder predicts of training cells."""
        import torch

        data = self.projected(cells)
        concepts = torch.cat(self.bottleneck(data), dim=1)
        sizes = {"input_dim": data.shape[1], "n_concepts": concepts.shape[1]}
        self.flow = self.flows.Cond_FM(config={**FLOW, **sizes})
        self.flow.train_loop(data.cpu(), concepts.cpu(), self.job.epochs or EPOCHS, BATCH, lr=LEARNING_RATE)
        self.flow.eval()

    def size_on_disk(self) -> int:
        """Return the bytes of both models and of the components."""
        return super().size_on_disk() + sum(each.numel() * 4 for each in self.flow.state_dict().values())

    def mean(self, cells: Any) -> np.ndarray:
        """Project the cells."""
        return self.expression(self.projected(cells))

    def sample(self, cells: Any, draws: int = 1, seed: int = 0) -> np.ndarray:
        """Project the cells: an edit that changes nothing brings them back."""
        return repeated(self.mean(cells), draws)

    def counterfactual_mean(self, cells: Any, do: dict[str, str]) -> np.ndarray:
        """Run the cells back to noise under their concepts, and forward with one set."""
        return self.edit(cells, do, STEPS)

    def counterfactual_sample(self, cells: Any, do: dict[str, str], draws: int = 1, seed: int = 0) -> np.ndarray:
        """Do the same: no noise is added."""
        return repeated(self.edit(cells, do, STEPS), draws)

    def edit(self, cells: Any, do: dict[str, str], steps: int) -> np.ndarray:
        """Edit the cells in a number of steps each way."""
        import torch

        data = self.projected(cells)
        values, mask = (torch.from_numpy(each).to(self.device) for each in self.concepts.intervene(cells.n_obs, do))
        known, unknown = self.bottleneck(data)
        before = torch.cat((known, unknown), dim=1)
        after = torch.cat((known * (1 - mask) + values * mask, unknown), dim=1)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            edited = self.flow.edit(data, before, after, t_edit=0.0, n_steps=steps, noise_add=0.0)
        return self.expression(edited)
