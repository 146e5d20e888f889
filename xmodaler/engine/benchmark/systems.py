"""The systems that are timed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, kfg
from xmodaler.engine.benchmark.workload import Workload, random_batch
from xmodaler.engine.precision import Precision
from xmodaler.losses import build_losses
from xmodaler.modeling import build_model
from xmodaler.optim import build_optimizer, clip_gradients

#: Added to the logit of the end of sentence where every caption must have the same length.
NEVER = -1e4


class System(ABC):
    """A captioner that can train and decode on given sizes.

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
        seed = workload.seed
        self.train_batch = self.prepare(
            random_batch(cfg, workload.train_images, workload.captions, seed)
        )
        self.decode_batch = self.prepare(random_batch(cfg, workload.decode_images, seed=seed + 1))

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network, with random weights, on its device."""

    @abstractmethod
    def outputs(self) -> dict[str, Any]:
        """What the losses need for the training batch."""

    @abstractmethod
    def generate(self) -> Tensor:
        """(B, steps) ids of the captions of the decoding batch."""

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device of the model."""
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def train(self) -> Tensor:
        """One training step: forward, losses, backward, clipping, update."""
        self.model.train()
        with self.precision.autocast():
            outputs = self.outputs()
            loss = sum(
                value
                for loss in self.losses
                for name, value in loss(outputs).items()
                if "acc" not in name
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.backward(loss)
        self.precision.step(self.optimizer, self.clip)
        return loss.detach()

    @torch.inference_mode()
    def decode(self) -> Tensor:
        """One beam search; (B, steps) ids."""
        self.model.eval()
        with self.precision.autocast():
            return self.generate()

    def weights_memory(self) -> int:
        """Bytes of parameters and buffers."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class XmodalerSystem(System):
    """A model of this package, as its config names it."""

    def build_model(self) -> nn.Module:
        """The network of the config; its searcher takes the sizes of the workload."""
        model = build_model(self.cfg)
        model.beam_searcher.beam_size = self.workload.beam_size
        for strategy in (model.beam_searcher, model.greedy_decoder):
            strategy.max_seq_len = self.workload.steps
        if self.cfg.SOLVER.COMPILE:
            model.compile()
        return model

    def outputs(self) -> dict[str, Any]:
        """Teacher-forced logits with the targets."""
        return self.model(self.train_batch)

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


def _output_bias(model: nn.Module) -> Tensor | None:
    logits = getattr(getattr(model, "predictor", None), "logits", None)
    return getattr(logits, "bias", None)
