"""DefaultTrainer on the toy task, in this process."""

import json

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.engine import (
    CallbackHook,
    DefaultTrainer,
    ModelEma,
    build_engine,
    hooks,
)
from xmodaler.engine.build import ENGINE_REGISTRY
from xmodaler.engine.precision import Precision
from xmodaler.losses import build_losses
from xmodaler.modeling import build_model
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError
from xmodaler.utils.events import EventStorage

EPOCH = 6  # iterations: 24 images, batches of 4


@pytest.fixture
def make(toy, tmp_path):
    """Builds a seeded trainer whose output folder is ``tmp_path / name``."""

    def build(name="run", trainer_class=DefaultTrainer, **changes):
        cfg = toy.toy_config(tmp_path / name, **changes)
        cfg.freeze()
        seed_all_rng(cfg.SEED)
        return trainer_class(cfg)

    return build


def weights(trainer):
    model = trainer.checkpointer.model
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(left, right, **tolerance):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], msg=name, **tolerance)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_documented_three_lines_train(make, tmp_path):
    trainer = make()
    trainer.resume_or_load()
    metrics = trainer.train()
    assert metrics["val/nested/Count"] == 7
    assert {"total_loss", "CrossEntropy Loss(G)", "lr", "val/Hash", "test/Hash"} <= set(metrics)
    assert all(type(value) is float for value in metrics.values())
    names = {path.name for path in (tmp_path / "run").iterdir() if "tfevents" not in path.name}
    assert names == {
        "evaluated.txt",
        "last_checkpoint",
        "metrics.json",
        "model_Epoch_00001_Iter_0000005.pth",
        "model_Epoch_00002_Iter_0000011.pth",
        "model_final.pth",
    }
    assert trainer.iter == trainer.max_iter == 2 * EPOCH


def test_hooks_in_the_documented_order(make):
    trainer = make(MODEL__USE_EMA=True)
    mine = CallbackHook()
    trainer.register_hooks([mine])
    names = [type(hook).__name__ for hook in trainer._hooks]
    assert names == [
        "IterationTimer",
        "LRScheduler",
        "ScheduledSampling",
        "ModelWeightsManipulating",
        "PeriodicCheckpointer",
        *["EvalHook"] * 4,
        "PeriodicWriter",
        "CallbackHook",
    ]
    stages = [hook.stage for hook in trainer._hooks if isinstance(hook, hooks.EvalHook)]
    assert stages == ["val", "val_ema", "test", "test_ema"]


def test_metrics_file(make, tmp_path):
    make(SOLVER__WRITE_PERIOD=4).train()
    lines = lines_of(tmp_path / "run")
    assert [line["iteration"] for line in lines] == [3, 5, 7, 11]
    assert all(
        {"total_loss", "CrossEntropy Loss(G)", "data_time", "lr"} <= set(lines[i])
        for i in (0, 2, 3)
    )
    evaluations = [line for line in lines if "val/Hash" in line]
    assert [line["iteration"] for line in evaluations] == [5, 11]
    assert all("test/nested/Count" in line for line in evaluations)


def test_each_epoch_is_evaluated_once(make, tmp_path):
    make().train()
    epochs = [line.split()[0] for line in (tmp_path / "run" / "evaluated.txt").open()]
    assert epochs == ["1", "2"]


def test_evaluators_that_write_files_are_told_the_stage(make, tmp_path, monkeypatch, toy):
    written = []

    def evaluate(self, results, epoch):
        written.append((self.output_dir, f"{self.result_prefix}{epoch}"))
        return {}

    monkeypatch.setattr(toy.ToyEvaler, "result_prefix", "", raising=False)
    monkeypatch.setattr(toy.ToyEvaler, "eval", evaluate)
    make(SOLVER__EPOCH=1, MODEL__USE_EMA=True).train()
    folder = str(tmp_path / "run")
    assert written == [(folder, name) for name in ("val_1", "val_ema_1", "1", "test_ema_1")]


