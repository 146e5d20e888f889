"""Seeds, devices, set-up hooks, memory retries, wrappers, colours, environment tables."""

import logging
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from xmodaler.utils import env
from xmodaler.utils.collect_env import collect_env_info
from xmodaler.utils.colormap import colormap, random_color
from xmodaler.utils.errors import MissingDependencyError, UserError, did_you_mean, nearest
from xmodaler.utils.initialization import trunc_normal_
from xmodaler.utils.memory import retry_if_cuda_oom
from xmodaler.utils.serialize import PicklableWrapper


def draws():
    return (random.random(), np.random.rand(), torch.rand(1).item())


def test_one_seed_rules_all_generators(caplog):
    assert env.seed_all_rng(3) == 3
    first = draws()
    env.seed_all_rng(3)
    assert draws() == first
    with caplog.at_level(logging.INFO, logger="xmodaler.utils.env"):
        logger = logging.getLogger("xmodaler")
        propagate, logger.propagate = logger.propagate, True
        seed = env.seed_all_rng()
        logger.propagate = propagate
    assert str(seed) in caplog.text
    first = draws()
    env.seed_all_rng(seed)
    assert draws() == first


def test_devices_are_resolved():
    assert env.resolve_device("cpu") == torch.device("cpu")
    assert env.resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UserError, match="is not a device"):
        env.resolve_device("gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            env.resolve_device("cuda:1")


def test_custom_environments(tmp_path, monkeypatch):
    (tmp_path / "my_env.py").write_text(
        "calls = []\ndef setup_environment():\n    calls.append(1)\n"
    )
    (tmp_path / "no_setup.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    env.setup_custom_environment("my_env")
    assert sys.modules["my_env"].calls == [1]
    env.setup_custom_environment(str(tmp_path / "my_env.py"))
    for wrong in (str(tmp_path / "nope.py"), "no_such_env", "no_setup"):
        with pytest.raises(UserError, match="Environment module"):
            env.setup_custom_environment(wrong)
    monkeypatch.setattr(env, "_is_set_up", False)
    monkeypatch.setenv("XMODALER_ENV_MODULE", "my_env")
    env.setup_environment()
    env.setup_environment()
    assert sys.modules["my_env"].calls == [1, 1]


def test_a_function_that_fits_is_called_once():
    assert retry_if_cuda_oom(lambda x, y: x + y)(torch.ones(1), y=2).item() == 3


@pytest.mark.parametrize("failures", [1, 2])
def test_running_out_of_memory_is_survived(failures):
    seen = []

    def hungry(x, *, options):
        seen.append((x.device.type, options["y"].device.type))
        if len(seen) <= failures:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return x + 1

    assert retry_if_cuda_oom(hungry)(torch.ones(1), options={"y": torch.ones(1)}).item() == 2
    assert len(seen) == failures + 1 and seen[-1] == ("cpu", "cpu")


def test_other_errors_are_not_retried():
    calls = []

    def broken():
        calls.append(1)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        retry_if_cuda_oom(broken)()
    assert calls == [1]


def test_lambdas_travel_in_a_wrapper():
    pytest.importorskip("cloudpickle")
    factor = 3
    wrapped = PicklableWrapper(PicklableWrapper(lambda x: x * factor))
    copy = pickle.loads(pickle.dumps(wrapped))
    assert copy(2) == wrapped(2) == 6
    assert pickle.loads(pickle.dumps(PicklableWrapper([3]))).count(3) == 1
    with pytest.raises(AttributeError):
        _ = wrapped.nope


def test_colours_are_distinct_and_in_range():
    colors = colormap(rgb=True)
    assert colors.shape == (74, 3) and colors.dtype == np.float32
    assert colors.min() >= 0 and colors.max() <= 255
    assert len({tuple(color) for color in colors.round().tolist()}) == 74
    np.testing.assert_array_equal(colormap()[:, ::-1], colors)
    np.testing.assert_allclose(colormap(rgb=True, maximum=1) * 255, colors, rtol=1e-5)
    assert any((random_color(rgb=True) == colors).all(axis=1))
    with pytest.raises(ValueError, match="255 or 1"):
        colormap(maximum=100)


def test_the_environment_table_names_versions_and_loads_nothing():
    code = (
        "import sys; from xmodaler.utils.collect_env import collect_env_info; "
        "text = collect_env_info(); assert 'torchvision' not in sys.modules; print(text)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for part in ("PyTorch", torch.__version__, "torchvision", "Python"):
        assert part in result.stdout
    assert "not installed" in collect_env_info() or "timm" in collect_env_info()


def test_truncated_normal_stays_inside():
    tensor = torch.empty(10_000)
    torch.manual_seed(0)
    assert trunc_normal_(tensor, std=1.0, a=-0.5, b=1.0) is tensor
    assert tensor.min() >= -0.5 and tensor.max() <= 1.0


def test_suggestions():
    assert nearest("updowndecoder", ["UpDownDecoder", "Other"]) == "UpDownDecoder"
    assert nearest("zzz", ["abc"]) is None
    assert did_you_mean("abd", ["abc"]) == "; did you mean 'abc'?"
    assert did_you_mean("zzz", ["abc"]) == ""


def test_user_errors_read_as_one_plain_sentence():
    class Both(UserError, KeyError):
        pass

    assert str(Both("no 'x' here")) == "no 'x' here"
    assert isinstance(UserError("x"), ValueError)
    assert isinstance(MissingDependencyError("x"), ImportError)
    assert str(MissingDependencyError("pip install x")) == "pip install x"
