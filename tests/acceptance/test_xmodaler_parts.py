"""Modules that users wrote for X-modaler, outside of the package, named in configs and options."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets.build import DATASETS_REGISTRY
from xmodaler.engine import DefaultTrainer, HookBase, hooks
from xmodaler.engine.build import ENGINE_REGISTRY
from xmodaler.engine.running import import_modules
from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.losses.build import LOSSES_REGISTRY
from xmodaler.modeling import add_config, build_model
from xmodaler.modeling.decoder.build import DECODER_REGISTRY
from xmodaler.modeling.encoder.build import ENCODER_REGISTRY

PARTS = Path(__file__).with_name("user_parts.py")
OWN_DATA = (
    "DATASETS.TRAIN",
    "MyDataset",
    "DATASETS.VAL",
    "MyDataset",
    "DATASETS.TEST",
    "MyDataset",
)


REGISTRIES = (
    DATASETS_REGISTRY,
    DECODER_REGISTRY,
    ENCODER_REGISTRY,
    ENGINE_REGISTRY,
    EVALUATION_REGISTRY,
    LOSSES_REGISTRY,
)


@pytest.fixture(scope="module", autouse=True)
def parts():
    """The user's module, registered as any import registers it, for the tests of this file."""
    before = [set(dict(registry)) for registry in REGISTRIES]
    keys = set(kfg)
    import_modules([str(PARTS)])
    yield sys.modules["user_parts"]
    del sys.modules["user_parts"]
    for registry, names in zip(REGISTRIES, before, strict=True):
        for name in set(dict(registry)) - names:
            del registry._objects[name]
    for key in set(kfg) - keys:
        del kfg[key]


def read_config(file, *options):
    """The five lines that every X-modaler script has."""
    cfg = get_cfg()
    tmp_cfg = cfg.load_from_file_tmp(str(file))
    add_config(cfg, tmp_cfg)
    cfg.merge_from_file(str(file))
    cfg.merge_from_list(list(options))
    return cfg


def metrics_of(folder="output"):
    with open(f"{folder}/metrics.json") as file:
        return {name: value for line in file for name, value in json.loads(line).items()}


