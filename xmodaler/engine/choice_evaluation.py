"""Evaluation of models that choose: answers and reasons, scored apart and together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from xmodaler.config import kfg
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .evaluation import call_evaluator, gather_results, on_all_ranks, outputs_of, plain_id

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

CHOICES = 4
_SCORES = "scores"


def evaluate_choices(
    cfg: "CfgNode",
    model: torch.nn.Module,
    loaders: Sequence[Any],
    evaluator: Any,
    epoch: int,
) -> dict[str, Any]:
    """Choose on every rank, score on the main one, and return the metrics on all of them.

    Args:
        cfg: The config; reads INFERENCE.{ID_KEY, VALUE}.
        model: The model, possibly inside a distributed wrapper.
        loaders: Yield this rank's part of the questions with their answers, and of the answers
            with their reasons. Where the right answer is not known, a question has the 4 reasons
            for each of its 4 answers; those for the chosen answer count.
        evaluator: Has ``eval([answers, reasons], epoch)``; None scores nothing. Where all reasons
            were scored, its ``write_leaderboard`` is called too, if it has one.
        epoch: Number for the names of result files; -1 outside of training.

    Returns:
        What the evaluator returned; ``{}`` where that is no dict.
    """
    bare = comm.unwrap_model(model)
    answers, reasons = (
        gather_results(choose(cfg, bare, loader), cfg.INFERENCE.ID_KEY) for loader in loaders
    )
    if evaluator is None:
        return {}
    return on_all_ranks(lambda: _score(cfg, evaluator, answers, reasons, epoch))


def choose(cfg: "CfgNode", model: torch.nn.Module, loader: Any) -> list[dict[str, Any]]:
    """The scores of the choices of every question, and the best of them.

    Returns:
        Per question a dict: its id under ID_KEY, the number of the best choice under VALUE, all
        ``scores``, and, where the data know it, the number of the right one under U_TARGET_IDS.
    """
    results = []
    for outputs in outputs_of(cfg, model, loader):
        ids, targets = outputs[kfg.IDS], outputs.get(kfg.U_TARGET_IDS)
        scores = outputs[kfg.U_LOGITS].float().reshape(len(ids), -1)
        if scores.shape[1] not in (CHOICES, CHOICES * CHOICES):
            raise UserError(
                f"the model gave {scores.shape[1]} scores per question; VCR has {CHOICES} choices, "
                "so MODEL.MM_PREDICTOR.LABELS_NUM must be 1"
            )
        for row, key in enumerate(ids):
            result = {
                cfg.INFERENCE.ID_KEY: plain_id(key),
                cfg.INFERENCE.VALUE: int(scores[row].argmax()),
                _SCORES: scores[row].tolist(),
            }
            if targets is not None:
                result[kfg.U_TARGET_IDS] = int(targets.reshape(-1)[row])
            results.append(result)
    return results


def _score(
    cfg: "CfgNode",
    evaluator: Any,
    answers: list[dict[str, Any]],
    reasons: list[dict[str, Any]],
    epoch: int,
) -> Any:
    id_key, value = cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE
    answer_scores = {result[id_key]: result.pop(_SCORES) for result in answers}
    chosen = {result[id_key]: result[value] for result in answers}
    all_reasons = {}
    for result in reasons:
        scores = torch.tensor(result.pop(_SCORES)).view(-1, CHOICES)
        if len(scores) == CHOICES:
            key = result[id_key]
            all_reasons[key] = scores.tolist()
            result[value] = int(scores[chosen.get(key, 0)].argmax())
    can_write = getattr(evaluator, "output_dir", "") and hasattr(evaluator, "write_leaderboard")
    if all_reasons and can_write:
        known = {key: answer_scores[key] for key in answer_scores if key in all_reasons}
        name = f"{getattr(evaluator, 'result_prefix', '')}{epoch}_leaderboard.csv"
        evaluator.write_leaderboard(known, all_reasons, name=name)
    return call_evaluator(evaluator, [answers, reasons], epoch)