def test_evaluation_needs_no_training_data(make, monkeypatch):
    trainer = make(DATASETS__TRAIN="NoSuchDataset")
    trainer.resume_or_load(resume=False)
    result = trainer.test(
        trainer.cfg, trainer.model, trainer.test_data_loader, trainer.test_evaluator, -1
    )
    assert result["nested"]["Count"] == 7
    assert trainer.model.training


def test_training_without_data_is_explained(make):
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN is ''"):
        make(DATASETS__TRAIN="").train()


def test_resuming_continues_bit_for_bit(make, toy, tmp_path):
    changes = {"MODEL__USE_EMA": True, "MODEL__EMA_DECAY": 0.8, "SOLVER__EPOCH": 3}
    changes["SOLVER__BEST_METRIC"] = "val/Hash"
    whole = make("whole", **changes)
    whole.train()

    class Stopped(Exception):
        pass

    def stop(trainer):
        if trainer.iter == EPOCH + 2:
            raise Stopped

    first = make("parts", SOLVER__CHECKPOINT_PERIOD_ITERS=4, **changes)
    first.register_hooks([CallbackHook(before_step=stop)])
    with pytest.raises(Stopped):
        first.train()
    torch.manual_seed(99)
    second = make("parts", SOLVER__CHECKPOINT_PERIOD_ITERS=4, **changes)
    second.resume_or_load(resume=True)
    assert second.start_iter == 8
    second.train()

    expected = torch.load(tmp_path / "whole" / "model_final.pth", weights_only=True)
    found = torch.load(tmp_path / "parts" / "model_final.pth", weights_only=True)
    assert toy.differences(expected, found) == []
    iterations = [line["iteration"] for line in lines_of(tmp_path / "parts")]
    assert iterations == list(range(3 * EPOCH))


def test_resuming_a_finished_run_does_nothing(make, tmp_path):
    first = make().train()
    before = (tmp_path / "run" / "model_final.pth").read_bytes()
    trainer = make()
    trainer.resume_or_load(resume=True)
    metrics = trainer.train()
    assert metrics["test/Hash"] == first["test/Hash"]
    assert len((tmp_path / "run" / "evaluated.txt").read_text().splitlines()) == 2
    assert (tmp_path / "run" / "model_final.pth").read_bytes() == before


def test_raising_the_number_of_epochs_continues(make, tmp_path):
    make().train()
    trainer = make(SOLVER__EPOCH=3)
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert trainer.start_iter == 2 * EPOCH
    lines = [line["iteration"] for line in lines_of(tmp_path / "run")]
    assert lines == list(range(3 * EPOCH))


def test_a_new_run_in_the_same_folder_starts_its_metrics_anew(make, tmp_path):
    make().train()
    trainer = make(SOLVER__EPOCH=1)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert [line["iteration"] for line in lines_of(tmp_path / "run")] == list(range(EPOCH))


def test_max_iter_replaces_epochs_and_the_end_is_evaluated(make, tmp_path):
    trainer = make(SOLVER__MAX_ITER=8)
    metrics = trainer.train()
    assert trainer.iter == 8
    assert (tmp_path / "run" / "model_final.pth").exists()
    epochs = [line.split()[0] for line in (tmp_path / "run" / "evaluated.txt").open()]
    assert epochs == ["1", "1"]
    assert "val/Hash" in metrics
    # The last evaluation belongs to the state: resuming does not repeat it.
    again = make(SOLVER__MAX_ITER=8)
    again.resume_or_load(resume=True)
    again.train()
    assert len((tmp_path / "run" / "evaluated.txt").read_text().splitlines()) == 2