def test_everything_of_ones_own_at_once(coco, tool):
    """Data set, encoder with keys, decoder, loss, evaluator and trainer, by options alone."""
    outcome = tool(
        "train_net", "--import", PARTS, "--config-file", coco.config, *OWN_DATA,
        "MODEL.ENCODER", "MyTagEncoder", "MODEL.MY_TAGS.SCALE", 2.0, "MODEL.DECODER", "MyDecoder",
        "LOSSES.NAMES", "['CrossEntropy', 'MyLoss']", "INFERENCE.NAME", "MyEvaler",
        "ENGINE.NAME", "MyTrainer", "DECODE_STRATEGY.BEAM_SIZE", 2,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    metrics = metrics_of()
    assert metrics["test/ids/largest"] == 304 and metrics["val/ids/largest"] == 204
    assert metrics["my_acc"] == 0.5
    optimised = metrics["CrossEntropy Loss(G)"] + metrics["MyLoss"]
    assert metrics["total_loss"] == pytest.approx(optimised, rel=1e-6)


def test_own_keys_of_the_batch_reach_own_modules(coco, parts):
    options = (*OWN_DATA, "MODEL.ENCODER", "MyTagEncoder")
    coco.config.write_text(coco.config.read_text() + "\n")
    tmp_file = coco.root / "tags.yaml"
    tmp_file.write_text(f"_BASE_: {coco.config}\nMODEL: {{ENCODER: MyTagEncoder}}\n")
    cfg = read_config(tmp_file, *options)
    assert cfg.MODEL.MY_TAGS.SCALE == 1.0
    trainer = DefaultTrainer(cfg)
    batch = trainer.next_batch()
    trainer.model(batch)
    expected = torch.tensor([[float(int(i) % 7)] * 3 for i in batch[kfg.IDS]])
    assert torch.equal(trainer.model.encoder.seen[0], expected)


@pytest.mark.parametrize("how", ["file", "code", "options"])
def test_the_encoder_of_the_tutorial(coco, parts, how):
    if how == "file":
        own = coco.root / "own.yaml"
        own.write_text("_BASE_: my_updown.yaml\nMODEL:\n  ENCODER: MyEncoder\n")
        cfg = read_config(own)
    elif how == "code":
        cfg = read_config(coco.config)
        cfg.MODEL.ENCODER = "MyEncoder"
    else:
        cfg = read_config(coco.config, "MODEL.ENCODER", "MyEncoder")
    cfg.freeze()
    assert type(build_model(cfg).encoder) is parts.MyEncoder


def test_a_data_set_without_records_is_explained(coco, parts, tool):
    outcome = tool(
        "train_net", "--config-file", coco.config, "DATASETS.TRAIN", "MyDatasetWithoutRecords"
    )
    outcome.is_one_sentence("MyDatasetWithoutRecords", "load_data(self, cfg)")


def test_a_module_inside_of_the_package(coco, tmp_path):
    """A file added to the package registers itself by relative imports."""
    path = tmp_path / "inside.py"
    path.write_text(
        "from ..build import DATASETS_REGISTRY\n"
        "from .mscoco import MSCoCoDataset\n"
        "@DATASETS_REGISTRY.register()\n"
        "class DatasetFromInside(MSCoCoDataset):\n"
        "    pass\n"
    )
    spec = importlib.util.spec_from_file_location("xmodaler.datasets.images.inside", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    cfg = read_config(coco.config, "DATASETS.TRAIN", "DatasetFromInside")
    loader = DefaultTrainer.build_train_loader(cfg)
    assert len(loader) == 3 and next(iter(loader))[kfg.ATT_FEATS].shape[0] == 4


def test_a_module_that_is_not_there_is_named(coco, tool):
    outcome = tool("train_net", "--import", "my_partz", "--config-file", coco.config)
    outcome.is_one_sentence("--import my_partz", "no module")
    outcome = tool("train_net", "--import", "no/parts.py", "--config-file", coco.config)
    outcome.is_one_sentence("no/parts.py", "no such file")


# -- trainers ---------------------------------------------------------------------------------


def test_the_three_lines_of_training(coco, parts):
    cfg = read_config(coco.config, "INFERENCE.NAME", "MyEvaler")
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load()
    metrics = trainer.train()
    assert metrics["test/ids/largest"] == 304 and metrics["total_loss"] > 0
    again = DefaultTrainer(cfg)
    again.resume_or_load()
    assert again.start_iter == again.max_iter == 3


def test_own_loaders_and_hooks(coco, parts):
    stages, calls = [], []

    class Recorder(HookBase):
        def before_train(self):
            calls.append("before_train")

        def after_step(self):
            calls.append((self.trainer.iter, self.trainer.storage.latest()["total_loss"][1]))

        def after_train(self):
            calls.append("after_train")

    class Trainer(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            stages.append("train")
            return list(super().build_train_loader(cfg))[:2]

        @classmethod
        def build_val_loader(cls, cfg):
            stages.append("val")
            return None

        @classmethod
        def build_test_loader(cls, cfg):
            stages.append("test")
            return super().build_test_loader(cfg)

        def build_hooks(self):
            return [*super().build_hooks(), Recorder()]

    trainer = Trainer(read_config(coco.config, "INFERENCE.NAME", "MyEvaler"))
    trainer.register_hooks(
        [None, hooks.CallbackHook(after_step=lambda trainer: calls.append(trainer.max_iter))]
    )
    metrics = trainer.train()
    assert sorted(stages) == ["test", "train", "val"]
    assert calls == ["before_train", (0, 0), 2, (1, 1), 2, "after_train"]
    assert "test/Words" in metrics and "val/Words" not in metrics


def test_a_loader_of_plain_samples(coco, parts):
    """The interface of the original: a loader yields lists, the model collates."""
    from xmodaler.datasets import build_xmodaler_train_loader

    class Trainer(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return build_xmodaler_train_loader(cfg)

    cfg = read_config(coco.config, "DATASETS.VAL", "", "DATASETS.TEST", "")
    assert isinstance(next(iter(Trainer.build_train_loader(cfg))), list)
    listed = Trainer(cfg).train()
    cfg.OUTPUT_DIR = "collated"
    torch.manual_seed(0)
    assert DefaultTrainer(cfg).train().keys() == listed.keys()


# -- evaluators -------------------------------------------------------------------------------


def test_evaluators_of_two_and_of_three_arguments(coco, parts, tool):
    for name in ("MyEvaler", "MyEvalerOfThree"):
        outcome = tool(
            "train_net", "--config-file", coco.config, "INFERENCE.NAME", name, "OUTPUT_DIR", name
        )
        assert outcome.code == 0, outcome.err
    assert "test/Words" in metrics_of("MyEvaler")
    of_three = metrics_of("MyEvalerOfThree")
    assert (of_three["test/Epoch"], of_three["test/HasFolder"]) == (1, 1)


def test_an_evaluator_called_by_hand(coco):
    from xmodaler.evaluation import COCOEvaler, build_evaluation

    cfg = read_config(coco.config)
    evaluator = COCOEvaler(cfg, cfg.INFERENCE.TEST_ANNFILE, "by_hand")
    references = json.loads((coco.data / "captions_test5k.json").read_text())["annotations"]
    first = {entry["image_id"]: entry["caption"] for entry in reversed(references)}
    results = [{"image_id": key, "caption": caption} for key, caption in first.items()]
    scores = evaluator.eval(results, 7)
    for name in ("Bleu_1", "Bleu_2", "Bleu_3", "ROUGE_L"):
        assert scores[name] == pytest.approx(1.0)
    assert 0 < scores["CIDEr"] <= 10
    assert json.loads(Path("by_hand/results/7.json").read_text()) == results
    cfg.INFERENCE.NAME = ""
    assert build_evaluation(cfg, cfg.INFERENCE.TEST_ANNFILE, None) is None
