"""The engine that evaluates several captioners together."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from xmodaler.inference.ensemble import join
from xmodaler.inference.loading import CONFIG, load_model
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .build import ENGINE_REGISTRY
from .default_trainer import DefaultTrainer

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


@ENGINE_REGISTRY.register()
class Ensembler(DefaultTrainer):
    """Evaluates an ensemble of captioners, with ``--eval-only``.

    ``MODEL.ENSEMBLE_WEIGHTS`` lists the members, output folders or weights files. A member with a
    ``config.yaml`` beside its weights is built from that, so that architectures can be mixed; any
    other has the architecture of this config. ``MODEL.MODEL_WEIGHTS`` says how much each counts;
    its default weighs any number of members alike.

    Args:
        cfg: The complete config.
    """

    @classmethod
    def build_model(cls, cfg: "CfgNode") -> torch.nn.Module:
        """The members with their weights, as one model."""
        paths = [expand_path(path) for path in cfg.MODEL.ENSEMBLE_WEIGHTS if path]
        if not paths:
            raise UserError(
                "ENGINE.NAME is Ensembler, but MODEL.ENSEMBLE_WEIGHTS names no weights; list the "
                "output folders or weights files of the models"
            )
        members = [
            load_model(path, cfg.MODEL.DEVICE, None if _has_config(path) else cfg) for path in paths
        ]
        weights = list(cfg.MODEL.MODEL_WEIGHTS)
        alike = len(weights) != len(paths) and len(set(weights)) == 1
        return join(members, None if alike else weights, cfg).model

    def resume_or_load(self, resume: bool = True) -> None:
        """Nothing: the members were built with their weights."""

    def train(self) -> dict[str, float]:
        """Not what an ensemble is for.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "ENGINE.NAME Ensembler evaluates trained models and trains none; add --eval-only, or "
            "name another engine"
        )


def _has_config(path: str) -> bool:
    folder = Path(path)
    return (folder if os.path.isdir(folder) else folder.parent).joinpath(CONFIG).is_file()
