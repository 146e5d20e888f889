"""Self-critical training."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.losses import build_rl_losses
from xmodaler.scorer import build_scorer

from .build import ENGINE_REGISTRY
from .default_trainer import DefaultTrainer, Scalars
from .rl_batch import sample_scalars, without_captions

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


# What a step's time is split into in the log; the rest is the loss and the backward pass.
PARTS = ("sampling", "baseline", "scoring")


@ENGINE_REGISTRY.register()
class RLTrainer(DefaultTrainer):
    """Raises the expected reward of sampled sentences (Rennie et al. 2017, equation 8).

    ``DATALOADER.SEQ_PER_SAMPLE`` sentences are drawn for every image, with dropout; the reward of
    each less that of the image's greedy sentence, which is decoded without dropout, weighs its
    log-likelihood. The images are encoded once for all sentences that are drawn and once for the
    greedy one: these two encodings differ by dropout. Gradients flow through the drawing itself,
    so no second pass over the sentences is needed. The host scores the drawn sentences while the
    device decodes the greedy ones.

    ``LOSSES.NAMES`` adds losses that need no ground-truth words. A subclass overrides
    :meth:`sample`, :meth:`rival` or :meth:`baseline`.

    Args:
        cfg: The complete config; ``SCORER`` names the reward.
    """

    def __init__(self, cfg: "CfgNode") -> None:
        super().__init__(cfg)
        self._began = 0.0
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._checked = False

    @classmethod
    def build_losses(cls, cfg: "CfgNode") -> list[torch.nn.Module]:
        """The loss on rewards, and those of LOSSES.NAMES that need no ground-truth words."""
        return build_rl_losses(cfg)

    @classmethod
    def build_scorer(cls, cfg: "CfgNode") -> Any:
        """The reward."""
        return build_scorer(cfg)

    @cached_property
    def scorer(self) -> Any:
        """The reward: a function from decoded batches to their scores."""
        return self.build_scorer(self.cfg)

    def prepare_training(self) -> None:
        # First, since the reward's files may be missing or not fit.
        self._build("scorer")
        super().prepare_training()

    @cached_property
    def _background(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="reward")

    def run_step(self) -> None:
        self._began, self._seconds = time.perf_counter(), dict.fromkeys(PARTS, 0.0)
        super().run_step()

    def compute_losses(self, data: dict[str, Any]) -> Scalars:
        """Draw sentences, reward them, and evaluate the losses.

        Returns:
            Name -> 0-d tensor.
        """
        self._check_references(data)
        images = without_captions(data)
        with self._timed("sampling"):
            outputs = self.sample(images)
            words, log_probs = outputs[kfg.G_SENTS_IDS], outputs[kfg.G_LOGP]
            on_host = _on_host(words)
        pending = self._background.submit(self.score, images[kfg.IDS], on_host)
        with self._timed("baseline"):
            rival = self.rival(images)
            on_host = None if rival is None else _on_host(rival[kfg.G_SENTS_IDS])
        scores = pending.result()
        rewards = scores.pop(kfg.REWARDS).reshape(len(images[kfg.IDS]), -1)
        rival_rewards = None
        if on_host is not None:
            scores = self.score(images[kfg.IDS], on_host)
            rival_rewards = scores.pop(kfg.REWARDS).reshape(len(rewards), -1)
        baseline = self.baseline(rewards, rival_rewards)
        advantage = (rewards - baseline).astype(np.float32).ravel()
        outputs[kfg.REWARDS] = torch.from_numpy(advantage).to(log_probs.device)
        losses: Scalars = {}
        for loss in self.losses:
            losses.update(loss(outputs))
        self._log(
            **scores,
            **sample_scalars(
                words.flatten(0, -2),
                log_probs.flatten(0, -2),
                rewards,
                baseline,
                self.cfg.SCORER.EOS_ID,
            ),
        )
        return losses

    def sample(self, images: dict[str, Any]) -> dict[str, Any]:
        """Draw sentences, so that gradients flow to their log-probabilities.

        Args:
            images: The visual side of a batch of B images.

        Returns:
            The batch with G_SENTS_IDS and G_LOGP (B * S, T).
        """
        asked = {kfg.DECODE_BY_SAMPLE: True, "SAMPLES_PER_IMAGE": self.samples_per_image}
        return dict(self.model({**images, **asked}, use_beam_search=False))

    @property
    def samples_per_image(self) -> int:
        """How many sentences S are drawn for an image."""
        return max(1, self.cfg.DATALOADER.SEQ_PER_SAMPLE)

    def rival(self, images: dict[str, Any]) -> dict[str, Any] | None:
        """Sentences that the drawn ones are measured against: here, the greedy ones.

        They are decoded while the drawn ones are scored.

        Args:
            images: The visual side of the batch.

        Returns:
            The batch with G_SENTS_IDS; None where none are needed.
        """
        model = self.bare_model
        model.eval()
        try:
            with torch.no_grad():
                return model(images, use_beam_search=False)
        finally:
            model.train()

    def baseline(self, rewards: np.ndarray, rival: np.ndarray | None) -> np.ndarray:
        """What the rewards are measured against.

        Args:
            rewards: (B, S), of the sentences that were drawn.
            rival: (B, K), of the sentences of :meth:`rival`.

        Returns:
            (B, 1) or (B, S).
        """
        return rival

    def score(self, ids: Sequence[str], words: Tensor) -> dict[str, Any]:
        """The scorer's answer: REWARDS float64 and the mean of every metric.

        Args:
            ids: B images.
            words: (R, T) or (B, K, T) on the host.
        """
        began = time.perf_counter()
        scores = self.scorer({kfg.IDS: ids, kfg.G_SENTS_IDS: words})
        self._seconds["scoring"] += time.perf_counter() - began
        return {**scores, kfg.REWARDS: np.asarray(scores[kfg.REWARDS], dtype=np.float64)}

    def _check_references(self, data: dict[str, Any]) -> None:
        check = None if self._checked else getattr(self.scorer, "check_captions", None)
        if check is not None and kfg.G_TARGET_IDS in data:
            check(data[kfg.IDS], data[kfg.G_TARGET_IDS])
        self._checked = True

    def _log(self, **values: Tensor | float) -> None:
        """Show the mean over the accumulated batches of a step."""
        parts = self.cfg.SOLVER.ACCUM_STEPS
        before = self._extra_scalars
        self.log_scalars(**{name: before.get(name, 0.0) + v / parts for name, v in values.items()})

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - began

    def _write_metrics(self, loss_dict: Scalars, data_time: float, prefix: str = "") -> None:
        """Also says where the seconds of the step, up to its backward pass, went."""
        seconds = time.perf_counter() - self._began
        self.log_scalars(**{f"{part}_share": self._seconds[part] / seconds for part in PARTS})
        super()._write_metrics(loss_dict, data_time, prefix)


def _on_host(words: Tensor) -> Tensor:
    """The words, once the device is through with them: what it computes belongs to its part."""
    return words.detach().cpu()