def test_keep_last_and_best(make, tmp_path):
    trainer = make(
        SOLVER__EPOCH=5,
        SOLVER__MAX_TO_KEEP=2,
        SOLVER__BEST_METRIC="val_ema/Hash",
        SOLVER__BEST_MODE="min",
        MODEL__USE_EMA=True,
        MODEL__EMA_DECAY=0.5,
    )
    seen = []

    def note(trainer):
        if (trainer.iter + 1) % EPOCH == 0:
            hook = trainer._hooks[6]
            seen.append(
                (hook.metrics["val_ema/Hash"], trainer.iter, trainer.ema.module.state_dict())
            )
            seen[-1][2].update({k: v.clone() for k, v in seen[-1][2].items()})

    trainer.register_hooks([CallbackHook(after_step=note)])
    trainer.train()
    names = sorted(path.name for path in (tmp_path / "run").glob("model_*"))
    assert names == [
        "model_Epoch_00004_Iter_0000023.pth",
        "model_Epoch_00005_Iter_0000029.pth",
        "model_best.pth",
        "model_final.pth",
    ]
    best = min(seen, key=lambda item: item[0])
    saved = torch.load(tmp_path / "run" / "model_best.pth", weights_only=True)
    assert saved["iteration"] == best[1]
    assert saved["metric"] == {"name": "val_ema/Hash", "value": best[0]}
    assert_same_weights(dict(saved["model"]), best[2])
    assert (tmp_path / "run" / "best_checkpoint").read_text() == "model_best.pth"
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SOLVER__BEST_METRIC": "val/Hahs"}, "did you mean 'val/Hash'"),
        ({"SOLVER__BEST_METRIC": "dev/Hash"}, "evaluations of this run are val, test"),
        ({"SOLVER__BEST_METRIC": "val/Hash", "SOLVER__BEST_MODE": "up"}, "BEST_MODE is 'up'"),
        ({"SOLVER__PRECISION": "int4"}, "SOLVER.PRECISION is 'int4'"),
        ({"SOLVER__ACCUM_STEPS": 7}, "SOLVER.ACCUM_STEPS is 7"),
        ({"DATALOADER__TRAIN_BATCH_SIZE": 25}, "TRAIN_BATCH_SIZE"),
        ({"SOLVER__NAME": "Adamm"}, "did you mean 'Adam'"),
        ({"LR_SCHEDULER__NAME": "StpLR"}, "did you mean 'StepLR'"),
        ({"DATASETS__VAL": "ToyDatset"}, "did you mean 'ToyDataset'"),
        ({"LOSSES__NAMES": ["CrossEntrpy"]}, "did you mean 'CrossEntropy'"),
        ({"INFERENCE__NAME": "ToyEvaller"}, "did you mean 'ToyEvaler'"),
    ],
)
def test_mistakes_are_one_sentence(make, changes, message):
    with pytest.raises(UserError) as caught:
        make(**changes).train()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["VOCAB", "VAL_ANNFILE"])
def test_files_of_the_evaluation_are_missed_before_training(make, key):
    changes = {f"INFERENCE__{key}": "nowhere.json"}
    if key == "VAL_ANNFILE":
        changes["INFERENCE__NAME"] = "COCOEvaler"
    trainer = make(**changes)
    with pytest.raises(UserError, match=r"nowhere\.json"):
        trainer.train()
    assert trainer.storage is None


def test_unknown_engine_is_named(toy, tmp_path):
    cfg = toy.toy_config(tmp_path / "run", ENGINE__NAME="DefaultTrainr")
    with pytest.raises(KeyError, match="did you mean 'DefaultTrainer'"):
        build_engine(cfg)
    cfg.ENGINE.NAME = "DefaultTrainer"
    assert isinstance(build_engine(cfg), DefaultTrainer)
    assert "DefaultTrainer" in ENGINE_REGISTRY


