"""Config files: inheritance, the two-pass recipe, versions, bad input, malicious input."""

import os
from pathlib import Path

import pytest

from xmodaler.config import CfgNode, get_cfg, load_config
from xmodaler.config.printing import describe_config
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder / f"{next(iter(files))}.yaml")


def test_base_is_relative_to_its_file_and_overridden_by_it(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path, base="MODEL:\n  ENCODER: A\n  DECODER: B\nSOLVER:\n  BETAS: [0.1, 0.2]\n")
    path = write(tmp_path / "deep", top="_BASE_: ../base.yaml\nMODEL:\n  ENCODER: C\n")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert (cfg.MODEL.ENCODER, cfg.MODEL.DECODER) == ("C", "B")
    assert cfg.SOLVER.BETAS == [0.1, 0.2]
    assert "_BASE_" not in CfgNode.load_yaml_with_base(path)


def test_of_several_bases_the_later_wins_and_lists_are_replaced(tmp_path):
    path = write(
        tmp_path,
        top="_BASE_: [a.yaml, b.yaml]\nSEED: 3\n",
        a="OUTPUT_DIR: a\nLOSSES: {NAMES: [x, y]}\nSEED: 1\n",
        b="_BASE_: c.yaml\nLOSSES: {NAMES: [z]}\n",
        c="OUTPUT_DIR: c\n",
    )
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert (cfg.OUTPUT_DIR, cfg.LOSSES.NAMES, cfg.SEED) == ("c", ["z"], 3)


def test_base_may_be_absolute_or_begin_with_home_or_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MY_CONFIGS", str(tmp_path))
    write(tmp_path, base="SEED: 7")
    for base in (tmp_path / "base.yaml", "~/base.yaml", "$MY_CONFIGS/base.yaml"):
        cfg = get_cfg()
        cfg.merge_from_file(write(tmp_path, top=f"_BASE_: {base}"))
        assert cfg.SEED == 7


def test_the_five_line_recipe(tmp_path):
    path = write(
        tmp_path,
        own="MODEL:\n  META_ARCHITECTURE: Any\n  ENCODER: Mine\n  MINE: {SIZE: 3}\n"
        "SOLVER:\n  EPS: 1e-9\n",
    )

    def add_config(cfg, tmp_cfg):
        if tmp_cfg.MODEL.ENCODER == "Mine":
            cfg.MODEL.MINE = CfgNode({"SIZE": 1})

    cfg = get_cfg()
    tmp = cfg.load_from_file_tmp(path)
    assert set(tmp) == {"MODEL", "SOLVER"} and tmp.SOLVER.EPS == "1e-9"
    add_config(cfg, tmp)
    cfg.merge_from_file(path)
    cfg.merge_from_list(["MODEL.MINE.SIZE", "4"])
    cfg.freeze()
    assert cfg.MODEL.MINE.SIZE == 4 and cfg.SOLVER.EPS == 1e-9
    assert load_config(path, ["MODEL.MINE.SIZE", "4"], add_config) == cfg


def test_overrides_can_exchange_a_class_and_set_its_keys(tmp_path):
    path = write(tmp_path, own="MODEL:\n  ENCODER: Other\n  PRED_DROPOUT: 0\n")

    def add_config(cfg, tmp_cfg):
        if tmp_cfg.MODEL.ENCODER == "Mine":
            cfg.MODEL.MINE = CfgNode({"SIZE": 1})

    overrides = ["MODEL.META_ARCHITECTURE", "Any", "MODEL.ENCODER", "Mine"]
    overrides += ["MODEL.MINE.SIZE", "5", "MODEL.PRED_DROPOUT", "0.5"]
    cfg = load_config(path, overrides, add_config)
    assert (cfg.MODEL.MINE.SIZE, cfg.MODEL.PRED_DROPOUT) == (5, 0.5)
    assert load_config("", overrides, add_config).MODEL.MINE.SIZE == 5


