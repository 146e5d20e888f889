"""The bare loop: order of hooks, failures, states."""

import weakref

import pytest
import torch

from xmodaler.engine import CallbackHook, HookBase, TrainerBase, hooks
from xmodaler.utils.errors import UserError
from xmodaler.utils.events import EventStorage, EventWriter, get_event_storage


class CountingTrainer(TrainerBase):
    """Notes what is called; optionally fails at an iteration."""

    def __init__(self, fail_at=None, error=None):
        super().__init__()
        self.calls = []
        self.fail_at = fail_at
        self.error = error or RuntimeError("boom")

    def run_step(self):
        self.calls.append(("step", self.iter, self.storage.iter))
        if self.iter == self.fail_at:
            raise self.error


class NotingHook(HookBase):
    def __init__(self, name):
        self.name = name

    def note(self, event):
        self.trainer.calls.append((self.name, event, self.trainer.iter))

    def before_train(self):
        self.note("before_train")

    def after_train(self):
        self.note("after_train")

    def before_step(self):
        self.note("before_step")

    def after_step(self):
        self.note("after_step")


def test_hooks_are_called_in_the_documented_order():
    trainer = CountingTrainer()
    trainer.register_hooks([NotingHook("a"), None, NotingHook("b")])
    trainer.train(3, 5)
    around = [
        [(name, "before_step", i) for name in "ab"]
        + [("step", i, i)]
        + [(name, "after_step", i) for name in "ab"]
        for i in (3, 4)
    ]
    assert trainer.calls == [
        ("a", "before_train", 3),
        ("b", "before_train", 3),
        *around[0],
        *around[1],
        ("a", "after_train", 5),
        ("b", "after_train", 5),
    ]


def test_failure_is_raised_again_after_after_train():
    trainer = CountingTrainer(fail_at=1)
    trainer.register_hooks([NotingHook("a")])
    with pytest.raises(RuntimeError, match="boom"):
        trainer.train(0, 3)
    assert trainer.calls[-1] == ("a", "after_train", 1)


def test_empty_training_changes_nothing():
    trainer = CountingTrainer()
    trainer.register_hooks([NotingHook("a")])
    trainer.train(4, 4)
    assert trainer.iter == 4
    assert [call[1] for call in trainer.calls] == ["before_train", "after_train"]


def test_hooks_hold_the_trainer_weakly():
    trainer = CountingTrainer()
    hook = NotingHook("a")
    trainer.register_hooks([hook])
    assert isinstance(hook.trainer, weakref.ProxyTypes)
    with pytest.raises(AssertionError, match="HookBase"):
        trainer.register_hooks([object()])


def test_step_of_the_base_class_asks_for_one():
    trainer = TrainerBase()
    with pytest.raises(NotImplementedError, match="run_step"):
        trainer.train(0, 1)


def test_user_mistakes_are_logged_without_traceback(caplog):
    trainer = CountingTrainer(fail_at=0, error=UserError("the file is empty"))
    with caplog.at_level("ERROR"), pytest.raises(UserError):
        trainer.train(0, 1)
    assert [record.exc_info for record in caplog.records] == [None]


class StatefulHook(HookBase):
    def __init__(self, value=None):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state_dict):
        self.value = state_dict["value"]


def test_two_hooks_of_a_class_keep_their_states_apart():
    trainer = CountingTrainer()
    trainer.register_hooks([StatefulHook(1), NotingHook("a"), StatefulHook(2)])
    trainer.train(0, 3)
    state = trainer.state_dict()
    assert state["iteration"] == 3
    assert set(state["hooks"]) == {"StatefulHook", "StatefulHook:1"}

    other = CountingTrainer()
    restored = [StatefulHook(), StatefulHook()]
    other.register_hooks(restored)
    other.load_state_dict(state)
    assert [hook.value for hook in restored] == [1, 2]
    assert other.iter == 3


def test_state_of_an_unknown_hook_is_named(caplog):
    trainer = CountingTrainer()
    with caplog.at_level("WARNING"):
        trainer.load_state_dict({"iteration": 0, "hooks": {"GoneHook": {"x": 1}}})
    assert "GoneHook" in caplog.text


