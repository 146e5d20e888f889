"""The configuration tree: defaults, merging, types, freezing, versions."""

import copy
import logging
import pickle
from collections.abc import Mapping

import pytest
import yaml
from fvcore.common.config import CfgNode as FvcoreCfgNode
from hypothesis import given
from hypothesis import strategies as st

from xmodaler.config import (
    CfgNode,
    downgrade_config,
    get_cfg,
    global_cfg,
    kfg,
    set_global_cfg,
    upgrade_config,
)
from xmodaler.config.values import ConfigKeyError, ConfigTypeError, FrozenConfigError
from xmodaler.utils.errors import UserError


def test_defaults_are_those_of_the_original_and_the_documented_additions():
    cfg = get_cfg()
    assert cfg.SOLVER.BASE_LR == 0.0005
    assert cfg.SOLVER.GRAD_CLIP == 0.1
    assert cfg.LR_SCHEDULER.STEPS == (3,)
    assert cfg.MODEL.BERT.NUM_HIDDEN_LAYERS == 12
    assert cfg.MODEL.DEVICE == "auto"
    assert cfg.MODEL.ATTENTION == "AdditiveAttention"
    assert cfg.DECODE_STRATEGY.TOP_P == 1.0

    def leaves(node):
        return sum(leaves(v) if isinstance(v, Mapping) else 1 for v in node.values())

    assert leaves(cfg) == 137 + 136


def test_get_cfg_returns_independent_copies():
    first = get_cfg()
    first.SOLVER.BETAS.append(1.0)
    first.MODEL.DEVICE = "cpu"
    assert get_cfg().SOLVER.BETAS == [0.9, 0.999]
    assert get_cfg().MODEL.DEVICE == "auto"


def test_batch_keys_are_their_own_names_and_can_be_added():
    special = {"COCO_PATH", "TEMP_DIR"}
    assert all(value == name for name, value in kfg.items() if name not in special)
    assert len(kfg) == 80
    kfg.MY_OWN_KEY = "MY_OWN_KEY"
    assert kfg.MY_OWN_KEY == "MY_OWN_KEY"
    del kfg["MY_OWN_KEY"]


def test_int_is_accepted_where_a_float_is_expected():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.WEIGHT_DECAY", "0", "SOLVER.BASE_LR", 1])
    assert cfg.SOLVER.WEIGHT_DECAY == 0.0 and isinstance(cfg.SOLVER.WEIGHT_DECAY, float)
    assert cfg.SOLVER.BASE_LR == 1.0 and isinstance(cfg.SOLVER.BASE_LR, float)


@pytest.mark.parametrize(("value", "expected"), [(False, 0.0), ("True", 1.0), (0.0, 0.0)])
def test_nesterov_may_be_a_switch(value, expected):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.NESTEROV", value])
    assert expected == cfg.SOLVER.NESTEROV and isinstance(cfg.SOLVER.NESTEROV, float)


def test_lists_and_tuples_stand_for_each_other():
    cfg = get_cfg()
    cfg.merge_from_list(["LR_SCHEDULER.STEPS", "[10, 12]", "SOLVER.BETAS", (0.9, 0.98)])
    assert cfg.LR_SCHEDULER.STEPS == (10, 12)
    assert cfg.SOLVER.BETAS == [0.9, 0.98]


def test_a_text_key_keeps_what_the_command_line_says():
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", "2024", "MODEL.WEIGHTS", "[a].pth", "MODEL.DEVICE", "'cpu'"])
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE) == ("2024", "[a].pth", "cpu")


@pytest.mark.parametrize(
    ("key", "value", "expected", "given"),
    [
        ("SOLVER.EPOCH", "1.5", "int", "float"),
        ("SOLVER.BASE_LR", "fast", "float", "str"),
        ("SOLVER.BASE_LR", True, "float", "bool"),
        ("CUDNN_BENCHMARK", 1, "bool", "int"),
        ("MODEL.WEIGHTS", 123, "str", "int"),
        ("MODEL", "x", "a section of keys", "str"),
        ("MODEL.ENCODER", {"A": 1}, "str", "a section of keys"),
    ],
)
def test_wrong_type_names_key_and_expected_type(key, value, expected, given):
    with pytest.raises(ValueError, match="Type mismatch") as caught:
        get_cfg().merge_from_list([key, value])
    assert isinstance(caught.value, ConfigTypeError)
    assert f"'{key}'" in str(caught.value)
    assert f"expected {expected}, got {given}" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("MODEL.ENCODR", "MODEL.ENCODER"),
        ("BASE_LR", "SOLVER.BASE_LR"),
        ("solver.base_lr", "SOLVER.BASE_LR"),
        ("SOLVER.BEAM_SIZE", "DECODE_STRATEGY.BEAM_SIZE"),
        ("MODEL.TOKENEMBED.DIM", "MODEL.TOKEN_EMBED.DIM"),
        ("MODLE.ENCODR", "MODEL.ENCODER"),
        ("SOLVR", "SOLVER"),
    ],
)
def test_unknown_key_names_the_nearest_one(key, nearest):
    with pytest.raises(KeyError) as caught:
        get_cfg().merge_from_list([key, 1])
    message = str(caught.value)
    assert f"Non-existent config key '{key}'" in message
    assert f"did you mean '{nearest}'?" in message
    assert "\n" not in message


