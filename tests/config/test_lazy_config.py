"""Lazy configs: descriptions of objects, from Python files, YAML and code."""

import dataclasses

import pytest
import yaml

from xmodaler.config.instantiate import dump_dataclass, instantiate
from xmodaler.config.lazy import LazyCall, LazyConfig
from xmodaler.utils.errors import UserError


@dataclasses.dataclass
class Point:
    x: int = 1
    y: list = dataclasses.field(default_factory=list)


def describe():
    return LazyCall(dict)(size=3, inner=LazyCall(complex)(real=1, imag=2))


def test_a_call_is_described_and_made_later():
    description = describe()
    description.size = 4
    assert instantiate(description) == {"size": 4, "inner": 1 + 2j}
    assert instantiate([description, 3])[1] == 3
    assert instantiate({"plain": 1}) == {"plain": 1}


def test_targets_by_name():
    assert instantiate({"_target_": "builtins.complex", "real": 3}) == 3
    with pytest.raises(UserError, match=r"no\.such\.thing"):
        instantiate({"_target_": "no.such.thing"})
    with pytest.raises(UserError, match="not callable"):
        instantiate({"_target_": 5})
    with pytest.raises(TypeError, match=r"builtins\.complex"):
        instantiate({"_target_": "builtins.complex", "nope": 3})


def test_a_dataclass_is_described_and_built_again():
    point = Point(2, [Point(3)])
    described = dump_dataclass(point)
    assert described["x"] == 2 and described["y"][0]["x"] == 3
    described["_target_"] = described["y"][0]["_target_"] = Point
    assert instantiate(described) == point


def test_python_configs_import_each_other_relatively(tmp_path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "base.py").write_text("model = dict(size=1)\nhelper = 5\n_own = {}\n")
    (tmp_path / "main.py").write_text(
        "import math\n"
        "from .common.base import model\n"
        "from .common import base\n"
        "model.size = 2\n"
        "other = dict(original=base.model.size, pi=math.floor(math.pi))\n"
        "def build():\n    from .common.base import model\n    return model\n"
        "late = build()\n"
    )
    cfg = LazyConfig.load(str(tmp_path / "main.py"))
    assert cfg.model.size == 2 and cfg.other == {"original": 1, "pi": 3} and cfg.late.size == 1
    assert set(cfg) == {"model", "other", "late"}
    assert LazyConfig.load(str(tmp_path / "main.py"), "model").size == 2
    model, other = LazyConfig.load(str(tmp_path / "main.py"), ("model", "other"))
    assert model.size == 2 and other.pi == 3
    with pytest.raises(UserError, match="has no 'nope'"):
        LazyConfig.load(str(tmp_path / "main.py"), "nope")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        LazyConfig.load(str(tmp_path / "nope.py"))
    with pytest.raises(UserError, match=r"\.py or \.yaml"):
        LazyConfig.load(str(tmp_path / "a.txt"))
    (tmp_path / "a.py").write_text("from .b import x")
    (tmp_path / "b.py").write_text("from .a import x")
    with pytest.raises(UserError, match="imports itself"):
        LazyConfig.load(str(tmp_path / "a.py"))


def test_saved_configs_name_their_targets_and_load_again(tmp_path):
    path = tmp_path / "saved.yaml"
    LazyConfig.save(LazyConfig.apply_overrides(describe(), ["size=7"]), str(path))
    assert yaml.safe_load(path.read_text())["inner"]["_target_"] == "builtins.complex"
    assert instantiate(LazyConfig.load(str(path))) == {"size": 7, "inner": 1 + 2j}


def test_what_yaml_cannot_hold_is_pickled(tmp_path):
    pytest.importorskip("cloudpickle")
    LazyConfig.save(LazyCall(dict)(f=lambda x: x), str(tmp_path / "a.yaml"))
    assert (tmp_path / "a.yaml.pkl").exists() and not (tmp_path / "a.yaml").exists()


def test_overrides():
    cfg = LazyCall(dict)(a=1, b={"c": [1, 2]})
    LazyConfig.apply_overrides(cfg, ["a=1e-3", "b.c=[3]", "+d.e=text", "b.f=null"])
    assert cfg.a == 1e-3 and cfg.b.c == [3] and cfg.d.e == "text" and cfg.b.f is None
    LazyConfig.apply_overrides(cfg, ["~b.c"])
    assert "c" not in cfg.b
    for wrong in ("novalue", "~nope", "=3"):
        with pytest.raises(UserError, match="Override"):
            LazyConfig.apply_overrides(cfg, [wrong])


def test_a_config_as_python_text():
    text = LazyConfig.to_py({"model": describe(), "b": {"c": ["x"]}})
    assert text == (
        "cfg.model = builtins.dict(size=3, inner=builtins.complex(real=1, imag=2))\n"
        "cfg.b = {'c': ['x']}\n"
    )
