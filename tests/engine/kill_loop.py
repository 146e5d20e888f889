"""Trains the toy task twice: undisturbed, and killed with SIGKILL at random moments.

Runs as a script of its own because it forks: a fresh interpreter for each attempt would spend its
life importing, and kills would seldom hit the training.
"""

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# Imported by training when it needs them; here once for all sittings.
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401
import toy_parts as toy

from xmodaler.engine import DefaultTrainer

MAX_ATTEMPTS = 300


def train(output_dir: Path, num_workers: int) -> None:
    """One sitting: resume if there is something to resume, and train to the end."""
    cfg = toy.toy_config(
        output_dir,
        DATALOADER__NUM_WORKERS=num_workers,
        SOLVER__EPOCH=8,
        SOLVER__CHECKPOINT_PERIOD_ITERS=2,
        SOLVER__MAX_TO_KEEP=2,
        SOLVER__BEST_METRIC="val/Hash",
        SOLVER__ACCUM_STEPS=2,
        DATALOADER__TRAIN_BATCH_SIZE=2,
        LR_SCHEDULER__NAME="WarmupCosine",
        LR_SCHEDULER__WARMUP=1,
        MODEL__USE_EMA=True,
        MODEL__EMA_DECAY=0.9,
    )
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()


def sitting(output_dir: Path, num_workers: int) -> int:
    """Fork a process that trains; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    with contextlib.suppress(BaseException):
        # The workers must die with the process that is killed.
        os.setpgid(0, 0)
        log = os.open(output_dir / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from xmodaler.utils.env import seed_all_rng

        seed_all_rng(7)
        train(output_dir, num_workers)
        code = 0
    os._exit(code)


def main() -> None:
    folder, num_workers, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    duration = 0.0
    # Twice, since the first time everything is slower.
    for name in ("warm_up", "whole"):
        (folder / name).mkdir(parents=True)
        start = time.monotonic()
        _, status = os.waitpid(sitting(folder / name, num_workers), 0)
        assert status == 0, (folder / name / "child.log").read_text()
        duration = time.monotonic() - start
    (folder / "killed").mkdir()
    chance = random.Random(seed)
    kills = 0
    for _ in range(MAX_ATTEMPTS):
        child = sitting(folder / "killed", num_workers)
        deadline = time.monotonic() + duration * chance.uniform(0.1, 0.35)
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0]:
                break
            time.sleep(0.001)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                kills += 1
                continue
        break
    log = (folder / "killed" / "child.log").read_text()
    assert (folder / "killed" / "model_final.pth").exists(), log[-5000:]
    sittings = log.count("Starting training")
    print(f"undisturbed: {duration:.2f} s, kills: {kills}, sittings that trained: {sittings}")


if __name__ == "__main__":
    main()