def test_accumulated_batches_equal_one_large_batch(make):
    quiet = {"DATASETS__TRAIN": "QuietToyDataset", "MODEL__PRED_DROPOUT": 0.0}
    quiet["SCHEDULED_SAMPLING__MAX_PROB"] = 0.0
    large = make("large", DATALOADER__TRAIN_BATCH_SIZE=8, **quiet)
    small = make("small", DATALOADER__TRAIN_BATCH_SIZE=2, SOLVER__ACCUM_STEPS=4, **quiet)
    for trainer in (large, small):
        # The sampler cuts the same permutation into smaller batches.
        trainer.train()
    assert small.iters_per_epoch == large.iters_per_epoch == 3
    assert_same_weights(weights(small), weights(large), rtol=1e-4, atol=1e-5)
    losses = [t.storage.history("total_loss").values() for t in (small, large)]
    for (left, _), (right, _) in zip(*losses, strict=True):
        assert left == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_close_to_full(make, precision):
    changes = {"MODEL__PRED_DROPOUT": 0.0, "SCHEDULED_SAMPLING__MAX_PROB": 0.0}
    full = make("full", **changes)
    reduced = make("reduced", SOLVER__PRECISION=precision, **changes)
    full.train()
    reduced.train()
    assert all(tensor.dtype == torch.float32 for tensor in weights(reduced).values())
    left, right = (t.storage.history("total_loss").global_avg() for t in (full, reduced))
    assert left != right
    assert left == pytest.approx(right, abs=0.05)
    saved = torch.load(reduced.checkpointer.get_checkpoint_file(), weights_only=True)["trainer"][
        "precision"
    ]
    assert ("scale" in saved) == (precision == "fp16")


def test_non_finite_loss_stops_before_the_weights_change(make, tmp_path):
    class Exploding(DefaultTrainer):
        def compute_losses(self, data):
            losses = super().compute_losses(data)
            if self.iter == 7:
                losses["extra loss"] = losses["CrossEntropy Loss(G)"] * float("inf")
            return losses

    trainer = make(trainer_class=Exploding)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    message = str(caught.value)
    assert "Loss became infinite or NaN at iteration=7" in message
    assert "extra loss = inf" in message and "CrossEntropy Loss(G) = " in message
    assert isinstance(caught.value, UserError)
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())
    assert not (tmp_path / "run" / "model_final.pth").exists()


def test_losses_are_read_only_when_written(make, monkeypatch):
    """On a device, reading a loss waits for it; a flush marks the only places where it may."""
    trainer = make(SOLVER__WRITE_PERIOD=5)
    monkeypatch.setattr(DefaultTrainer, "device", torch.device("meta"))
    flushed = []
    original = trainer.step_metrics.flush
    monkeypatch.setattr(
        trainer.step_metrics, "flush", lambda s: (flushed.append(s.iter), original(s))
    )
    trainer.precision = Precision("fp32", torch.device("cpu"))
    trainer.train()
    assert sorted(set(flushed)) == [4, 5, 9, 11, 12]


def test_accuracies_are_shown_and_not_optimised(make):
    class Accurate(DefaultTrainer):
        def compute_losses(self, data):
            losses = super().compute_losses(data)
            self.log_scalars(reward=3.0)
            return {**losses, "acc": torch.tensor(100.0)}

    trainer = make(trainer_class=Accurate, SOLVER__EPOCH=1)
    metrics = trainer.train()
    assert metrics["total_loss"] == metrics["CrossEntropy Loss(G)"]
    assert metrics["acc"] == 100.0
    assert metrics["reward"] == 3.0


