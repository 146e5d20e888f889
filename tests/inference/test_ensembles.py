"""Several captioners in one search, from Python and from the command line."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodaler.inference import load
from xmodaler.utils.arguments import default_argument_parser
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FEATURES = [np.random.default_rng(i).normal(size=(4, 6)).astype(np.float32) for i in range(5)]
TRANSFORMER = {
    "MODEL.META_ARCHITECTURE": "TransformerEncoderDecoder",
    "MODEL.ENCODER": "TransformerEncoder",
    "MODEL.DECODER": "TransformerDecoder",
    "MODEL.TOKEN_EMBED.POSITION": "SinusoidEncoding",
    "MODEL.TOKEN_EMBED.POSITION_MAX_LEN": 12,
    "MODEL.BERT.HIDDEN_SIZE": 16,
    "MODEL.BERT.INTERMEDIATE_SIZE": 16,
    "MODEL.BERT.NUM_ATTENTION_HEADS": 2,
    "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
    "MODEL.BERT.NUM_GENERATION_LAYERS": 2,
    "MODEL.MAX_SEQ_LEN": 6,
}


@pytest.fixture(scope="module")
def runs(write_run, tmp_path_factory):
    """Two runs of Up-Down with other weights, and one of a Transformer."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second", "third")]
    write_run(folders[0])
    write_run(folders[1], **{"MODEL.DECODER_DIM": 24})
    write_run(folders[2], **TRANSFORMER)
    return folders


def texts(captioner, **options):
    return [caption.text for caption in captioner.caption(FEATURES, **options)]


def test_a_member_that_alone_counts_decides(runs):
    for chosen in range(3):
        weights = [0.0] * 3
        weights[chosen] = 2.0
        both = load(runs, device="cpu", model_weights=weights)
        for beam_size in (1, 3):
            alone = load(runs[chosen], device="cpu")
            expected = alone.caption(FEATURES, beam_size=beam_size)
            found = both.caption(FEATURES, beam_size=beam_size)
            shorter = [caption.words[:6] for caption in expected]
            if beam_size == 1:
                assert [caption.words for caption in found] == shorter
            elif chosen == 2:  # the shortest member, which bounds all
                assert [caption.words for caption in found] == shorter
                for own, other in zip(expected, found, strict=True):
                    assert own.score == pytest.approx(other.score, abs=1e-4)


def test_the_average_is_that_of_the_distributions(runs):
    """The score of a word is the log of the mean of the members' probabilities."""
    captioner = load([runs[0], runs[2]], device="cpu", model_weights=[1, 3])
    caption = captioner.caption(FEATURES[0], beam_size=3)[0]
    members = list(captioner.model.models)
    batch = captioner.model.preprocess_batch([captioner._read(next(_items(FEATURES[0])))])
    ids = [captioner.model.greedy_decoder.vocab.index(word, 1) for word in caption.words] + [0]
    states = [member.start(batch) for member in members]
    word = torch.zeros(1, dtype=torch.long)
    with torch.inference_mode():
        for target, log_prob in zip(ids, caption.log_probs, strict=False):
            probabilities = []
            for number, member in enumerate(members):
                logits, states[number] = member.step(word, states[number])
                probabilities.append(logits.softmax(-1)[0, target].item())
            mean = 0.25 * probabilities[0] + 0.75 * probabilities[1]
            assert log_prob == pytest.approx(np.log(mean), abs=1e-4)
            word = torch.tensor([target])


def _items(features):
    from xmodaler.inference.inputs import expand

    return iter(expand(features))


def test_batches_and_single_pictures_agree(runs):
    captioner = load(runs, device="cpu")
    assert texts(captioner, batch_size=5) == texts(captioner, batch_size=1)
    best = captioner.caption(FEATURES, beam_size=3, num_return=3)
    assert all(len(caption.alternatives) == 2 for caption in best)


def test_sampling_works_too(runs):
    captioner = load(runs, device="cpu")
    torch.manual_seed(0)
    first = texts(captioner, sample=True, beam_size=1)
    torch.manual_seed(0)
    assert texts(captioner, sample=True, beam_size=1) == first


def test_what_does_not_go_together(runs, write_run, tmp_path, picture_run):
    for name in ("swapped", "larger"):
        (tmp_path / name).mkdir()
    swapped = write_run(tmp_path / "swapped")
    words = (swapped / "vocabulary.txt").read_text().split()
    words[1], words[2] = words[2], words[1]
    (swapped / "vocabulary.txt").write_text("\n".join(words) + "\n")
    with pytest.raises(UserError, match=r"different vocabularies .*'the' and 'red' as word 2"):
        load([runs[0], swapped], device="cpu")
    larger = write_run(tmp_path / "larger", **{"MODEL.VOCAB_SIZE": 12})
    with pytest.raises(UserError, match=r"10 and 12 words \(MODEL.VOCAB_SIZE\)"):
        load([runs[0], larger], device="cpu")
    with pytest.raises(UserError, match=r"features .*pictures of 32 pixels"):
        load([runs[0], picture_run], device="cpu")


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (2, [1.0], "ensemble of 2 models has 1"),
        (2, [0.0, 0.0], "not all 0"),
        (2, [2.0, -1.0], "0 or more"),
        (0, None, "at least one model"),
    ],
)
def test_wrong_weights_are_refused(runs, count, weights, message):
    with pytest.raises(UserError, match=message):
        load(runs[:count], device="cpu", model_weights=weights)


