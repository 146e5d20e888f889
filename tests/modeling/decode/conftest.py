"""Table language models: the smallest things that decode strategies can be run on."""

import pytest
import torch


class TableModel:
    """p(next | image, time, previous word) read from a table (B, T, V, V) of logits.

    It keeps per-row and per-image state as a network would, counts its steps and rows, and its
    state notices when rows are not reordered with the beams: ``trail`` must spell the history.
    """

    def __init__(self, table: torch.Tensor, requires_grad: bool = False) -> None:
        self.table = table.requires_grad_(requires_grad)
        self.rows_per_step: list[int] = []

    def start(self, batch):
        images = batch["IMAGE_ROWS"] if "IMAGE_ROWS" in batch else torch.arange(len(self.table))
        table = self.table[images]
        rows = {"trail": [torch.zeros(len(table), 0, dtype=torch.long)]}
        attend = bool(batch.get("RETURN_ATTENTION", False))
        outputs = {"SEMANTICS_PRED": table[:, 0, 0]}
        memory = {"table": table, "image": torch.arange(len(table))}
        return {"memory": memory, "rows": rows, "time": 0, "outputs": outputs, "attend": attend}

    def step(self, tokens, state):
        table, time = state["memory"]["table"], state["time"]
        images = torch.arange(len(tokens)) // (len(tokens) // len(table))
        self.rows_per_step.append(len(tokens))
        trail = torch.cat([state["rows"]["trail"][0], tokens.unsqueeze(1)], 1)
        state = {**state, "rows": {"trail": [trail]}, "time": time + 1}
        if state["attend"]:
            # A fingerprint of the whole prefix, so that a wrong reordering shows.
            image = state["memory"]["image"][images]
            state["attention"] = torch.stack([trail.float().mean(1), tokens.float(), image], 1)
        return table[images, time, tokens], state


@pytest.fixture
def table_model():
    return TableModel


@pytest.fixture
def random_table():
    def make(batch=3, steps=4, words=5, seed=0, scale=2.0):
        generator = torch.Generator().manual_seed(seed)
        return scale * torch.randn(batch, steps, words, words, generator=generator)

    return make