def test_callback_hook_gets_the_trainer():
    seen = []
    trainer = CountingTrainer()
    trainer.register_hooks(
        [
            CallbackHook(
                before_train=lambda t: seen.append("start"),
                after_step=lambda t: seen.append(t.iter),
                after_train=lambda t: seen.append("end"),
            )
        ]
    )
    trainer.train(0, 2)
    assert seen == ["start", 0, 1, "end"]


def test_storage_is_open_during_training_only():
    trainer = CountingTrainer()
    trainer.register_hooks(
        [CallbackHook(after_step=lambda t: get_event_storage().put_scalars(x=t.iter, y=1.0))]
    )
    trainer.train(0, 2)
    assert trainer.storage.latest() == {"x": (1.0, 1), "y": (1.0, 1)}
    with pytest.raises(AssertionError):
        get_event_storage()


def test_iteration_timer_counts_from_the_third_iteration(caplog):
    trainer = CountingTrainer()
    trainer.register_hooks([hooks.IterationTimer()])
    with caplog.at_level("INFO"):
        trainer.train(0, 5)
    assert len(trainer.storage.history("time").values()) == 3
    assert "Overall training speed: 3 iterations in 0:00:00" in caplog.text
    assert "Total training time" in caplog.text


@pytest.mark.parametrize(
    ("sizes", "lrs", "shown"),
    [([1, 3, 2], [0.1, 0.2, 0.3], 0.2), ([1, 1, 1], [0.1, 0.3, 0.3], 0.3)],
)
def test_lr_hook_shows_a_representative_group(sizes, lrs, shown):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": lr}
        for size, lr in zip(sizes, lrs, strict=True)
    ]
    trainer = CountingTrainer()
    trainer.optimizer = torch.optim.SGD(groups, lr=0.1)
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1, gamma=0.5)
    trainer.register_hooks([hooks.LRScheduler()])
    trainer.optimizer.step()
    trainer.train(0, 3)
    values = [value for value, _ in trainer.storage.history("lr").values()]
    assert values == pytest.approx([shown, shown / 2, shown / 4])


def test_scheduled_sampling_follows_its_formula():
    trainer = CountingTrainer()
    trainer.ss_prob = 0.0
    seen = []
    trainer.register_hooks(
        [
            CallbackHook(before_step=lambda t: seen.append(t.ss_prob)),
            hooks.ScheduledSampling(start_iter=2, inc_every_iter=2, inc_prob=0.1, max_prob=0.25),
        ]
    )
    trainer.train(0, 10)
    assert seen == pytest.approx([0, 0, 0, 0, 0.1, 0.1, 0.2, 0.2, 0.25, 0.25])


def test_profiler_writes_the_chosen_iterations(tmp_path):
    trainer = CountingTrainer()
    trainer.register_hooks(
        [hooks.AutogradProfiler(lambda trainer: 0 < trainer.iter < 2, str(tmp_path / "traces"))]
    )
    trainer.train(0, 3)
    assert [p.name for p in (tmp_path / "traces").iterdir()] == ["profiler-trace-iter1.json"]


def test_precise_bn_averages_over_batches():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    batches = [torch.randn(16, 3) * 2 + 5 for _ in range(4)]
    trainer = CountingTrainer()
    trainer.register_hooks([hooks.PreciseBN(2, model, batches, 4)])
    trainer.train(0, 2)
    everything = torch.cat(batches)
    torch.testing.assert_close(model[0].running_mean, everything.mean(0))


def test_precise_bn_leaves_other_models_alone(caplog):
    trainer = CountingTrainer()
    with caplog.at_level("INFO"):
        trainer.register_hooks([hooks.PreciseBN(1, torch.nn.Linear(1, 1), [], 1)])
    trainer.train(0, 1)
    assert "no batch-norm layer" in caplog.text


def test_weights_are_bound_inside_a_wrapper():
    class Bindable(torch.nn.Module):
        bound = 0

        def bind_or_init_weights(self):
            self.bound += 1

    model = Bindable()
    trainer = CountingTrainer()
    trainer.model = torch.nn.DataParallel(model)
    trainer.register_hooks([hooks.ModelWeightsManipulating()])
    trainer.train(0, 1)
    assert model.bound == 1


class FakeWriter(EventWriter):
    def __init__(self):
        self.iterations = []
        self.closed = False

    def write(self):
        self.iterations.append(get_event_storage().iter)

    def close(self):
        self.closed = True