def test_user_loaders_of_a_subclass_are_used(make, toy):
    class OwnData(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            mapper = toy.QuietToyDataset("train", noise=0.0)
            samples = [mapper(record) for record in mapper.load_data(cfg)[:10]]
            return torch.utils.data.DataLoader(
                samples, batch_size=5, shuffle=True, collate_fn=lambda batch: batch
            )

        @classmethod
        def build_val_loader(cls, cfg):
            mapper = toy.ToyDataset("val")
            return [[mapper(record)] for record in mapper.load_data(cfg)[:2]]

        @classmethod
        def build_test_loader(cls, cfg):
            return None

    changes = {"DATASETS__TRAIN": "", "DATASETS__VAL": "", "DATASETS__TEST": ""}
    trainer = make(trainer_class=OwnData, **changes)
    metrics = trainer.train()
    assert trainer.iters_per_epoch == 2
    assert metrics["val/nested/Count"] == 2
    assert not any(name.startswith("test/") for name in metrics)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_plain_loaders_resume_bit_for_bit_too(make, toy, tmp_path, num_workers):
    class Plain(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            mapper = toy.ToyDataset("train", noise=0.5)

            class Mapped(torch.utils.data.Dataset):
                def __len__(self):
                    return 12

                def __getitem__(self, index):
                    sample = mapper({"image_id": str(index)})
                    sample[kfg.ATT_FEATS] += torch.randn(1).item()
                    return sample

            return torch.utils.data.DataLoader(
                Mapped(),
                batch_size=2,
                shuffle=True,
                num_workers=num_workers,
                collate_fn=toy.keep,
                worker_init_fn=toy.seed_worker,
            )

    whole = make("whole", trainer_class=Plain)
    whole.train()

    def stop(trainer):
        if trainer.iter == 9:
            raise KeyboardInterrupt

    first = make("parts", trainer_class=Plain, SOLVER__CHECKPOINT_PERIOD_ITERS=8)
    first.register_hooks([CallbackHook(before_step=stop)])
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make("parts", trainer_class=Plain, SOLVER__CHECKPOINT_PERIOD_ITERS=8)
    second.resume_or_load()
    assert second.start_iter == 8
    second.train()
    assert_same_weights(weights(second), weights(whole), rtol=0, atol=0)


def test_ema_follows_its_formula(make):
    trainer = make(MODEL__USE_EMA=True, MODEL__EMA_DECAY=0.9, SOLVER__EPOCH=1)
    trainer.resume_or_load()
    average = {name: tensor.clone() for name, tensor in weights(trainer).items()}

    def follow(trainer):
        for name, tensor in weights(trainer).items():
            average[name] = 0.9 * average[name] + 0.1 * tensor

    trainer.register_hooks([CallbackHook(after_step=follow)])
    trainer.train()
    assert_same_weights(dict(trainer.ema.module.state_dict()), average)
    saved = torch.load(trainer.checkpointer.get_checkpoint_file(), weights_only=True)
    assert all(name.startswith("module.") for name in saved["trainer"]["ema"])


def test_ema_moves_tied_weights_and_buffers_once():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(2, 2, bias=False)
            self.b = torch.nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight
            self.norm = torch.nn.BatchNorm1d(2)

    model = Tied()
    ema = ModelEma(model, decay=0.5)
    start = model.a.weight.detach().clone()
    with torch.no_grad():
        model.a.weight.add_(2.0)
        model.norm.running_mean.add_(4.0)
        model.norm.num_batches_tracked.add_(3)
    ema.update(model)
    torch.testing.assert_close(ema.module.b.weight, start + 1.0)
    torch.testing.assert_close(ema.module.norm.running_mean, torch.full((2,), 2.0))
    assert ema.module.norm.num_batches_tracked == 3
    ema.set(model)
    torch.testing.assert_close(ema.module.a.weight, model.a.weight)


def test_weights_are_bound_after_loading_and_before_the_optimizer(make, tmp_path):
    first = make("first", SOLVER__EPOCH=1)
    first.train()
    events = []

    class Binding(DefaultTrainer):
        @classmethod
        def build_model(cls, cfg):
            model = super().build_model(cfg)
            head = model.predictor.logits

            def bind():
                events.append(("bind", head.weight.detach().clone()))
                head.weight = torch.nn.Parameter(head.weight.detach().clone())

            model.bind_or_init_weights = bind
            return model

        @classmethod
        def build_optimizer(cls, cfg, model):
            events.append(("optimizer", model.predictor.logits.weight))
            return super().build_optimizer(cfg, model)

    path = str(tmp_path / "first" / "model_final.pth")
    second = make("second", trainer_class=Binding, MODEL__WEIGHTS=path, SOLVER__EPOCH=1)
    second.resume_or_load(resume=False)
    second.train()
    assert [name for name, _ in events] == ["bind", "optimizer"]
    torch.testing.assert_close(events[0][1], weights(first)["predictor.logits.weight"])
    assert events[1][1] is second.model.predictor.logits.weight


def test_user_hooks_run_after_the_default_ones(make):
    class Mine(DefaultTrainer):
        def build_hooks(self):
            return [*super().build_hooks(), hooks.CallbackHook(after_step=self.seen.append)]

        seen = []  # noqa: RUF012

    trainer = make(trainer_class=Mine, SOLVER__EPOCH=1)
    trainer.train()
    assert len(Mine.seen) == EPOCH


def test_a_step_of_ones_own(make):
    """The step written out by hand, as users of the reference have it in their trainers."""

    class OwnStep(DefaultTrainer):
        def run_step(self):
            data = next(self.batches)
            data = self.model.preprocess_batch(data)
            data[kfg.SS_PROB] = self.ss_prob
            outputs = self.model(data)
            losses = {}
            for loss in self.losses:
                losses.update(loss(outputs))
            self.optimizer.zero_grad()
            sum(losses.values()).backward()
            self._write_metrics(losses, self.batches.data_time)
            self.precision.step(self.optimizer, self.clip)

    own, default = make("own", trainer_class=OwnStep), make("default")
    own.train()
    default = make("default")
    default.train()
    assert_same_weights(weights(own), weights(default), rtol=0, atol=0)


def test_manual_training_forward(toy, tmp_path):
    cfg = toy.toy_config(tmp_path / "run")
    model = build_model(cfg)
    mapper = toy.ToyDataset("train")
    inputs = model.preprocess_batch([mapper(record) for record in mapper.load_data(cfg)[:3]])
    with EventStorage(0) as storage:
        outputs = model(inputs)
        losses = {}
        for loss in build_losses(cfg):
            losses.update(loss(outputs))
        sum(losses.values()).backward()
        storage.put_scalars(**losses)
    assert storage.latest()["CrossEntropy Loss(G)"][0] == pytest.approx(2.4, abs=0.5)
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_progress_bar(make, capsys):
    make(SOLVER__PROGRESS_BAR=True, SOLVER__EPOCH=1).train()
    shown = capsys.readouterr().err
    assert "train: 100%" in shown and "loss=" in shown and "evaluate" in shown


def test_foreign_optimizer_state_is_explained(make):
    make(SOLVER__EPOCH=1).train()
    for changes in ({"SOLVER__NAME": "SGD"}, {"SOLVER__WEIGHT_DECAY_BIAS": 0.1}):
        trainer = make(SOLVER__EPOCH=3, **changes)
        trainer.resume_or_load()
        with pytest.raises(UserError, match="state of the optimizer does not fit"):
            trainer.train()


@pytest.mark.slow
def test_compiled_model_trains_alike_and_saves_plain_keys(make):
    changes = {"MODEL__PRED_DROPOUT": 0.0, "SCHEDULED_SAMPLING__MAX_PROB": 0.0, "SOLVER__EPOCH": 1}
    compiled, plain = make("compiled", SOLVER__COMPILE=True, **changes), make("plain", **changes)
    compiled.train()
    plain.train()
    assert_same_weights(weights(compiled), weights(plain), rtol=1e-3, atol=1e-4)
    saved = torch.load(compiled.checkpointer.get_checkpoint_file(), weights_only=True)
    assert saved["model"].keys() == weights(plain).keys()
