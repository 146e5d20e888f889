"""Construction from a config or from explicit arguments."""

import pytest
from fvcore.common.config import CfgNode as FvcoreCfgNode

from xmodaler.config import CfgNode, configurable

CFG = CfgNode({"A": 1, "B": 2})


class Part:
    @configurable
    def __init__(self, a, b=2, c=3):
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg):
        return {"a": cfg.A, "b": cfg.B + 10}


class Sub(Part):
    @classmethod
    def from_config(cls, cfg):
        return {**super().from_config(cfg), "c": 30}


class Staged:
    @configurable()
    def __init__(self, stage, size=1):
        self.values = (stage, size)

    @classmethod
    def from_config(cls, cfg, stage="train"):
        return {"stage": stage, "size": cfg.A}


@configurable(from_config=lambda cfg, b=5: {"a": cfg.A, "b": b})
def function(a, b=2, c=3):
    return (a, b, c)


@pytest.mark.parametrize("cfg", [CFG, FvcoreCfgNode(dict(CFG))])
def test_a_class_is_built_from_a_config(cfg):
    assert Part(cfg).values == (1, 12, 3)
    assert Part(cfg=cfg).values == (1, 12, 3)
    assert Part(cfg, b=3, c=4).values == (1, 3, 4)
    assert Sub(cfg).values == (1, 12, 30)


def test_a_class_is_built_from_explicit_arguments():
    assert Part(9).values == (9, 2, 3)
    assert Part(a=9, c=1).values == (9, 2, 1)


def test_arguments_that_from_config_names_go_there():
    assert Staged(CFG, "val").values == ("val", 1)
    assert Staged(CFG, stage="test", size=7).values == ("test", 7)
    assert Staged("x").values == ("x", 1)


def test_a_function_is_called_both_ways():
    assert function(CFG) == (1, 5, 3)
    assert function(CFG, b=4) == (1, 4, 3)
    assert function(CFG, c=0) == (1, 5, 0)
    assert function(1) == (1, 2, 3)


def test_from_config_with_open_arguments_receives_everything():
    @configurable(from_config=lambda cfg, *args, **kwargs: {"got": (args, kwargs)})
    def collect(got):
        return got

    assert collect(CFG, 1, x=2) == ((1,), {"x": 2})


def test_an_omegaconf_config_counts_as_config():
    from omegaconf import OmegaConf

    assert Part(OmegaConf.create({"A": 1, "B": 2})).values == (1, 12, 3)


def test_misuse_is_explained():
    class Without:
        @configurable
        def __init__(self):
            pass

    class WrongName:
        @configurable
        def __init__(self):
            pass

        @classmethod
        def from_config(cls, config):
            return {}

    with pytest.raises(AttributeError, match="must have a 'from_config' classmethod"):
        Without(CFG)
    with pytest.raises(TypeError, match="must take 'cfg' as the first argument!"):
        WrongName(CFG)
    with pytest.raises(TypeError):
        Part(CFG, 1)
    with pytest.raises(TypeError, match="from_config"):
        configurable(lambda x: x)
    with pytest.raises(TypeError, match="plain function"):
        configurable(from_config=Part.from_config)
