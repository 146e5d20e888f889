"""Training steps of every model-task with the trainers of this package, and hard negatives."""

import pytest
import torch
from safetensors.torch import load_file

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.config import kfg
from xmodaler.engine.build import ENGINE_REGISTRY
from xmodaler.engine.tden_pretrainer import SIMILARITY, second_batch
from xmodaler.losses import G_SELECTED, U_SELECTED
from xmodaler.utils.events import EventStorage

BATCHES_PER_EPOCH = 2
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
NO_DROPOUT = (
    "BERT.HIDDEN_DROPOUT_PROB",
    "BERT.INTERMEDIATE_DROP",
    "BERT.FFN_DROPOUT_PROB",
    "BERT.ATTENTION_PROBS_DROPOUT_PROB",
    "BERT.LAYER_DROP",
    "BERT.V_LAYER_DROP",
    "BERT.U_LAYER_DROP",
    "TOKEN_EMBED.DROPOUT",
    "VISUAL_EMBED.DROPOUT",
    "MM_PREDICTOR.POOLER_DROPOUT",
)
# The reference lets the score layer of retrieval and its row of the matching head share storage,
# so that training one moves the other; here the row is copied.
SHARED_STORAGE = {"itm_predictor.is_match_cls.weight", "itm_predictor.is_match_cls.bias"}


class Loader:
    """The same batch again and again."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return BATCHES_PER_EPOCH

    def __iter__(self):
        return iter([self.batch] * BATCHES_PER_EPOCH)


def make_trainer(task, output_dir, cfg=None, batches=()):
    """The trainer of a fixture's config on given batches, without dropout."""
    cfg = (cfg or task.cfg).clone()
    for key in NO_DROPOUT:
        node, leaf = key.split(".")
        if leaf in cfg.MODEL.get(node, {}):
            cfg.MODEL[node][leaf] = 0.0
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.DATASETS.VAL = cfg.DATASETS.TEST = ""
    cfg.MODEL.WEIGHTS = str(task.folder / "weights.safetensors")
    trainer = ENGINE_REGISTRY.get(cfg.ENGINE.NAME)(cfg)
    XmodalerCheckpointer(trainer.model).load(cfg.MODEL.WEIGHTS)
    loaders = [Loader(batch) for batch in batches]
    trainer.train_data_loader = loaders if len(loaders) > 1 else loaders[0]
    return trainer


def run(trainer, iterations, before_step=lambda iteration: None):
    """Losses of every update of every iteration, and the learning rates."""
    losses, rates = [], []

    def note(loss_dict, data_time, prefix=""):
        losses[-1].append({name: value.detach().clone() for name, value in loss_dict.items()})

    trainer._write_metrics = note
    trainer.bare_model.bind_or_init_weights()
    trainer.model.train()
    with EventStorage(0) as trainer.storage:
        for trainer.iter in range(iterations):
            before_step(trainer.iter)
            losses.append([])
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            trainer.run_step()
            trainer.scheduler.step()
    return losses, rates


def compare(task, prefix, trainer, losses, rates, start):
    """Losses, learning rates and norms with what the reference had."""
    expected = task.below(f"{prefix}/")
    for iteration, (updates, rate) in enumerate(zip(losses, rates, strict=True)):
        assert rate == pytest.approx(expected.pop(f"{iteration}/lr").item(), rel=1e-5)
        for number, update in enumerate(updates):
            for name, value in update.items():
                reference = expected.pop(f"{iteration}.{number}/loss/{name}")
                torch.testing.assert_close(value, reference, **CLOSE, msg=f"{number} {name}")
    assert not expected, f"not compared: {sorted(expected)}"
    state = trainer.bare_model.state_dict()
    skipped = set(task.meta["unstable_under_rounding"])
    if task.task == "uniter-retrieval":
        skipped |= SHARED_STORAGE
    compared = 0
    for kind in ("delta", "param", "buffer"):
        for name, reference in task.below(f"{prefix}_{kind}_norm/").items():
            if name in skipped:
                continue
            found = state[name].float() - (start[name].float() if kind == "delta" else 0.0)
            torch.testing.assert_close(
                found.norm(), reference, rtol=1e-2, atol=1e-5, msg=f"{kind} {name}"
            )
            compared += 1
    assert compared > 50


