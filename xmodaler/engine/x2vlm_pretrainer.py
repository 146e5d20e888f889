"""Pre-training on several kinds of data at once."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from xmodaler.checkpoint.x2vlm import start_text
from xmodaler.config import kfg
from xmodaler.datasets.mixed_loader import CLEAN_GROUPS, MixedLoader, build_mixed_loader
from xmodaler.modeling.stage_keys import BOXES_ONLY, SKIP_MATCHING
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .build import ENGINE_REGISTRY
from .default_trainer import DefaultTrainer, Scalars

MATCHED_BY = "images"
"""The group whose clean batches say when texts are matched."""


@ENGINE_REGISTRY.register()
class X2VLMPretrainer(DefaultTrainer):
    """Learns from pictures, regions, videos and texts in one step (Zeng et al. 2023, section 3).

    A batch holds one of every kind in DATALOADER.GROUPS. The loss is the sum over the groups of
    their WEIGHT times their losses, which are shown, with the weight, as ``images/ITC`` and the
    like. Texts and pictures are matched in the first ENGINE.MATCHING_STEPS steps; where there are
    clean pictures, only in steps whose pictures are clean, since texts of noisy data do not
    describe their pictures well enough. An epoch is one of the first kind, or of
    DATALOADER.GROUPS.EPOCH_SIZE records.

    With ENGINE.BACKWARD_PER_GROUP every group has a backward pass of its own, which needs no more
    memory than the greatest of them and gives the same gradients.

    Raises:
        UserError: Weights are to be updated within the backward pass, of which there are several.
    """

    def __init__(self, cfg: Any) -> None:
        if cfg.ENGINE.BACKWARD_PER_GROUP and cfg.SOLVER.STEP_IN_BACKWARD:
            raise UserError(
                "ENGINE.BACKWARD_PER_GROUP and SOLVER.STEP_IN_BACKWARD exclude each other; set "
                "one of them to False"
            )
        super().__init__(cfg)

    def resume_or_load(self, resume: bool = True) -> None:
        """As for any trainer; a new run may start its text tower from a text model."""
        starts = not (resume and self.checkpointer.has_checkpoint())
        super().resume_or_load(resume)
        text = self.cfg.MODEL.X2VLM.TEXT_WEIGHTS
        if starts and text:
            fusion = 0 if self.cfg.MODEL.WEIGHTS else self.cfg.MODEL.FUSION.LAYERS
            start_text(self.bare_model, text, fusion)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> MixedLoader:
        """The loader of all kinds."""
        return build_mixed_loader(cfg)

    def next_batch(self, stream: Any = None) -> dict[str, Any]:
        """The next batch, with what its groups do not teach."""
        data = super().next_batch(stream)
        nodes, matches = self.cfg.DATALOADER.GROUPS, self.matches(data)
        groups = {
            name: {
                **group,
                SKIP_MATCHING: not matches,
                BOXES_ONLY: bool(nodes[name.upper()].get("BOXES_ONLY")),
            }
            for name, group in data[kfg.GROUPS].items()
        }
        return {**data, kfg.GROUPS: groups}

    def matches(self, data: dict[str, Any]) -> bool:
        """Whether a batch of this step teaches which texts belong to which pictures."""
        steps, pictures = self.cfg.ENGINE.MATCHING_STEPS, self.cfg.DATALOADER.GROUPS.IMAGES
        if 0 <= steps <= self.iter:
            return False
        return not pictures.CLEAN_ANNFILE or MATCHED_BY in data[CLEAN_GROUPS]

    def pieces(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """The groups together, or one at a time."""
        if not self.cfg.ENGINE.BACKWARD_PER_GROUP:
            return [data]
        return [{**data, kfg.GROUPS: {n: group}} for n, group in data[kfg.GROUPS].items()]

    def losses_of(self, outputs: dict[str, Any]) -> Scalars:
        """Every loss on every group, times the weight of the group."""
        losses: Scalars = {}
        for name, group in outputs[kfg.GROUPS].items():
            weight = self.cfg.DATALOADER.GROUPS[name.upper()].WEIGHT
            for loss, value in super().losses_of(group).items():
                losses[f"{name}/{loss}"] = weight * value
        return losses

    def _gradient_sync(self, part: int) -> AbstractContextManager:
        if not self._averages_itself:
            return nullcontext()
        return self.model.no_sync()

    def optimizer_step(self) -> None:
        """Average the gradients over the processes where that was not done yet, and update."""
        if self._averages_itself:
            comm.average_gradients(self.bare_model.parameters())
        super().optimizer_step()

    @property
    def _averages_itself(self) -> bool:
        # The wrapper averages in the last backward pass alone, and only what that pass computes.
        several = self.cfg.ENGINE.BACKWARD_PER_GROUP or self.cfg.SOLVER.ACCUM_STEPS > 1
        return several and isinstance(self.model, DistributedDataParallel)
