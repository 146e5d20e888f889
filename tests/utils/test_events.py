"""EventStorage and the three writers."""

import json
import logging

import numpy as np
import pytest
import torch

from xmodaler.utils.errors import UserError
from xmodaler.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)


def test_the_open_storage_is_the_innermost():
    with pytest.raises(AssertionError):
        get_event_storage()
    with EventStorage(3) as outer:
        assert get_event_storage() is outer and outer.iter == outer.iteration == 3
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
        outer.step()
        assert outer.iter == 4


def test_scalars_are_kept_with_their_iteration():
    storage = EventStorage()
    for iteration, value in enumerate([1.0, 5.0, 3.0]):
        storage.iter = iteration
        storage.put_scalars(loss=value, accuracy=value / 10, smoothing_hint=True)
        storage.put_scalar("lr", value, smoothing_hint=False)
    assert storage.latest()["loss"] == (3.0, 2)
    assert storage.latest_with_smoothing_hint(3)["loss"] == (3.0, 2)
    assert storage.latest_with_smoothing_hint(2)["loss"] == (4.0, 2)
    assert storage.latest_with_smoothing_hint(2)["lr"] == (3.0, 2)
    history = storage.history("loss")
    assert history.latest() == 3.0 and history.median(3) == 3.0 and history.avg(2) == 4.0
    assert history.global_avg() == pytest.approx(3.0)
    assert history.values() == [(1.0, 0), (5.0, 1), (3.0, 2)]
    assert storage.smoothing_hints() == {"loss": True, "accuracy": True, "lr": False}
    assert set(storage.histories()) == {"loss", "accuracy", "lr"}
    with pytest.raises(KeyError, match="nope"):
        storage.history("nope")
    with pytest.raises(AssertionError):
        storage.put_scalar("lr", 1.0, smoothing_hint=True)


def test_name_scopes_nest():
    storage = EventStorage()
    with storage.name_scope("val"):
        storage.put_scalar("a", 1)
        with storage.name_scope("ema/"):
            storage.put_scalar("a", 2)
    storage.put_scalar("a", 3)
    assert {name: value for name, (value, _) in storage.latest().items()} == {
        "val/a": 1,
        "val/ema/a": 2,
        "a": 3,
    }


def test_tensors_are_converted_when_read_and_not_before(monkeypatch):
    conversions = []
    for name in ("item", "tolist", "__float__", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *args, _original=original, _name=name: (
                conversions.append(_name) or _original(self, *args)
            ),
        )
    storage = EventStorage()
    loss = torch.tensor(2.0, requires_grad=True)
    for iteration in range(30):
        storage.iter = iteration
        storage.put_scalars(total_loss=loss * iteration, other=torch.tensor([iteration]))
        storage.put_scalar("time", 0.5)
    assert conversions == []
    assert storage.history("total_loss").values() == [(2.0 * i, i) for i in range(30)]
    assert storage.latest()["other"] == (29.0, 29)
    assert storage.latest()["time"] == (0.5, 29)
    # One copy for each dtype, however many scalars were put.
    assert len(conversions) == 2


def test_a_tensor_overwritten_after_it_was_put_keeps_its_value():
    storage = EventStorage()
    buffer = torch.tensor(1.0)
    storage.put_scalar("loss", buffer)
    buffer.fill_(7.0)
    assert storage.latest()["loss"] == (1.0, 0)


def test_double_precision_is_kept():
    storage = EventStorage()
    storage.put_scalar("x", torch.tensor(1 / 3, dtype=torch.float64))
    storage.put_scalar("y", np.float32(0.5))
    assert storage.latest()["x"][0] == 1 / 3 and storage.latest()["y"][0] == 0.5


