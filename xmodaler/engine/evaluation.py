"""The evaluation loop: a model, a loader, an evaluator, and any number of processes."""

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from xmodaler.config import kfg
from xmodaler.datasets import bad_samples
from xmodaler.datasets.tasks.vqa import candidate_answers
from xmodaler.modeling.stage_keys import SCORES_ONLY
from xmodaler.utils import comm

from .precision import autocast

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

logger = logging.getLogger(__name__)


@torch.inference_mode()
def outputs_of(
    cfg: "CfgNode",
    model: torch.nn.Module,
    loader: Any,
    call: Callable[..., dict[str, Any]] | None = None,
    **arguments: Any,
) -> Iterator[dict[str, Any]]:
    """What ``model`` makes of every batch of this rank's part of the data, in evaluation mode.

    Models may leave out hidden states, which no evaluator reads.

    Args:
        cfg: The config; reads SOLVER.PRECISION.
        model: The model, without a distributed wrapper; put back in its mode afterwards.
        loader: Yields batches or lists of samples.
        call: What is called with every batch in place of the model.
        arguments: Keyword arguments of the model.
    """
    device = next(model.parameters()).device
    with eval_mode(model):
        for batch in with_progress(cfg, loader):
            batch = bad_samples.check(batch)
            if batch is None:
                continue
            batch = {**model.preprocess_batch(batch), SCORES_ONLY: True}
            with autocast(cfg.SOLVER.PRECISION, device):
                outputs = (call or model)(batch, **arguments)
            yield outputs


def predict(
    cfg: "CfgNode", model: torch.nn.Module, loader: Any, truth_keys: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Run ``model`` over this rank's part of the data.

    Under INFERENCE.GENERATION_MODE sentences are decoded with the beam searcher, otherwise the
    model's plain output is taken, both in the precision of training.

    Args:
        cfg: The config; reads INFERENCE.{ID_KEY, VALUE, GENERATION_MODE} and SOLVER.PRECISION.
        model: The model, without a distributed wrapper; put back in its mode afterwards.
        loader: Yields batches or lists of samples.
        truth_keys: Keys of batches, with an entry a record, that results bring along where the
            data have them: what the evaluator compares with.

    Returns:
        One ``{ID_KEY: id, VALUE: output}`` per record; ids made of digits become integers.
    """
    arguments = (
        {"use_beam_search": True, "output_sents": True} if cfg.INFERENCE.GENERATION_MODE else {}
    )
    results = []
    for outputs in outputs_of(cfg, model, loader, **arguments):
        truth = {key: outputs[key] for key in truth_keys if key in outputs}
        for row, (key, value) in enumerate(zip(outputs[kfg.IDS], outputs[kfg.OUTPUT], strict=True)):
            result = {cfg.INFERENCE.ID_KEY: plain_id(key), cfg.INFERENCE.VALUE: _plain(value)}
            result.update((name, _plain(values[row])) for name, values in truth.items())
            results.append(result)
    return results


def evaluate(
    cfg: "CfgNode", model: torch.nn.Module, loader: Any, evaluator: Any, epoch: int
) -> dict[str, Any]:
    """Predict on every rank, score on the main one, and return the metrics on all of them.

    Args:
        cfg: The config.
        model: The model, possibly inside a distributed wrapper.
        loader: Yields this rank's part of the data, in batches.
        evaluator: Has ``eval(results, epoch)`` or ``eval(results)``; None scores nothing. What
            its ``truth_keys`` name is added to the results.
        epoch: Number for the names of result files; -1 outside of training.

    Returns:
        What the evaluator returned; ``{}`` where that is no dict.
    """
    truth_keys = getattr(evaluator, "truth_keys", ())
    model = comm.unwrap_model(model)
    if hasattr(model, "set_answers") and not model.has_answers:
        model.set_answers(*candidate_answers(cfg))
    results = predict(cfg, model, loader, truth_keys)
    results = gather_results(results, cfg.INFERENCE.ID_KEY)
    return on_all_ranks(
        lambda: call_evaluator(evaluator, results, epoch) if evaluator is not None else {}
    )


def on_all_ranks(score: Callable[[], Any]) -> dict[str, Any]:
    """The metrics that ``score`` computes on the main process, on all of them; {} for no dict."""
    metrics = score() if comm.is_main_process() else {}
    if comm.get_world_size() > 1:
        metrics = comm.all_gather(metrics)[0]
    return dict(metrics) if isinstance(metrics, Mapping) else {}


def gather_results(results: list[dict[str, Any]], id_key: str) -> list[dict[str, Any]]:
    """The results of all ranks, in rank order, on the main process; ``[]`` on the others.

    A record that an earlier rank has predicted too, because a loader did not share the data out,
    is left out.
    """
    if comm.get_world_size() == 1:
        return results
    merged: list[dict[str, Any]] = []
    seen: set[Any] = set()
    for shard in comm.gather(results):
        merged.extend(result for result in shard if result[id_key] not in seen)
        seen.update(result[id_key] for result in shard)
    return merged


def call_evaluator(evaluator: Any, results: Any, epoch: int, *more: Any) -> Any:
    """``evaluator.eval(results, *more, epoch)``, or without the epoch where it takes none."""
    parameters = inspect.signature(evaluator.eval).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(positional) > 1 + len(more) or takes_any:
        return evaluator.eval(results, *more, epoch)
    return evaluator.eval(results, *more)


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards the model is in its mode again."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def with_progress(cfg: "CfgNode", loader: Any) -> Any:
    """``loader`` behind a bar where somebody looks: on a terminal, or when the config says so."""
    if not comm.is_main_process() or not (cfg.SOLVER.PROGRESS_BAR or sys.stderr.isatty()):
        return loader
    from tqdm import tqdm

    return tqdm(loader, desc="evaluate", unit="batch", dynamic_ncols=True)


def plain_id(key: Any) -> int | str:
    """``key`` as an integer if it is one in disguise, as COCO ids are, else as a string."""
    if isinstance(key, torch.Tensor):
        key = key.item()
    try:
        return int(key)
    except ValueError:
        return str(key)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value