def test_a_file_may_set_keys_of_a_class_that_an_override_exchanges(tmp_path):
    path = write(
        tmp_path, own="MODEL:\n  META_ARCHITECTURE: Any\n  ENCODER: FIRST\n  FIRST: {SIZE: 3}\n"
    )

    def add_config(cfg, tmp_cfg):
        cfg.MODEL[tmp_cfg.MODEL.ENCODER] = CfgNode({"SIZE": 1})

    cfg = load_config(path, ["MODEL.ENCODER", "SECOND", "MODEL.SECOND.SIZE", "2"], add_config)
    assert (cfg.MODEL.ENCODER, cfg.MODEL.SECOND.SIZE) == ("SECOND", 2)
    assert "FIRST" not in cfg.MODEL  # or the saved config would not load


def test_keys_of_a_class_that_is_not_named_are_explained(tmp_path):
    path = write(tmp_path, own="MODEL:\n  UPDOWN: {DROPOUT1: 0.5}\n")
    with pytest.raises(KeyError, match=r"'MODEL.UPDOWN' in .*; none of the classes") as caught:
        load_config(path)
    assert "did you mean" not in str(caught.value)


def test_unknown_key_names_file_line_and_nearest_key(tmp_path):
    path = write(tmp_path, top="_BASE_: base.yaml\n", base="SEED: 1\nMODEL:\n  ENCODR: x\n")
    with pytest.raises(KeyError) as caught:
        get_cfg().merge_from_file(path)
    assert isinstance(caught.value, UserError)
    for part in ("MODEL.ENCODR", "base.yaml', line 3", "did you mean 'MODEL.ENCODER'?"):
        assert part in str(caught.value)


def test_wrong_type_names_file_line_and_expected_type(tmp_path):
    path = write(tmp_path, a="SOLVER:\n  EPOCH: many\n")
    with pytest.raises(ValueError, match=r"'SOLVER.EPOCH' in '.*a.yaml', line 2: expected int"):
        get_cfg().merge_from_file(path)


def test_a_failing_file_changes_nothing(tmp_path):
    cfg = get_cfg()
    with pytest.raises(UserError):
        cfg.merge_from_file(write(tmp_path, a="SEED: 5\nNOPE: 1\n"))
    assert cfg == get_cfg()


def test_the_version_of_a_file_must_be_known(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, a="VERSION: 1\nSEED: 2\n"))
    with pytest.raises(UserError, match="Cannot merge a v2 config"):
        cfg.merge_from_file(write(tmp_path, b="VERSION: 2\n"))
    with pytest.raises(UserError, match="from version 0 to 1"):
        cfg.merge_from_file(write(tmp_path, c="VERSION: 0\n"))
    with pytest.raises(UserError, match="VERSION"):
        cfg.load_from_file_tmp(write(tmp_path, d="VERSION: new\n"))


