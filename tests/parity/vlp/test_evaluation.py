"""Evaluation by the trainers, from data in the released formats to metrics."""

import numpy as np
import pytest
from safetensors.torch import load_file

from xmodaler.engine import build_engine
from xmodaler.engine.pair_evaluation import read_pool
from xmodaler.engine.retrieval_evaluation import encode


def make_trainer(task, output_dir):
    """The trainer of a fixture with its weights, bound where the reference binds them."""
    cfg = task.cfg.clone()
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.MODEL.WEIGHTS = str(task.folder / "weights.safetensors")
    trainer = build_engine(cfg)
    trainer.resume_or_load(resume=False)
    trainer.bare_model.bind_or_init_weights()
    return trainer


def evaluate(trainer):
    return trainer.test(
        trainer.cfg, trainer.model, trainer.val_data_loader, trainer.val_evaluator, -1
    )


def test_two_stream_retrieval(load_task, tmp_path):
    """The vectors and the recalls of text to image."""
    task = load_task("tden-retrieval")
    trainer = make_trainer(task, tmp_path)
    vectors = encode(trainer.cfg, trainer.bare_model, trainer.val_data_loader)
    for found, key in ((vectors.images, "vfeats"), (vectors.texts, "tfeats")):
        reference = task.expected[f"val/{key}"].numpy()
        np.testing.assert_allclose(found.numpy(), reference, atol=1e-4, rtol=1e-4)
    assert vectors.image_ids == [image for image, _ in task.meta["ids"]["inputs_val"]]
    metrics = evaluate(trainer)
    for name, value in task.below("val/metric/").items():
        assert metrics[name] == pytest.approx(value.item(), rel=1e-5), name


def test_single_stream_retrieval(load_task, tmp_path):
    """Every picture's features as the fixture has them, and the recalls."""
    task = load_task("uniter-retrieval")
    trainer = make_trainer(task, tmp_path)
    pool = read_pool(trainer.cfg, trainer.val_data_loader)
    inputs = load_file(str(task.folder / "inputs_val.safetensors"))
    assert pool.text_image.tolist() == inputs["MATCHED_IMG"].tolist()
    metrics = evaluate(trainer)
    for name, value in task.below("val/metric/").items():
        assert metrics[name] == pytest.approx(value.item(), rel=1e-5), name


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("tden-vqa", {"accuracy"}),
        ("uniter-vqa", {"accuracy"}),
        ("tden-vcr", {"Q -> A", "QA -> R", "Q -> AR"}),
        ("uniter-vcr", {"Q -> A", "QA -> R", "Q -> AR"}),
    ],
)
def test_answers_and_choices(load_task, tmp_path, name, keys):
    metrics = evaluate(make_trainer(load_task(name), tmp_path))
    assert keys <= set(metrics)
    assert all(0 <= metrics[key] <= 1 for key in keys)
