"""Names, periods, and deletion of periodic checkpoints."""

import pytest
import torch
from torch import nn

from xmodaler import checkpoint as ck
from xmodaler.utils.errors import UserError


def files_in(folder):
    return sorted(p.name for p in folder.iterdir() if p.suffix == ".pth")


def make(folder, period=5, **kwargs):
    checkpointer = ck.XmodalerCheckpointer(nn.Linear(1, 1), str(folder))
    return ck.PeriodicEpochCheckpointer(checkpointer, period, **kwargs)


def run(periodic, first, last, per_epoch=5):
    for iteration in range(first, last):
        periodic.step(iteration=iteration, epoch=(iteration + 1) // per_epoch)


def test_names_period_and_final_file(tmp_path):
    run(make(tmp_path, max_iter=10), 0, 10)
    assert files_in(tmp_path) == [
        "model_Epoch_00001_Iter_0000004.pth",
        "model_Epoch_00002_Iter_0000009.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 9


def test_a_run_that_ends_between_periods_still_gets_its_final_file(tmp_path):
    run(make(tmp_path, max_iter=7), 0, 7)
    assert files_in(tmp_path) == ["model_Epoch_00001_Iter_0000004.pth", "model_final.pth"]


def test_plain_names(tmp_path):
    checkpointer = ck.XmodalerCheckpointer(nn.Linear(1, 1), str(tmp_path))
    periodic = ck.PeriodicCheckpointer(checkpointer, 2, max_iter=4, file_prefix="net")
    for iteration in range(4):
        periodic.step(iteration, loss=0.5)
    assert files_in(tmp_path) == ["net_0000001.pth", "net_0000003.pth", "net_final.pth"]
    assert torch.load(tmp_path / "net_0000001.pth", weights_only=True)["loss"] == 0.5


def test_keep_last_counts_files_of_earlier_sittings(tmp_path):
    first = make(tmp_path, max_iter=100, max_to_keep=2)
    run(first, 0, 15)
    assert files_in(tmp_path) == [
        "model_Epoch_00002_Iter_0000009.pth",
        "model_Epoch_00003_Iter_0000014.pth",
    ]
    first.save("mine")
    second = make(tmp_path, max_iter=100, max_to_keep=2)
    run(second, 15, 20)
    assert files_in(tmp_path) == [
        "mine.pth",
        "model_Epoch_00003_Iter_0000014.pth",
        "model_Epoch_00004_Iter_0000019.pth",
    ]
    assert [path.rsplit("_", 1)[1] for path in second.recent_checkpoints] == [
        "0000014.pth",
        "0000019.pth",
    ]


def test_a_new_run_does_not_delete_a_longer_one_in_the_same_folder(tmp_path):
    run(make(tmp_path), 90, 100)
    run(make(tmp_path, max_to_keep=1), 0, 10)
    assert files_in(tmp_path) == [
        "model_Epoch_00002_Iter_0000009.pth",
        "model_Epoch_00019_Iter_0000094.pth",
        "model_Epoch_00020_Iter_0000099.pth",
    ]


def test_minus_one_keeps_all_and_nonsense_is_refused(tmp_path):
    run(make(tmp_path, max_to_keep=-1), 0, 20)
    assert len(files_in(tmp_path)) == 4
    with pytest.raises(UserError, match=r"keep is 0"):
        make(tmp_path, max_to_keep=0)
    with pytest.raises(UserError, match=r"CHECKPOINT_PERIOD\) is 0"):
        make(tmp_path, period=0)
