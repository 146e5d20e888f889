"""From folders and files to a captioner."""

import os
import shutil

import numpy as np
import pytest
import torch

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.config import get_cfg
from xmodaler.inference import load
from xmodaler.utils.errors import UserError

FEATURES = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


@pytest.fixture
def run(feature_run, tmp_path):
    return shutil.copytree(feature_run, tmp_path / "run")


def weights_used(run):
    return os.path.basename(load(run, device="cpu").weights)


def test_which_weights_of_a_folder(run):
    assert weights_used(run) == "model_final.pth"
    (run / "model_final.pth").rename(run / "model_Epoch_00001_Iter_0000010.pth")
    (run / "last_checkpoint").write_text("model_Epoch_00001_Iter_0000010.pth")
    assert weights_used(run) == "model_Epoch_00001_Iter_0000010.pth"
    (run / "last_checkpoint").write_text("deleted.pth")
    assert weights_used(run) == "model_Epoch_00001_Iter_0000010.pth"
    shutil.copy(run / "model_Epoch_00001_Iter_0000010.pth", run / "model_best.pth")
    assert weights_used(run) == "model_best.pth"
    shutil.copy(run / "model_best.pth", run / "model_other.pth")
    (run / "best_checkpoint").write_text("model_other.pth\n")
    assert weights_used(run) == "model_other.pth"


def test_a_weights_file_beside_its_config_or_not(run, tmp_path):
    expected = load(run, device="cpu").caption(FEATURES)[0]
    assert load(run / "model_final.pth", device="cpu").caption(FEATURES)[0] == expected
    alone = tmp_path / "alone.pth"
    shutil.copy(run / "model_final.pth", alone)
    with pytest.raises(UserError, match=r"config.*does not exist; name one: load"):
        load(alone, device="cpu")
    os.rename(run / "vocabulary.txt", tmp_path / "vocabulary.txt")
    caption = load(alone, device="cpu", config=run / "config.yaml").caption(FEATURES)[0]
    assert caption == expected


def test_safetensors(run):
    from safetensors.torch import save_file

    expected = load(run, device="cpu").caption(FEATURES)[0]
    state = torch.load(run / "model_final.pth", weights_only=True)["model"]
    save_file({key: value.clone() for key, value in state.items()}, run / "model.safetensors")
    (run / "model_final.pth").unlink()
    assert load(run, device="cpu").caption(FEATURES)[0] == expected


def test_the_folder_can_be_moved(run, tmp_path):
    # The config names a vocabulary that is gone; the copy in the folder is taken.
    moved = run.rename(tmp_path / "elsewhere")
    assert load(moved, device="cpu").caption(FEATURES)[0].text


def test_a_config_object(run):
    cfg = load(run, device="cpu").cfg
    cfg.MODEL.MAX_SEQ_LEN = 3
    captioner = load(run, device="cpu", config=cfg)
    assert len(captioner.caption(FEATURES)[0].words) <= 3


def test_what_is_missing_is_named(run, tmp_path):
    with pytest.raises(UserError, match=r"nowhere' does not exist; give an output folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no weights"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"other\.yaml' does not exist; check the path"):
        load(run, config=run / "other.yaml")
    (run / "vocabulary.txt").unlink()
    with pytest.raises(UserError, match=r"INFERENCE\.VOCAB"):
        load(run, device="cpu").caption(FEATURES)


def test_weights_that_do_not_fit(run):
    cfg = load(run, device="cpu").cfg
    cfg.MODEL.DECODER_DIM = 24
    with pytest.raises(UserError, match=r"do not fit the config: .* have another shape"):
        load(run, device="cpu", config=cfg)
    state = torch.load(run / "model_final.pth", weights_only=True)["model"]
    state.pop(next(iter(state)))
    torch.save({"model": state}, run / "model_final.pth")
    with pytest.raises(UserError, match="1 of the model's weights are missing"):
        load(run, device="cpu")
    (run / "model_final.pth").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"model_final\.pth"):
        load(run, device="cpu")


def test_a_config_of_no_model(run):
    (run / "config.yaml").write_text(get_cfg().dump())
    with pytest.raises(UserError):
        load(run, device="cpu")


def test_an_unknown_device(run):
    with pytest.raises(UserError):
        load(run, device="abacus")


def test_extra_weights_are_no_obstacle(run):
    captioner = load(run, device="cpu")
    checkpointer = XmodalerCheckpointer(captioner.model, str(run))
    state = captioner.model.state_dict() | {"head_of_another_task.weight": torch.ones(2)}
    torch.save({"model": state}, run / "model_final.pth")
    assert checkpointer.has_checkpoint()
    assert load(run, device="cpu").caption(FEATURES)[0].text