def test_infinity_is_a_number():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.GRAD_CLIP", "inf", "SOLVER.BASE_LR", "-Inf"])
    assert float("inf") == cfg.SOLVER.GRAD_CLIP and -float("inf") == cfg.SOLVER.BASE_LR


def test_an_override_without_value_is_an_error():
    with pytest.raises(UserError, match="'SEED' has no partner"):
        get_cfg().merge_from_list(["SOLVER.EPOCH", 1, "SEED"])


def test_a_failing_list_changes_nothing():
    cfg = get_cfg()
    with pytest.raises(ConfigKeyError):
        cfg.merge_from_list(["SOLVER.EPOCH", 99, "NO.SUCH", 1])
    assert cfg == get_cfg()


leaf_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(leaf_values)
def test_every_literal_survives_the_command_line(value):
    cfg = CfgNode({"A": {"KEY": None}})
    cfg.merge_from_list(["A.KEY", repr(value)])
    assert value == cfg.A.KEY and type(cfg.A.KEY) is type(value)


@given(st.text(max_size=40))
def test_any_text_is_a_value_of_a_text_key_or_a_clear_error(text):
    cfg = CfgNode({"KEY": "old"})
    cfg.merge_from_list(["KEY", text])
    assert cfg.KEY is None or isinstance(cfg.KEY, str)


@given(st.text(max_size=40))
def test_any_text_for_a_number_is_a_number_or_a_user_error(text):
    cfg = CfgNode({"KEY": 1.0})
    try:
        cfg.merge_from_list(["KEY", text])
    except UserError:
        assert cfg.KEY == 1.0
    else:
        assert cfg.KEY is None or isinstance(cfg.KEY, float)


# -- freezing ---------------------------------------------------------------------------------


def _changes():
    return {
        "attribute": lambda cfg: setattr(cfg, "SEED", 1),
        "nested attribute": lambda cfg: setattr(cfg.MODEL, "ENCODER", "x"),
        "item": lambda cfg: cfg.MODEL.__setitem__("ENCODER", "x"),
        "new item": lambda cfg: cfg.__setitem__("NEW", 1),
        "delete": lambda cfg: cfg.__delitem__("SEED"),
        "pop": lambda cfg: cfg.pop("SEED"),
        "popitem": lambda cfg: cfg.popitem(),
        "clear": lambda cfg: cfg.MODEL.clear(),
        "update": lambda cfg: cfg.update(SEED=1),
        "setdefault": lambda cfg: cfg.setdefault("NEW", 1),
        "list": lambda cfg: cfg.merge_from_list(["SEED", 1]),
        "empty list": lambda cfg: cfg.merge_from_list([]),
        "other": lambda cfg: cfg.merge_from_other_cfg(CfgNode({"SEED": 1})),
    }


@pytest.mark.parametrize("how", _changes())
def test_a_frozen_tree_refuses_every_change(how):
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(FrozenConfigError, match="frozen"):
        _changes()[how](cfg)
    assert cfg == get_cfg()
    cfg.defrost()
    _changes()[how](cfg)


def test_a_frozen_tree_refuses_a_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SEED: 3")
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.merge_from_file(str(path))
    assert cfg.SEED == -1


def test_copies_of_a_frozen_tree_are_equal_and_frozen():
    cfg = get_cfg()
    cfg.freeze()
    for twin in (cfg.clone(), copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))):
        assert twin == cfg
        assert twin.is_frozen() and twin.MODEL.BERT.is_frozen()
        twin.defrost()
        twin.MODEL.BERT.HIDDEN_SIZE = 1
    assert cfg.MODEL.BERT.HIDDEN_SIZE == 512


def test_computed_values_are_inserted_once_even_when_frozen():
    cfg = get_cfg()
    cfg.freeze()
    cfg.COMPUTED_SIZE = 3
    cfg.COMPUTED_SIZE = 3
    with pytest.raises(KeyError):
        cfg.COMPUTED_SIZE = 4


# -- building a tree --------------------------------------------------------------------------


def test_classes_create_their_keys_by_assignment():
    cfg = get_cfg()
    cfg.MODEL.MINE = CfgNode()
    cfg.MODEL.MINE.SIZE = 3
    cfg.merge_from_list(["MODEL.MINE.SIZE", "4"])
    assert cfg.MODEL.MINE.SIZE == 4