def test_periodic_writer_writes_at_its_period_and_at_the_end():
    writer = FakeWriter()
    trainer = CountingTrainer()
    trainer.register_hooks([hooks.PeriodicWriter([writer], period=3)])
    trainer.train(0, 8)
    assert writer.iterations == [2, 5, 7, 8]
    assert writer.closed


def test_eval_hook_evaluates_each_epoch_once():
    epochs = []

    def evaluate(epoch):
        epochs.append(epoch)
        return {"group": {"score": torch.tensor(epoch)}, "plain": 1}

    trainer = CountingTrainer()
    hook = hooks.EvalHook(1, -1, evaluate, 2, "val", False)
    trainer.register_hooks([hook])
    trainer.train(0, 6)
    assert epochs == [1, 2, 3]
    assert hook.metrics == {"val/group/score": 3.0, "val/plain": 1.0}
    assert trainer.storage.latest()["val/group/score"] == (3.0, 5)


@pytest.mark.parametrize(
    ("period", "start", "iterations", "expected"),
    [
        (2, -1, 8, [2, 4]),
        (1, 2, 8, [3, 4]),
        (1, -1, 7, [1, 2, 3, 3]),
        (0, -1, 4, [2]),
        (3, -1, 8, [3, 4]),
        (1, 9, 4, [2]),
    ],
)
def test_eval_hook_schedule(period, start, iterations, expected):
    epochs = []
    trainer = CountingTrainer()
    trainer.register_hooks(
        [hooks.EvalHook(period, start, lambda e: epochs.append(e) or {}, 2, "val", False)]
    )
    trainer.train(0, iterations)
    assert epochs == expected


def test_eval_hook_does_not_evaluate_a_failed_training():
    epochs = []
    trainer = CountingTrainer(fail_at=3)
    trainer.register_hooks(
        [hooks.EvalHook(0, -1, lambda e: epochs.append(e) or {}, 2, "val", False)]
    )
    with pytest.raises(RuntimeError):
        trainer.train(0, 4)
    assert epochs == []


def test_eval_hook_does_not_move_the_generators_of_training():
    def draw(evaluates):
        torch.manual_seed(0)
        values = []
        trainer = CountingTrainer()
        trainer.register_hooks(
            [CallbackHook(before_step=lambda t: values.append(torch.rand(1).item()))]
        )
        if evaluates:
            evaluate = lambda epoch: {"x": torch.rand(1).item()}  # noqa: E731
            trainer.register_hooks([hooks.EvalHook(1, -1, evaluate, 1, "val", False)])
        trainer.train(0, 3)
        return values

    assert draw(True) == draw(False)


def test_eval_hook_catches_up_after_an_interruption():
    epochs = []

    def new_trainer():
        trainer = CountingTrainer()
        hook = hooks.EvalHook(1, -1, lambda e: epochs.append(e) or {"x": e}, 2, "val", False)
        trainer.register_hooks([hook])
        return trainer, hook

    trainer, hook = new_trainer()
    trainer.train(2, 4)
    # Epoch 1 was due at iteration 1, of which no state says that it was evaluated.
    assert epochs == [1, 2]
    state = hook.state_dict()
    trainer, hook = new_trainer()
    hook.load_state_dict(state)
    trainer.train(4, 4)
    assert epochs == [1, 2]
    assert hook.metrics == {"val/x": 2.0}


@pytest.mark.parametrize("result", [None, [], {}])
def test_evaluators_without_metrics_are_fine(result):
    trainer = CountingTrainer()
    trainer.register_hooks([hooks.EvalHook(1, -1, lambda e: result, 1, "val", False)])
    trainer.train(0, 1)
    assert trainer.storage.latest() == {}


def test_metric_that_is_no_number_is_named():
    trainer = CountingTrainer()
    trainer.register_hooks([hooks.EvalHook(1, -1, lambda e: {"x": "good"}, 1, "val", False)])
    with pytest.raises(UserError, match="val evaluator returned x = 'good'"):
        trainer.train(0, 1)


def test_nested_storages_do_not_mix():
    with EventStorage(0) as outer:
        outer.put_scalar("x", 1.0)
        with EventStorage(5) as inner:
            get_event_storage().put_scalar("x", 2.0)
        assert inner.latest() == {"x": (2.0, 5)}
        assert get_event_storage().latest() == {"x": (1.0, 0)}
