"""Training and prediction in a loop of the user's own, and functions run in several processes."""

import subprocess
import sys

import pytest
import torch

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.config import kfg, load_config
from xmodaler.datasets import build_xmodaler_train_loader, build_xmodaler_valtest_loader
from xmodaler.losses import CrossEntropy
from xmodaler.modeling import add_config, build_model
from xmodaler.utils.events import EventStorage, get_event_storage


@pytest.fixture
def cfg(coco):
    return load_config(coco.config, [], add_config)


def test_train_save_resume_and_predict(coco, cfg):
    model = build_model(cfg)
    checkpointer = XmodalerCheckpointer(model, cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    loss, losses = CrossEntropy(), []
    with EventStorage(start_iter=0) as storage:
        for _ in range(3):
            for inputs in build_xmodaler_train_loader(cfg):
                # The dict of samples carries no SS_PROB: no scheduled sampling.
                outputs_dict = model(model.preprocess_batch(inputs))
                losses_dict = loss(outputs_dict)
                total = sum(losses_dict.values())
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
                get_event_storage().put_scalars(total_loss=total, smoothing_hint=True)
                storage.step()
                losses.append(total.item())
    assert storage.iter == len(losses) == 9 and losses[-1] < losses[0]
    assert storage.latest()["total_loss"][0] == pytest.approx(losses[-1])
    checkpointer.save("model_00")
    assert (coco.root / "output" / "last_checkpoint").read_text() == "model_00.pth"

    resumed = build_model(cfg)
    XmodalerCheckpointer(resumed, cfg.OUTPUT_DIR).resume_or_load("", resume=True)
    results = []
    for network in (model, resumed):
        network.eval()
        samples = next(iter(build_xmodaler_valtest_loader(cfg, stage="test")))
        with torch.no_grad():
            inputs = network.preprocess_batch(samples)
            plain = network({**inputs, kfg.G_TOKENS_IDS: torch.tensor([[0, 1, 2], [0, 3, 4]])})
            outputs = network(inputs, use_beam_search=True, output_sents=True)
        assert plain[kfg.G_LOGITS].shape == (2, 3, cfg.MODEL.VOCAB_SIZE)
        assert kfg.OUTPUT not in inputs, "the batch of the caller was edited"
        assert outputs[kfg.IDS] == ["300", "301"]
        results.append((outputs[kfg.OUTPUT], outputs[kfg.G_SENTS_IDS], plain[kfg.G_LOGITS]))
    assert results[0][0] == results[1][0] and len(results[0][0]) == 2
    assert all(isinstance(sentence, str) for sentence in results[0][0])
    assert torch.equal(results[0][1], results[1][1]) and torch.equal(results[0][2], results[1][2])


@pytest.mark.parametrize("search", [False, True])
def test_captions_of_unsorted_batches_of_every_size(cfg, search):
    """A picture's caption does not depend on its company."""
    model = build_model(cfg).eval()
    loader = build_xmodaler_valtest_loader(cfg, stage="test")
    samples = [sample for batch in loader for sample in batch]
    assert len(samples) == 5
    with torch.no_grad():
        together = model(model.preprocess_batch(samples[::-1]), search, True)[kfg.OUTPUT]
        alone = [model(model.preprocess_batch([s]), search, True)[kfg.OUTPUT][0] for s in samples]
    assert together[::-1] == alone


LAUNCHED = """
import argparse
import torch
from xmodaler.engine import launch
from xmodaler.utils import comm

def main(args):
    gathered = comm.all_gather({"rank": comm.get_rank(), "word": args.word})
    total = torch.tensor([comm.get_rank() + 1.0])
    torch.distributed.all_reduce(total)
    comm.synchronize()
    if comm.is_main_process():
        print(comm.get_world_size(), [entry["rank"] for entry in gathered], total.item(),
              gathered[1]["word"], comm.get_local_rank(), comm.get_local_size())

if __name__ == "__main__":
    launch(main, 2, num_machines=1, machine_rank=0, dist_url="auto",
           args=(argparse.Namespace(word="hello"),), device="cpu")
"""


@pytest.mark.slow
def test_launch_on_two_cpu_processes(tmp_path, environment):
    script = tmp_path / "user_script.py"
    script.write_text(LAUNCHED)
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 [0, 1] 3.0 hello 0 2\n"


def test_launch_of_one_process_calls_the_function():
    from xmodaler.engine import launch

    assert launch(lambda *values: sum(values), 1, args=(1, 2)) == 3
