"""From an output folder or a weights file to what its model can do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from xmodaler.config import CfgNode
from xmodaler.inference.base import LoadedPredictor
from xmodaler.inference.captioner import Captioner
from xmodaler.model_zoo.weights import build_with_weights
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["LoadedModel", "load", "load_any_model", "load_model", "load_run_config"]

CONFIG, VOCABULARY = "config.yaml", "vocabulary.txt"
TOKENIZER, ANSWERS = "tokenizer", "answers.json"
_SUFFIXES = (".pth", ".safetensors", ".pt", ".bin", ".pkl")


class LoadedModel(NamedTuple):
    """A model with weights, the config it was built from, and the file of its weights."""

    model: nn.Module
    cfg: CfgNode
    weights: str


def load(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    device: str = "auto",
    config: str | os.PathLike[str] | CfgNode | None = None,
    precision: str = "fp32",
    model_weights: Sequence[float] | None = None,
) -> Any:
    """Loads a trained model, or several captioners that caption together.

    Args:
        path: The output folder of a training (its config, its vocabulary and its best weights,
            else the final or the last ones, are taken), or a weights file; the config and the
            vocabulary of a file are looked for beside it. Several of these make an ensemble, whose
            words are drawn from the average of the models' distributions; they may be of different
            architectures, but need one vocabulary and read the same inputs.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``, or as torch names it.
        config: A config (file) to use in place of the one found.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        model_weights: How much each model of an ensemble counts; None: all alike.

    Returns:
        What fits the task of the model: a :class:`~xmodaler.inference.Captioner`, an
        :class:`~xmodaler.inference.Answerer`, a :class:`~xmodaler.inference.Chooser`, or a
        retriever (:class:`~xmodaler.inference.VectorRetriever` or
        :class:`~xmodaler.inference.PairRetriever`).

    Raises:
        UserError: Something is missing or does not fit together; the message says what.
    """
    if isinstance(path, str | os.PathLike):
        if model_weights is not None:
            raise UserError("model_weights weigh the models of an ensemble; give several paths")
        loaded = load_any_model(path, device, config)
        kind = predictor_class(loaded)
    else:
        from xmodaler.inference.ensemble import join

        loaded = join([load_model(one, device, config) for one in path], model_weights)
        kind = Captioner
    return kind(loaded.model, loaded.cfg, precision, loaded.weights)


def predictor_class(loaded: LoadedModel) -> type[LoadedPredictor]:
    """What a model can do, as the class that does it.

    Raises:
        UserError: It was only pre-trained, or can do nothing known.
    """
    from xmodaler.inference.answerer import Answerer
    from xmodaler.inference.chooser import Chooser
    from xmodaler.inference.comparer import Comparer
    from xmodaler.inference.fusion_retriever import FusionRetriever
    from xmodaler.inference.grounder import Grounder
    from xmodaler.inference.pair_retriever import PairRetriever
    from xmodaler.inference.ranking_answerer import RankingAnswerer
    from xmodaler.inference.vector_retriever import VectorRetriever

    model, cfg = loaded.model, loaded.cfg
    if hasattr(model, "set_answers"):
        return RankingAnswerer
    if hasattr(model, "score_pairs"):
        return FusionRetriever
    if hasattr(model, "encode_images") and hasattr(model, "encode_texts"):
        return VectorRetriever
    towers = {"X2VLMGrounding": Grounder, "X2VLMReasoning": Comparer, "X2VLMClassifier": Answerer}
    if cfg.MODEL.META_ARCHITECTURE in towers:
        return towers[cfg.MODEL.META_ARCHITECTURE]
    labels = cfg.MODEL.get("MM_PREDICTOR", {}).get("LABELS_NUM", 0)
    if cfg.MODEL.META_ARCHITECTURE == "UniterRetrieval":
        return PairRetriever
    if labels > 1:
        return Answerer
    if labels == 1:
        return PairRetriever if "Similarity" in cfg.MODEL.PREDICTOR else Chooser
    if getattr(model, "greedy_decoder", None) is not None:
        return Captioner
    raise UserError(
        f"the {cfg.MODEL.META_ARCHITECTURE} of '{loaded.weights}' generates no sentences and has "
        "no head that answers, chooses or ranks: MODEL.DECODER, DECODE_STRATEGY.NAME and "
        "MODEL.PREDICTOR of its config say so; a model that was only pre-trained is fine-tuned "
        "for a task first"
    )


def load_model(
    path: str | os.PathLike[str],
    device: str = "auto",
    config: str | os.PathLike[str] | CfgNode | None = None,
) -> LoadedModel:
    """The model of a run, for generating sentences.

    Args:
        path, device, config: As in :func:`load`, one path.
    """
    loaded = load_any_model(path, device, config)
    if getattr(loaded.model, "greedy_decoder", None) is None:
        raise UserError(
            f"the {loaded.cfg.MODEL.META_ARCHITECTURE} of '{path}' generates no sentences: "
            "MODEL.DECODER or DECODE_STRATEGY.NAME is empty in its config"
        )
    return loaded


def load_any_model(
    path: str | os.PathLike[str],
    device: str = "auto",
    config: str | os.PathLike[str] | CfgNode | None = None,
) -> LoadedModel:
    """The model of a run, whatever it does.

    Args:
        path, device, config: As in :func:`load`, one path.
    """
    from xmodaler.utils.env import resolve_device

    folder, weights = _locate(Path(expand_path(os.fspath(path))))
    cfg = load_run_config(folder, config)
    cfg.MODEL.DEVICE = str(resolve_device(device))
    return LoadedModel(build_with_weights(cfg, weights), cfg, str(weights))


def load_run_config(
    folder: str | os.PathLike[str], config: str | os.PathLike[str] | CfgNode | None = None
) -> CfgNode:
    """The config of a run, set up for using the model.

    The vocabulary, tokenizer and answers kept in the folder are preferred to those that the config
    names, and nothing is downloaded to initialise weights that are loaded anyway.

    Args:
        folder: Holds ``config.yaml`` and, usually, ``vocabulary.txt``, or ``tokenizer/`` and
            ``answers.json``.
        config: A config (file) in place of that of the folder.
    """
    from xmodaler.config import load_config
    from xmodaler.modeling import add_config

    folder = Path(folder)
    if isinstance(config, CfgNode):
        cfg = config.clone()
        cfg.defrost()
    else:
        file = Path(expand_path(os.fspath(config))) if config else folder / CONFIG
        if not file.is_file():
            raise UserError(
                f"the config '{file}' does not exist; "
                + ("check the path" if config else "name one: load(..., config=FILE)")
            )
        cfg = load_config(str(file), (), add_config)
    vocabulary = folder / VOCABULARY
    if vocabulary.is_file():
        cfg.INFERENCE.VOCAB = str(vocabulary)
    if (folder / TOKENIZER).is_dir():
        cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / TOKENIZER)
    if (folder / ANSWERS).is_file():
        cfg.DATALOADER.ANSWERS = str(folder / ANSWERS)
    if "TIMM" in cfg.MODEL:
        cfg.MODEL.TIMM.PRETRAINED = False
        cfg.MODEL.TIMM.WEIGHTS = ""
    return cfg


def _locate(path: Path) -> tuple[Path, Path]:
    """The folder of the run and its weights file."""
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise UserError(f"'{path}' does not exist; give an output folder or a weights file")
    for pointer in ("best_checkpoint", "model_best.pth", "model_final.pth", "last_checkpoint"):
        file = path / pointer
        if file.suffix != ".pth" and file.is_file():
            name = file.read_text(encoding="utf-8", errors="replace").strip()
            file = path / name if name and "\0" not in name else file
        if file.suffix in _SUFFIXES and file.is_file():
            return path, file
    found = [file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    if not found:
        raise UserError(
            f"'{path}' holds no weights ({', '.join(_SUFFIXES)}); give the output folder of a "
            "training, or a weights file"
        )
    return path, max(found, key=lambda file: (file.stat().st_mtime, file.name))