def test_nodes_of_fvcore_can_be_assigned_and_merged():
    cfg = get_cfg()
    cfg.MODEL.THEIRS = FvcoreCfgNode({"SIZE": 3, "DEEP": {"ER": 1}})
    assert isinstance(cfg.MODEL.THEIRS.DEEP, CfgNode)
    cfg.merge_from_other_cfg(FvcoreCfgNode({"MODEL": {"THEIRS": {"DEEP": {"ER": 2}}}}))
    assert cfg.MODEL.THEIRS.DEEP.ER == 2
    assert isinstance(cfg, FvcoreCfgNode)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", 1j])
def test_only_plain_values_are_accepted(value):
    with pytest.raises(ConfigTypeError, match="cannot hold"):
        get_cfg().MODEL.X = value
    with pytest.raises(ConfigTypeError, match="cannot hold"):
        CfgNode({"A": {"B": value}})


def test_a_missing_attribute_names_a_near_one():
    with pytest.raises(AttributeError, match="did you mean 'ENCODER'"):
        _ = get_cfg().MODEL.ENCODR
    assert not hasattr(get_cfg(), "NOPE")


def test_new_keys_are_accepted_where_allowed():
    cfg = CfgNode({"A": {"B": 1}})
    cfg.set_new_allowed(True)
    cfg.merge_from_other_cfg(CfgNode({"A": {"C": 2}, "D": {"E": 3}}))
    cfg.merge_from_list(["F.G", "4"])
    assert (cfg.A.C, cfg.D.E, cfg.F.G) == (2, 3, 4)


def test_deprecated_keys_are_ignored_with_a_warning(caplog):
    cfg = get_cfg()
    cfg.register_deprecated_key("OLD.KEY")
    with caplog.at_level(logging.WARNING):
        cfg.merge_from_list(["OLD.KEY", 1])
    assert "OLD.KEY" in caplog.text
    assert cfg == get_cfg()


def test_renamed_keys_name_the_new_one():
    cfg = get_cfg()
    cfg.register_renamed_key("OLD_EPOCH", "SOLVER.EPOCH", message="counts epochs")
    with pytest.raises(KeyError, match=r"renamed to 'SOLVER.EPOCH' \(counts epochs\)"):
        cfg.merge_from_list(["OLD_EPOCH", 1])
    with pytest.raises(KeyError, match="renamed"):
        cfg.merge_from_other_cfg(CfgNode({"OLD_EPOCH": 3}))


def test_base_belongs_into_files_only():
    with pytest.raises(UserError, match="_BASE_"):
        get_cfg().merge_from_list(["_BASE_", "x.yaml"])
    with pytest.raises(UserError, match="_BASE_"):
        get_cfg().merge_from_other_cfg(CfgNode({"_BASE_": "x.yaml"}))


def test_dump_is_yaml_that_merges_back():
    cfg = get_cfg()
    cfg.merge_from_list(["LR_SCHEDULER.STEPS", "(1, 2)", "MODEL.WEIGHTS", "ü: # x"])
    loaded = yaml.safe_load(cfg.dump())
    assert loaded["LR_SCHEDULER"]["STEPS"] == [1, 2]
    again = get_cfg()
    again.merge_from_other_cfg(CfgNode(loaded))
    assert again == cfg
    assert CfgNode.load_cfg(cfg.dump()).MODEL.WEIGHTS == "ü: # x"


# -- versions and the global config -----------------------------------------------------------


def test_the_current_version_converts_to_itself():
    cfg = get_cfg()
    cfg.freeze()
    assert upgrade_config(cfg) == cfg and upgrade_config(cfg) is not cfg
    assert downgrade_config(cfg, 1) == cfg
    assert upgrade_config(cfg).is_frozen()


@pytest.mark.parametrize(
    "convert", [lambda c: downgrade_config(c, 0), lambda c: upgrade_config(c, 2)]
)
def test_a_version_that_never_was_is_a_clear_error(convert):
    with pytest.raises(UserError, match="Cannot convert the config from version 1"):
        convert(get_cfg())


def test_converters_are_chained_from_the_table(monkeypatch):
    from xmodaler.config import compat

    def rename(cfg):
        cfg.NEW = cfg.pop("OLD")

    monkeypatch.setitem(compat.UPGRADES, 0, rename)
    converted = compat.convert_config(CfgNode({"VERSION": 0, "OLD": 5}), 0, 1, "it")
    assert converted == {"VERSION": 1, "NEW": 5}


def test_global_config_is_refilled_in_place():
    kept = global_cfg
    cfg = get_cfg()
    cfg.SEED = 5
    cfg.freeze()
    set_global_cfg(cfg)
    assert kept.SEED == 5 and kept.MODEL is cfg.MODEL
    set_global_cfg(CfgNode({"ONLY": 1}))
    assert dict(kept) == {"ONLY": 1}