def test_weights_for_one_model_are_refused(runs):
    with pytest.raises(UserError, match="give several paths"):
        load(runs[0], device="cpu", model_weights=[1.0])


def test_from_the_command_line(runs, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("predict_tool", ROOT / "tools" / "predict.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    np.save(tmp_path / "one.npy", FEATURES[0])
    weights = [part for run in runs for part in ("--weights", str(run))]
    options = [*weights, "--model-weights", "1,2,1", "--device", "cpu", "--jsonl", "-"]
    code = tool.main([*options, str(tmp_path / "one.npy")])
    assert code == 0
    (line,) = capsys.readouterr().out.splitlines()
    captioner = load(runs, device="cpu", model_weights=[1, 2, 1])
    assert json.loads(line)["caption"] == captioner.caption(FEATURES[0])[0].text


@pytest.fixture
def evaluation(runs, tmp_path):
    """Overrides that evaluate on five feature files."""
    for number, features in enumerate(FEATURES):
        np.savez(tmp_path / f"{number}.npz", features=features)
    lines = [{"id": str(n), "image": f"{n}.png", "captions": ["a red ball"]} for n in range(5)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    opts = {
        "ENGINE.NAME": "Ensembler",
        "DATASETS.TRAIN": "CaptionDataset",
        "DATASETS.VAL": "",
        "DATASETS.TEST": "CaptionDataset",
        "DATALOADER.TEST_ANNFILE": str(tmp_path / "captions.jsonl"),
        "DATALOADER.FEATS_FOLDER": str(tmp_path),
        "DATALOADER.NUM_WORKERS": 0,
        "INFERENCE.TEST_ANNFILE": str(tmp_path / "captions.jsonl"),
        "INFERENCE.METRICS": ["CIDEr-D"],
        "INFERENCE.VOCAB": str(runs[0] / "vocabulary.txt"),
        "INFERENCE.ID_KEY": "image_id",
        "OUTPUT_DIR": str(tmp_path / "out"),
    }
    return opts


def evaluate(runs, opts, *flags):
    from xmodaler.engine.running import run

    flat = [str(part) for pair in opts.items() for part in pair]
    arguments = ["--config-file", str(runs[0] / "config.yaml"), *flags, *flat]
    return run(default_argument_parser().parse_args(arguments))


def test_evaluation_of_an_ensemble(runs, evaluation, tmp_path):
    opts = {**evaluation, "MODEL.ENSEMBLE_WEIGHTS": [str(run) for run in runs]}
    opts["DECODE_STRATEGY.NAME"], opts["DECODE_STRATEGY.BEAM_SIZE"] = "EnsembleBeamSearcher", 3
    scores = evaluate(runs, opts, "--eval-only")
    assert "CIDEr-D" in scores
    results = json.loads((tmp_path / "out" / "results" / "-1.json").read_text())
    found = {str(result["image_id"]): result["caption"] for result in results}
    assert [found[str(n)] for n in range(5)] == texts(load(runs, device="cpu"))


def test_members_without_a_config_have_that_of_the_run(runs, evaluation, tmp_path):
    (tmp_path / "bare").mkdir()
    bare = tmp_path / "bare" / "model.pth"
    bare.write_bytes((runs[0] / "model_final.pth").read_bytes())
    opts = {**evaluation, "MODEL.ENSEMBLE_WEIGHTS": [str(bare), str(runs[0])]}
    evaluate(runs, opts, "--eval-only")
    results = json.loads((tmp_path / "out" / "results" / "-1.json").read_text())
    assert [result["caption"] for result in results] == texts(
        load(runs[0], device="cpu"), beam_size=3
    )


@pytest.mark.parametrize(
    ("flags", "weights", "message"),
    [
        (["--eval-only"], [""], "ENSEMBLE_WEIGHTS names no weights"),
        ([], None, "trains none; add --eval-only"),
        (["--eval-only"], ["nowhere"], "'nowhere' does not exist"),
    ],
)
def test_wrong_uses_are_said(runs, evaluation, flags, weights, message):
    weights = [str(runs[0])] if weights is None else weights
    with pytest.raises(UserError, match=message):
        evaluate(runs, {**evaluation, "MODEL.ENSEMBLE_WEIGHTS": weights}, *flags)