def iterations_of(task, prefix):
    return len([key for key in task.below(f"{prefix}/") if key.endswith("/lr")])


def test_steps(model_task, tmp_path):
    """As many iterations as the fixture has, all losses, rates and norms."""
    task = model_task
    names = ["inputs", "inputs_qar"] if task.task.endswith("vcr") else ["inputs"]
    batches = [task.inputs(name) for name in names]
    trainer = make_trainer(task, tmp_path, batches=batches)
    order = task.meta["notes_from_run"].get("steps_task_order")

    def force_task(iteration):
        if order:
            trainer.bare_model.sampling_pool = [order[iteration]]

    start = load_file(str(task.folder / "weights.safetensors"))
    losses, rates = run(trainer, iterations_of(task, "steps"), force_task)
    compare(task, "steps", trainer, losses, rates, start)


@pytest.fixture
def hard(load_task, tmp_path):
    """The fixture of retrieval with hard negatives, its batch and its trainer."""
    task = load_task("uniter-retrieval")
    batch = task.inputs("inputs_hard")
    if kfg.IDS not in batch:
        batch[kfg.IDS] = [str(row) for row in range(len(batch[kfg.U_TOKENS_IDS]))]
    return task, make_trainer(task, tmp_path, task.config("config_hard.yaml"), [batch])


def test_hard_negatives_are_those_of_the_reference(hard):
    """The mined batch, the scores of its pairs and its loss."""
    task, trainer = hard
    trainer.bare_model.bind_or_init_weights()
    trainer.bare_model.eval()
    expected = task.below("hard/in/")
    data = trainer.next_batch()
    mined = trainer.hard_negative_mining(trainer.clip_inputs(data))
    per_image = int(expected.pop(kfg.SAMPLE_PER_SAMPLE))
    assert mined[kfg.SAMPLE_PER_SAMPLE] == per_image
    for key, reference in expected.items():
        found = mined[key]
        if len(found) < len(reference):
            # Pictures are not repeated for their captions.
            found = found.repeat_interleave(per_image, dim=0)
        torch.testing.assert_close(found.to(reference.dtype), reference, msg=key)
    outputs = trainer.bare_model(mined)
    torch.testing.assert_close(
        outputs[kfg.U_LOGITS], task.expected[f"hard/out/{kfg.U_LOGITS}"], **CLOSE
    )
    losses = trainer.losses_of(outputs)
    assert list(losses) == ["Triplet Loss"]
    torch.testing.assert_close(
        losses["Triplet Loss"], task.expected["hard/loss/Triplet Loss"], **CLOSE
    )


def test_hard_negative_steps(hard):
    task, trainer = hard
    start = load_file(str(task.folder / "weights.safetensors"))
    losses, rates = run(trainer, iterations_of(task, "hard_steps"))
    compare(task, "hard_steps", trainer, losses, rates, start)


@pytest.mark.parametrize("training", [False, True])
def test_second_pass_of_pretraining(load_task, tmp_path, training):
    """The words put at masked positions, from all logits and from those of selected positions."""
    task = load_task("tden-pretrain")
    trainer = make_trainer(task, tmp_path, batches=[task.inputs()])
    trainer.model.train(training)
    data = trainer.first_batch()
    with torch.no_grad():
        outputs = trainer.forward(data)
    assert (U_SELECTED in outputs, G_SELECTED in outputs) == (training, training)
    second = second_batch(data, outputs)
    for key, reference in task.below("pass2/in/").items():
        assert torch.equal(second[key], reference), key
    assert second[SIMILARITY] is False and data[SIMILARITY] is True
