"""What most training scripts do before they train."""

import argparse
import json
import logging
import os
import shutil
from typing import TYPE_CHECKING

import torch

from xmodaler.utils import comm
from xmodaler.utils.arguments import default_argument_parser
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.collect_env import collect_env_info
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.logger import setup_logger

from .default_trainer import DefaultTrainer
from .writers import default_writers

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

__all__ = ["DefaultTrainer", "default_argument_parser", "default_setup", "default_writers"]

VOCABULARY_COPY = "vocabulary.txt"
TOKENIZER_COPY = "tokenizer"
ANSWERS_COPY = "answers.json"


def default_setup(cfg: "CfgNode", args: argparse.Namespace) -> None:
    """Make the output folder, set up logging, record the run, and seed.

    Writes ``config.yaml`` and copies of vocabulary, tokenizer and answers into ``OUTPUT_DIR``, so
    that the folder alone is enough to use the model; an evaluation leaves those of the training as
    they are.

    Args:
        cfg: The complete config.
        args: The parsed command line; ``eval_only`` and ``config_file`` are read if present.

    Raises:
        UserError: ``OUTPUT_DIR`` cannot be written.
    """
    eval_only = getattr(args, "eval_only", False)
    rank = comm.get_rank()
    folder = expand_path(cfg.OUTPUT_DIR)
    if folder and comm.is_main_process():
        _make_writable(folder)
    comm.synchronize()
    setup_logger(folder or None, distributed_rank=rank, name="fvcore")
    logger = setup_logger(folder or None, distributed_rank=rank)
    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if getattr(args, "config_file", ""):
        with open(args.config_file, encoding="utf-8") as file:
            logger.info("Contents of %s:\n%s", args.config_file, file.read())
    logger.info("Running with full config:\n%s", cfg)
    if folder and comm.is_main_process():
        _record(cfg, folder, keep_existing=eval_only)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    _set_determinism(cfg, eval_only, logger)


def _make_writable(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
        probe = os.path.join(folder, f".write_test.{os.getpid()}")
        with open(probe, "w", encoding="utf-8"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR '{folder}' cannot be written ({error.strerror}); choose another folder, "
            "such as OUTPUT_DIR ./output."
        ) from error


def _record(cfg: "CfgNode", folder: str, keep_existing: bool) -> None:
    config_path = os.path.join(folder, "config.yaml")
    if not (keep_existing and os.path.exists(config_path)):
        with atomic_write(config_path, "w") as file:
            file.write(cfg.dump())
    vocabulary, target = expand_path(cfg.INFERENCE.VOCAB), os.path.join(folder, VOCABULARY_COPY)
    if os.path.isfile(vocabulary) and not (keep_existing and os.path.exists(target)):
        _copy(vocabulary, target)
    _record_tokenizer(cfg, os.path.join(folder, TOKENIZER_COPY), keep_existing)
    _record_answers(cfg, os.path.join(folder, ANSWERS_COPY), keep_existing)


def _copy(source: str, target: str) -> None:
    if not (os.path.exists(target) and os.path.samefile(source, target)):
        with open(source, "rb") as original, atomic_write(target) as copy:
            shutil.copyfileobj(original, copy)


def _record_tokenizer(cfg: "CfgNode", folder: str, keep_existing: bool) -> None:
    """A tokenizer of the hub is found by its name again, one of this computer is kept."""
    source = expand_path(cfg.MODEL.PRETRAINING.MODEL_NAME)
    if not os.path.exists(source) or (keep_existing and os.path.exists(folder)):
        return
    if os.path.isdir(folder) and os.path.samefile(source, folder):
        return
    from xmodaler.tokenization import BertTokenizer

    lower = cfg.MODEL.PRETRAINING.DO_LOWER_CASE
    BertTokenizer.from_pretrained(source, do_lower_case=lower).save_pretrained(folder)


def _record_answers(cfg: "CfgNode", target: str, keep_existing: bool) -> None:
    if keep_existing and os.path.exists(target):
        return
    from xmodaler.datasets.answer_files import json_or_pickle, label2ans_path, read_label2ans

    try:
        source = json_or_pickle(label2ans_path(cfg))
    except UserError:  # not a model of questions; one that is will miss it on its own
        return
    answers = read_label2ans(source)
    with atomic_write(target, "w") as file:
        json.dump(answers, file, ensure_ascii=False)


def _set_determinism(cfg: "CfgNode", eval_only: bool, logger: logging.Logger) -> None:
    if cfg.DETERMINISTIC:
        # cuBLAS reads this when it starts; without it its results depend on the workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        if cfg.SEED < 0:
            logger.warning("DETERMINISTIC without a SEED: set SEED too to repeat this run.")
    elif not eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
