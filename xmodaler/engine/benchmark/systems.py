"""The systems that are timed."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, kfg
from xmodaler.engine.benchmark.pairs import reads_pairs
from xmodaler.engine.benchmark.workload import Workload, random_batch
from xmodaler.engine.precision import Precision
from xmodaler.engine.tden_pretrainer import SIMILARITY, second_batch
from xmodaler.functional import trees
from xmodaler.losses import build_losses
from xmodaler.modeling import build_model
from xmodaler.modeling.stage_keys import SPARSE_GRADIENT
from xmodaler.optim import build_optimizer, build_step_in_backward, clip_gradients
from xmodaler.optim.sparse_rows import sparse_word_gradients

#: Added to the logit of the end of sentence where every caption must have the same length.
NEVER = -1e4


class System(ABC):
    """A model that can train, and if it generates, decode on given sizes.

    Args:
        name: In the report.
        cfg: Sizes, losses, optimizer, precision and device.
        workload: Sizes of the runs.
    """

    def __init__(self, name: str, cfg: CfgNode, workload: Workload) -> None:
        self.name = name
        self.cfg = cfg
        self.workload = workload
        torch.manual_seed(workload.seed)
        self.model = self.build_model()
        self.device = next(self.model.parameters()).device
        self.precision = Precision(cfg.SOLVER.PRECISION, self.device)
        self.losses = build_losses(cfg)
        self.optimizer = build_optimizer(cfg, self.model)
        self.clip = clip_gradients(cfg)
        self.step_in_backward = build_step_in_backward(cfg, self.optimizer)
        seed = workload.seed
        self.train_batch = self.prepare(
            random_batch(cfg, workload.train_images, workload.captions, seed)
        )
        self.decode_batch = {}
        if not reads_pairs(cfg):
            batch = random_batch(cfg, workload.decode_images, seed=seed + 1)
            self.decode_batch = self.prepare(batch)

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network, with random weights, on its device."""

    @abstractmethod
    def outputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the losses need for a training batch."""

    @abstractmethod
    def generate(self) -> Tensor:
        """(B, steps) ids of the captions of the decoding batch."""

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device of the model."""
        return trees.map_tensors(lambda value: value.to(self.device), batch)

    def train(self) -> Tensor:
        """One training step: forward, losses, backward, clipping, update."""
        self.model.train()
        return self.update(self.train_batch)[0]

    def update(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """One update of the weights on a batch.

        Returns:
            The loss, and what the losses read.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast():
            outputs = self.outputs(batch)
            loss = sum(
                value
                for group in outputs.get(kfg.GROUPS, {"": outputs}).values()
                for loss in self.losses
                for name, value in loss(group).items()
                if "acc" not in name
            )
        kept = self.keep(batch, outputs)
        del outputs
        self.precision.backward(loss)
        if self.step_in_backward is None:
            self.precision.step(self.optimizer, self.clip)
        return loss.detach(), kept

    def keep(self, batch: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        """What is needed of an update's outputs behind it; nothing."""
        return {}

    @torch.inference_mode()
    def decode(self) -> Tensor:
        """One beam search; (B, steps) ids."""
        self.model.eval()
        with self.precision.autocast():
            return self.generate()

    def weights_memory(self) -> int:
        """Bytes of parameters and buffers."""
        return _bytes([*self.model.parameters(), *self.model.buffers()])

    def states_memory(self) -> int:
        """Bytes of what the optimizer remembers."""
        return _bytes(trees.tensors(list(self.optimizer.state.values())))


class XmodalerSystem(System):
    """A model of this package, as its config names it."""

    def build_model(self) -> nn.Module:
        """The network of the config; its searcher takes the sizes of the workload."""
        model = build_model(self.cfg)
        if not reads_pairs(self.cfg):
            model.beam_searcher.beam_size = self.workload.beam_size
            for strategy in (model.beam_searcher, model.greedy_decoder):
                strategy.max_seq_len = self.workload.steps
        if self.cfg.SOLVER.COMPILE:
            model.compile()
        return model

    def outputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Teacher-forced logits, or what other heads give, with the targets."""
        sparse = sparse_word_gradients(self.model, self.optimizer, self.cfg)
        return self.model({**batch, SPARSE_GRADIENT: sparse})

    def generate(self) -> Tensor:
        """Beam search, or greedy decoding at one beam."""
        with self._endless():
            return self.model(self.decode_batch, use_beam_search=True)[kfg.G_SENTS_IDS]

    @contextmanager
    def _endless(self) -> Iterator[None]:
        """Make the end of sentence the least probable word."""
        end = self.model.beam_searcher.eos_token_id
        bias = _output_bias(self.model)
        if bias is None:
            strategies = (self.model.beam_searcher, self.model.greedy_decoder)
            for strategy in strategies:
                strategy.suppress_words = (end,)
            yield
            return
        before = bias.data[end].item()
        bias.data[end] = NEVER
        yield
        bias.data[end] = before


class TwoPassSystem(XmodalerSystem):
    """TDEN in pre-training: an iteration is two updates, the second on the model's own words."""

    def train(self) -> Tensor:
        """Both passes; the loss of the second."""
        self.model.train()
        _, second = self.update({**self.train_batch, SIMILARITY: True})
        return self.update(second)[0]

    def keep(self, batch: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        """The batch of the second pass."""
        return second_batch(batch, outputs) if batch[SIMILARITY] else {}


def build_system(name: str, cfg: CfgNode, workload: Workload) -> System:
    """The system of a config, that trains as its trainer does."""
    system = TwoPassSystem if cfg.ENGINE.NAME == "TDENPretrainer" else XmodalerSystem
    return system(name, cfg, workload)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _output_bias(model: nn.Module) -> Tensor | None:
    logits = getattr(getattr(model, "predictor", None), "logits", None)
    return getattr(logits, "bias", None)
