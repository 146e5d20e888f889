"""One config of a suite: trained, tested, and written down."""

import argparse
import hashlib
import json
import os
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from xmodaler.config import CfgNode, load_config
from xmodaler.engine.build import build_engine
from xmodaler.engine.defaults import default_setup
from xmodaler.engine.evaluation import call_evaluator, predict
from xmodaler.engine.reproduce.limits import limits_of
from xmodaler.engine.reproduce.lines import score_lines
from xmodaler.engine.reproduce.oracle import oracle_scores
from xmodaler.engine.reproduce.pretraining import score_pretraining
from xmodaler.evaluation.report import read_curves
from xmodaler.modeling import add_config
from xmodaler.utils.atomic import atomic_write

__all__ = ["finished_result", "forget", "read_config", "train_and_test"]

RESULT, FINGERPRINT = "result.json", "fingerprint.txt"
MARKER = "shapes.json"  # lies in every folder of generated data
# Where the configs of generated data say the data are.
_DATA = re.compile(r"(?<![^=,])data/shapes(?=/|$)")


def read_config(config: str, output: str, data: str = "", overrides: Sequence[Any] = ()) -> CfgNode:
    """The config of one run.

    Args:
        config: The config file.
        output: OUTPUT_DIR.
        data: Folder of the generated data, in place of ``data/shapes`` in every path; '' keeps it.
        overrides: ``[KEY, value, ...]``.
    """
    cfg = load_config(config, overrides, add_config)
    for node, key, value in _strings(cfg) if data else ():
        node[key] = _DATA.sub(lambda _: data, value)
    cfg.OUTPUT_DIR = output
    return cfg


def _strings(node: CfgNode) -> Iterator[tuple[CfgNode, str, str]]:
    for key, value in list(node.items()):
        if isinstance(value, CfgNode):
            yield from _strings(value)
        elif isinstance(value, str):
            yield node, key, value


def train_and_test(cfg: CfgNode) -> dict[str, Any]:
    """Train what a config describes, or finish that, and score it on the test split.

    The weights that were best in validation are tested, where ``SOLVER.BEST_METRIC`` kept them.

    Args:
        cfg: From :func:`read_config`; generated data with an oracle.

    Returns:
        ``scores`` and ``oracle`` by metric, ``steps_per_second`` of training, ``parameters``,
        ``iterations``, ``train_seconds`` on the clock and ``train_cpu_seconds`` of this process
        (of its last one, where a run was interrupted). Of captioners also ``share`` of the oracle's
        CIDEr-D and ``captions_per_second`` of decoding the test split (with reading it); of others
        ``chance`` by metric. Also written to ``result.json`` in OUTPUT_DIR.
    """
    tested = cfg.clone()
    training = cfg.clone()
    training.DATASETS.TEST = ""  # tested below, once, and timed
    for node in (tested, training):
        node.freeze()
    default_setup(tested, argparse.Namespace())
    trainer = build_engine(training)
    trainer.resume_or_load(resume=_is_same_run(cfg))
    start, cpu_start = time.perf_counter(), time.process_time()
    trainer.train()
    train_seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - cpu_start

    best = Path(trainer.output_dir, "model_best.pth")
    if cfg.SOLVER.BEST_METRIC and best.is_file():
        trainer.checkpointer.load(str(best), checkpointables=[])
    metrics = os.path.join(trainer.output_dir, "metrics.json")
    step_seconds = [s for _, s in read_curves(metrics).get("time", ())]
    result = {
        "fingerprint": fingerprint(cfg),
        **_test(tested, trainer),
        "steps_per_second": 1 / statistics.median(step_seconds) if step_seconds else None,
        "parameters": sum(p.numel() for p in trainer.bare_model.parameters()),
        "iterations": trainer.max_iter,
        "train_seconds": train_seconds,
        "train_cpu_seconds": cpu_seconds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    with atomic_write(os.path.join(trainer.output_dir, RESULT), "w") as file:
        json.dump(result, file, indent=1)
    return result


def _test(cfg: CfgNode, trainer: Any) -> dict[str, Any]:
    """The scores of the test split, and what they are held against."""
    if cfg.ENGINE.NAME == "X2VLMPretrainer":
        return score_lines(cfg, trainer.bare_model)
    if "Pretrain" in cfg.MODEL.META_ARCHITECTURE:
        return score_pretraining(cfg, trainer.bare_model)
    loader = trainer.build_test_loader(cfg)
    evaluator = trainer.build_evaluator(cfg, "test")
    if cfg.INFERENCE.NAME != "COCOEvaler":
        scores = trainer.test(cfg, trainer.bare_model, loader, evaluator, -1)
        return {"scores": _fractions(scores), **limits_of(cfg)}
    start = time.perf_counter()
    results = predict(cfg, trainer.bare_model, loader)
    decode_seconds = time.perf_counter() - start
    scores = call_evaluator(evaluator, results, -1)
    oracle = oracle_scores(cfg.INFERENCE.TEST_ANNFILE)
    return {
        "scores": scores,
        "oracle": {name: oracle[name] for name in scores if name in oracle},
        "share": scores["CIDEr-D"] / oracle["CIDEr-D"],
        "captions_per_second": len(results) / decode_seconds,
    }


def _fractions(scores: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among the metrics; recalls, which come in percent, as fractions."""
    return {
        name: value / 100 if "R@" in name else value
        for name, value in scores.items()
        if isinstance(value, int | float)
    }


def _is_same_run(cfg: CfgNode) -> bool:
    """Whether OUTPUT_DIR holds a run of this config on these data; from now on it does."""
    path, own = Path(cfg.OUTPUT_DIR, FINGERPRINT), fingerprint(cfg)
    same = path.is_file() and path.read_text(encoding="utf-8") == own
    with atomic_write(path, "w") as file:
        file.write(own)
    return same


def forget(output: str | os.PathLike[str]) -> None:
    """Let the next run in a folder start anew."""
    for name in (FINGERPRINT, RESULT):
        Path(output, name).unlink(missing_ok=True)


def finished_result(cfg: CfgNode) -> dict[str, Any] | None:
    """The result of an earlier run in OUTPUT_DIR with the same config and data, if there is one."""
    try:
        result = json.loads(Path(cfg.OUTPUT_DIR, RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(result, dict) and result.get("fingerprint") == fingerprint(cfg)
    return result if same else None


def fingerprint(cfg: CfgNode) -> str:
    """Changes with the config and with how the data were generated, not with where things lie.

    Weights to start from count as the run that made them, where they lie in the folder of one.
    """
    same_place = cfg.clone()
    same_place.defrost()
    same_place.OUTPUT_DIR = ""
    weights = Path(cfg.MODEL.WEIGHTS).parent / FINGERPRINT
    if cfg.MODEL.WEIGHTS and weights.is_file():
        same_place.MODEL.WEIGHTS = weights.read_text(encoding="utf-8")
    data = data_folder(cfg)
    made = b""
    if data is not None:
        made = (data / MARKER).read_bytes()
        for node, key, value in _strings(same_place):
            node[key] = value.replace(str(data), "data")
    return hashlib.sha256(same_place.dump().encode() + made).hexdigest()


def data_folder(cfg: CfgNode) -> Path | None:
    """The folder of the generated data that a config names; None where it does not exist."""
    for _, _, value in _strings(cfg.DATALOADER):
        path = Path(value)
        for folder in (path, *path.parents) if value else ():
            if (folder / MARKER).is_file():
                return folder
    return None
