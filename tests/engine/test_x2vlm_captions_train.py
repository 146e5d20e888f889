"""X²-VLM's captioner in training on masked words and on rewards, evaluated, and on raw pictures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import load_config
from xmodaler.engine import build_engine
from xmodaler.inference import Captioner, load
from xmodaler.modeling import add_config
from xmodaler.preprocessing.cider_cache import Written, write_cider_files

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "x2vlm" / "captioning"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [*SPECIAL, "a", "picture", "of", "red", "blue", "ball", "cube", ".", "##s"]
COLOURS = ("red", "blue")
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VOCAB_SIZE": len(WORDS),
    "MODEL.MAX_SEQ_LEN": 12,
    "MODEL.VISION.WIDTH": 16,
    "MODEL.VISION.LAYERS": 1,
    "MODEL.VISION.HEADS": 2,
    "MODEL.TOKEN_EMBED.DIM": 16,
    "MODEL.TOKEN_EMBED.POSITION_MAX_LEN": 32,
    "MODEL.BERT.HIDDEN_SIZE": 16,
    "MODEL.BERT.NUM_ATTENTION_HEADS": 2,
    "MODEL.BERT.INTERMEDIATE_SIZE": 32,
    "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
    "MODEL.FUSION.LAYERS": 1,
    "MODEL.FUSION.MEMORY_WIDTH": 16,
    "DATALOADER.IMAGE_SIZE": 32,
    "DATALOADER.TRAIN_BATCH_SIZE": 4,
    "DATALOADER.NUM_WORKERS": 0,
    "DATASETS.VAL": "",
    "LOSSES.SMOOTHING_EXCLUDES": WORDS.index("[CLS]"),
    "DECODE_STRATEGY.MAX_LENGTH": 6,
    "DECODE_STRATEGY.MIN_LENGTH": 1,
    "SCORER.EOS_ID": WORDS.index("[SEP]"),
    "SOLVER.MAX_ITER": 2,
    "SOLVER.WRITE_PERIOD": 1,
    "SOLVER.BEST_METRIC": "",
    "INFERENCE.METRICS": ["BLEU", "CIDEr"],
    "INFERENCE.TEST_EVAL_START": -1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Plain pictures and their captions, in the released form and in COCO's."""
    folder = tmp_path_factory.mktemp("captions")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    records, references = [], {"images": [], "annotations": []}
    for number in range(8):
        colour = COLOURS[number % 2]
        name = f"COCO_val2014_{number:012d}.png"
        Image.fromarray(np.full((40, 40, 3), 90 * (number % 2), np.uint8)).save(folder / name)
        references["images"].append({"id": number, "file_name": name})
        for thing in ("ball", "cube"):
            caption = f"a {colour} {thing}"
            records.append({"image": name, "caption": f"{caption}.", "image_id": number})
            references["annotations"].append(
                {"id": len(records), "image_id": number, "caption": caption}
            )
    (folder / "captions.json").write_text(json.dumps(records))
    (folder / "references.json").write_text(json.dumps(references))
    written = Written(tokenizer=str(folder / "vocab.txt"))
    write_cider_files(
        folder / "references.json", folder / "gts.json", folder / "cider.json", written=written
    )
    return folder


def trained(recipe, data, output, **changes):
    """A trainer that has taken its steps."""
    files = {
        "MODEL.PRETRAINING.MODEL_NAME": str(data / "vocab.txt"),
        "DATALOADER.IMAGE_FOLDER": str(data),
        "DATALOADER.TRAIN_ANNFILE": str(data / "captions.json"),
        "DATALOADER.TEST_ANNFILE": str(data / "captions.json"),
        "INFERENCE.TEST_ANNFILE": str(data / "references.json"),
        "SCORER.GT_PATH": str(data / "gts.json"),
        "SCORER.CIDER_CACHED": str(data / "cider.json"),
        "OUTPUT_DIR": str(output),
    }
    options = {**SMALL, **files, **changes}
    pairs = [part for pair in options.items() for part in pair]
    cfg = load_config(str(RECIPES / f"{recipe}.yaml"), pairs, add_config)
    trainer = build_engine(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def metrics(output):
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def test_words_are_learned_scored_and_told_of_raw_pictures(data, tmp_path):
    trainer = trained("coco_captioning_base", data, tmp_path)
    (tmp_path / "config.yaml").write_text(trainer.cfg.dump())
    lines = metrics(tmp_path)
    assert all(math.isfinite(line.get("total_loss", 0.0)) for line in lines)
    (results,) = (tmp_path / "results").glob("*.json")
    assert {result["image_id"] for result in json.loads(results.read_text())} == set(range(8))
    captioner = load(tmp_path, device="cpu")
    assert isinstance(captioner, Captioner)
    names = sorted(data.glob("*.png"))[:3]
    first, *_ = captions = captioner.caption(names, num_return=2, return_attention=True)
    assert len(captions) == 3 and len(first.alternatives) == 1
    assert first.attention.shape[1:] == (2, 2)
    assert first.score == pytest.approx(sum(first.log_probs)) and first.score < 0
    pictures = [Image.open(name) for name in names]
    again = [caption.text for caption in captioner.caption(pictures, num_return=2)]
    assert again == [caption.text for caption in captions]
    assert captioner.caption(pictures, sample=True, num_return=3)[0].alternatives


@pytest.mark.parametrize("trainer", ["RLTrainer", "RLBeamTrainer", "RLMeanTrainer"])
def test_rewards_of_sentences(data, tmp_path, trainer):
    changes = {"ENGINE.NAME": trainer, "DATALOADER.SEQ_PER_SAMPLE": 3, "DATASETS.TEST": ""}
    trained("coco_captioning_base_rl", data, tmp_path, **changes)
    for line in metrics(tmp_path):
        assert math.isfinite(line["total_loss"])
        assert line["total_loss"] != 0 or line["reward_spread"] == 0
        assert {"Cider", "reward", "entropy"} <= line.keys()