BAD_FILES = {
    "MODEL: [1, 2": "not valid YAML",
    "a: b: c": "line 1",
    "- 1\n- 2": "holds a list",
    "just words": "holds a str",
    "": "holds nothing",
    "1: x": "must be a word",
    "MODEL:\n  3: x": "line 2",
    "_BASE_: {a: 1}": "_BASE_",
    "_BASE_: [1]": "_BASE_",
    "_BASE_: missing.yaml": "does not exist",
    "MODEL: 3": "a section of keys",
    "MODEL:": "a section of keys",
    "MODEL: &a {X: *a}": "contains itself",
    "\ttab: 1": "line 1",
    "SEED: 2020-01-01": "cannot hold a date",
    "SEED: 2020-99-99": "not valid YAML",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_malformed_file_is_one_clear_sentence(tmp_path, text):
    path = write(tmp_path, bad=text)
    with pytest.raises(UserError) as caught:
        get_cfg().merge_from_file(path)
    message = str(caught.value)
    assert BAD_FILES[text] in message
    assert "\n" not in message
    assert "bad.yaml" in message or "missing.yaml" in message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        get_cfg().merge_from_file(str(tmp_path / "nope.yaml"))
    with pytest.raises(UserError, match="is a folder"):
        get_cfg().load_from_file_tmp(str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00A: 1")
    with pytest.raises(UserError, match="not UTF-8"):
        get_cfg().merge_from_file(str(tmp_path / "binary.yaml"))


def test_a_base_under_a_value_is_an_error(tmp_path):
    path = write(tmp_path, top="_BASE_: base.yaml\nMODEL: {A: 1}\n", base="MODEL: 3\n")
    with pytest.raises(UserError, match=r"'MODEL' in '.*top.yaml', line 2 is a section"):
        CfgNode.load_yaml_with_base(path)


def test_a_file_that_includes_itself_is_named(tmp_path):
    path = write(tmp_path, a="_BASE_: b.yaml", b="_BASE_: ./a.yaml")
    with pytest.raises(UserError, match=r"includes itself through _BASE_: .*a.yaml.*b.yaml"):
        get_cfg().merge_from_file(path)


MALICIOUS = [
    "SEED: !!python/object/apply:os.system ['touch {marker}']",
    "SEED: !!python/object/new:os.system ['touch {marker}']",
    "SEED: !!python/name:os.system",
    "SEED: !!python/module:os",
    "OUTPUT_DIR: !!python/object/apply:subprocess.check_output [['touch', '{marker}']]",
    "? !!python/object/apply:os.system ['touch {marker}']\n: 1",
    "SEED: !custom 3",
]


@pytest.mark.parametrize("text", MALICIOUS)
@pytest.mark.parametrize("method", ["merge_from_file", "load_from_file_tmp", "load_yaml_with_base"])
def test_a_tag_executes_nothing_whatever_is_allowed(tmp_path, text, method):
    marker = tmp_path / "executed"
    path = write(tmp_path, evil=text.format(marker=marker))
    with pytest.raises(UserError, match=r"evil\.yaml', line 1"):
        getattr(get_cfg(), method)(path, allow_unsafe=True)
    with pytest.raises(UserError):
        CfgNode.load_cfg(Path(path).read_text())
    assert not marker.exists()


def test_printing_shows_all_or_what_differs_or_a_part(tmp_path):
    path = write(tmp_path, a="SOLVER: {EPOCH: 3, BASE_LR: 0.0005}\nMODEL: {ENCODER: X}\n")
    cfg = load_config(path)
    assert describe_config(cfg, only_changes=True) == (
        "MODEL:\n  ENCODER: X\nSOLVER:\n  EPOCH: 3\n"
    )
    assert describe_config(cfg, key="SOLVER.EPOCH") == "SOLVER:\n  EPOCH: 3\n"
    assert describe_config(cfg, key="SEED", only_changes=True) == ""
    assert get_cfg().load_cfg(describe_config(get_cfg())) == CfgNode.load_cfg(get_cfg().dump())
    with pytest.raises(KeyError, match=r"did you mean 'SOLVER.EPOCH'"):
        describe_config(cfg, key="SOLVER.EPOCHS")


LISTS = (
    "bars.yaml",
    "bars_understanding.yaml",
    "bars_x2vlm.yaml",
    "zoo.yaml",
)  # data about configs, which lie beside them
PARTS = (
    "pretraining.yaml",
    "refcoco_plus.yaml",
    "small_from_scratch.yaml",
)  # named in a _BASE_ behind the config of a model
SHIPPED = sorted(
    path for path in (ROOT / "configs").rglob("*.yaml") if path.name not in LISTS + PARTS
)


@pytest.mark.parametrize("path", SHIPPED, ids=[str(p.relative_to(ROOT)) for p in SHIPPED])
def test_every_shipped_config_loads(path, monkeypatch):
    from xmodaler.modeling import add_config

    monkeypatch.chdir(ROOT)
    cfg = load_config(os.fspath(path), ["OUTPUT_DIR", "./out"], add_config)
    cfg.freeze()
    assert cfg.OUTPUT_DIR == "./out"


def test_a_config_with_an_exchanged_class_can_be_saved_and_loaded(tmp_path):
    from xmodaler.modeling import add_config

    config = str(ROOT / "configs" / "image_caption" / "updown" / "updown.yaml")
    cfg = load_config(config, ["MODEL.DECODER", "GRUDecoder"], add_config)
    assert "UPDOWN" not in cfg.MODEL
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert load_config(str(tmp_path / "config.yaml"), (), add_config) == cfg