def test_unread_tensors_do_not_pile_up_for_ever():
    storage = EventStorage()
    for _ in range(10_050):
        storage.put_scalar("x", torch.tensor(1.0))
    assert len(storage._pending) <= 10_000
    assert len(storage.history("x").values()) == 10_050


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_hold_what_is_new_sorted_one_line_per_iteration(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(str(path), window_size=2)
        storage.put_scalars(loss=1.0, acc=2.0)
        writer.write()
        writer.write()
        storage.iter = 4
        storage.put_scalar("val/CIDEr", 0.5, smoothing_hint=False)
        storage.iter = 5
        storage.put_scalar("loss", 3.0)
        writer.write()
        writer.close()
    assert path.read_text().startswith('{"acc": 2.0, "iteration": 0, "loss": 1.0}\n')
    assert lines(path)[1:] == [
        {"iteration": 4, "val/CIDEr": 0.5},
        {"iteration": 5, "loss": 2.0},
    ]


def test_a_scalar_first_put_after_its_iteration_was_written_is_not_lost(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(str(path))
        storage.put_scalar("loss", 1.0)
        writer.write()
        storage.put_scalar("test/CIDEr", 0.5, smoothing_hint=False)
        writer.write()
    assert lines(path)[1] == {"iteration": 0, "test/CIDEr": 0.5}


def test_json_lines_are_appended_behind_what_a_killed_run_left(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0}\n{"iter')
    with EventStorage(1) as storage:
        writer = JSONWriter(path)
        storage.put_scalar("loss", float("nan"))
        writer.write()
        writer.close()
    assert json.loads(path.read_text().splitlines()[-1]) == {"iteration": 1, "loss": None}


def test_a_metrics_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.json' cannot be written"):
        JSONWriter(tmp_path / "no_folder" / "metrics.json")


def test_a_full_disk_is_a_clear_error():
    with EventStorage() as storage:
        writer = JSONWriter("/dev/full")
        storage.put_scalar("loss", 1.0)
        with pytest.raises(UserError, match="'/dev/full' cannot be written: No space left"):
            writer.write()


def test_tensorboard_gets_scalars_images_and_histograms(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with EventStorage() as storage:
        writer = TensorboardXWriter(str(tmp_path), window_size=3)
        for iteration in range(3):
            storage.iter = iteration
            storage.put_scalar("loss", float(iteration))
        storage.put_image("picture", torch.zeros(3, 4, 4, dtype=torch.uint8))
        storage.put_histogram("weights", torch.randn(100), bins=10)
        writer.write()
        assert not storage._vis_data and not storage._histograms
        writer.write()
        writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(2, 1.0)]
    assert len(events.Images("picture")) == 1
    histogram = events.Histograms("weights")[0].histogram_value
    assert histogram.num == 100


def test_a_missing_tensorboard_names_the_remedy(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        TensorboardXWriter(str(tmp_path))


@pytest.fixture
def printed(caplog):
    def line(storage, max_iter=100):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="xmodaler.utils.events"), storage:
            CommonMetricPrinter(max_iter).write()
        return caplog.messages[0] if caplog.messages else None

    logger = logging.getLogger("xmodaler")
    propagate, logger.propagate = logger.propagate, True
    yield line
    logger.propagate = propagate


def test_the_printed_line_has_the_documented_layout(printed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    storage = EventStorage(3)
    storage.put_scalar("data_time", 0.00284)
    storage.put_scalar("total_loss", 3.07312)
    storage.put_scalar("time", 0.26391)
    storage.put_scalar("lr", 0.0005, smoothing_hint=False)
    assert printed(storage, 12) == (
        " eta: 0:00:02  iter: 3  total_loss: 3.073  time: 0.2639  data_time: 0.0028  lr: 0.0005  "
    )
    assert storage.latest()["eta_seconds"][0] == pytest.approx(0.26391 * 8)


def test_every_loss_is_printed_losses_before_metrics(printed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5 * 2**20)
    storage = EventStorage()
    storage.put_scalars(
        **{"Cider": 1.5, "CrossEntropy Loss(G)": 2.0, "RewardCriterion": 0.25, "total_loss": 4.25}
    )
    storage.put_scalar("val/CIDEr", 9.0, smoothing_hint=False)
    assert printed(storage) == (
        " iter: 0  total_loss: 4.25  CrossEntropy Loss(G): 2  RewardCriterion: 0.25  Cider: 1.5  "
        "lr: N/A  max_mem: 5M"
    )


def test_nothing_is_printed_when_training_is_over(printed):
    assert printed(EventStorage(7), max_iter=7) is None
    assert "eta" not in printed(EventStorage(7), max_iter=None)


def test_the_base_writer_must_be_completed():
    with pytest.raises(NotImplementedError):
        EventWriter().write()
    EventWriter().close()
