"""Which positions of a batch of captions have to be computed, known on the host."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xmodaler.utils.errors import UserError

from .grouping import queries_per_image

Feedback = Callable[[int, Tensor], tuple[Tensor, Tensor] | None]
"""Given a step and the states (rows, H) before it: rows to replace and their new words (k, E)."""


@dataclass(frozen=True)
class CaptionPlan:
    """Lengths of the captions of a batch.

    Attributes:
        stop: Number of positions before the first one, after the start, whose input words are 0
            in every row.
        lengths: (R,) int64 on the CPU; positions from there on influence nothing that counts.
        scored: (R, L) bool on the CPU, positions whose logits count; None for all.
        scores_all_targets: Whether ``scored`` holds every position with a target.
    """

    stop: int
    lengths: Tensor
    scored: Tensor | None
    scores_all_targets: bool = False

    @classmethod
    def of(cls, tokens: Tensor, targets: Tensor | None) -> "CaptionPlan":
        """The plan of input words (R, L) and, if only their positions count, targets (R, L).

        Reads the words on the host: for tensors on an accelerator this waits for the device.
        """
        if targets is not None and targets.shape != tokens.shape:
            raise UserError(
                f"the input words have shape {tuple(tokens.shape)} ({tokens.shape[0]} text rows) "
                f"but their targets {tuple(targets.shape)}; the two must agree"
            )
        empty = (tokens.cpu()[:, 1:] == 0).all(dim=0)
        stop = 1 + int(torch.cumprod(~empty, dim=0).sum())
        if targets is None:
            return cls(stop, torch.full((tokens.shape[0],), tokens.shape[1]), None)
        scored = targets.cpu() >= 0
        return cls(stop, _reach(scored), scored, scores_all_targets=True)

    def without_targets(self) -> "CaptionPlan":
        """The plan that computes every row until ``stop``."""
        return CaptionPlan(self.stop, torch.full_like(self.lengths, self.stop), None)

    def until_stop(self) -> "CaptionPlan":
        """The plan that scores nothing from ``stop`` on."""
        if self.scored is None:
            return self.without_targets()
        if not self.scored[:, self.stop :].any():
            return self
        scored = self.scored.clone()
        scored[:, self.stop :] = False
        return CaptionPlan(self.stop, _reach(scored), scored)

    def staircase(self, images: int) -> "Staircase":
        """The steps of a recurrence over these captions; see :class:`Staircase`."""
        groups = queries_per_image(self.lengths.shape[0], images)
        by_image = self.lengths.view(images, groups)
        # Stable, so that captions of one length keep their order and equal batches equal results.
        lengths, caption_order = by_image.sort(dim=1, descending=True, stable=True)
        _, image_order = lengths[:, 0].sort(descending=True, stable=True)
        lengths, caption_order = lengths[image_order], caption_order[image_order]
        rows = image_order[:, None] * groups + caption_order
        steps = []
        for t in range(int(lengths.max())):
            alive = lengths > t
            steps.append((int(alive[:, 0].sum()), int(alive.sum(dim=1).max())))
        return Staircase(image_order, rows, steps)


@dataclass(frozen=True)
class Staircase:
    """A recurrence that drops captions as they end.

    Images are sorted by their longest caption and the captions of an image by length, so that
    step t computes the first ``steps[t][0]`` images and of each the first ``steps[t][1]``
    captions: always a rectangle, which grouped attention can work on.

    Attributes:
        image_order: (B,) int64, images from the longest caption to the shortest.
        rows: (B, G) int64, the row of each sorted caption.
        steps: Images and captions per image at every step; neither ever rises.
    """

    image_order: Tensor
    rows: Tensor
    steps: list[tuple[int, int]]

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """(n, ...) of all positions -> one (images * captions, ...) per step."""
        return values.split([images * groups for images, groups in self.steps])

    def rows_at(self, step: int) -> Tensor:
        """(images * captions,) int64: the rows that a step computes, in its order."""
        images, groups = self.steps[step]
        return self.rows[:images, :groups].reshape(-1)

    def row_of_each(self) -> Tensor:
        """(n,) int64: the row of every computed position, step after step."""
        return torch.cat([self.rows_at(step) for step in range(len(self.steps))])

    def step_of_each(self) -> Tensor:
        """(n,) int64: the step of every computed position."""
        counts = torch.tensor([b * g for b, g in self.steps])
        return torch.arange(len(self.steps)).repeat_interleave(counts)


def first_of_each(state: Tensor, before: tuple[int, int], now: tuple[int, int]) -> Tensor:
    """The part of a state (images * captions, H) that goes on when captions end.

    Args:
        state: Rows of the step before.
        before: Images and captions per image of the step before.
        now: Images and captions per image of this step.
    """
    if before == now:
        return state
    return state.unflatten(0, before)[: now[0], : now[1]].flatten(0, 1)


def _reach(scored: Tensor) -> Tensor:
    """(R,): positions up to the last one that counts, at least one."""
    positions = torch.arange(1, scored.shape[1] + 1)
    return (scored * positions).amax(dim=1).clamp(min=1)
