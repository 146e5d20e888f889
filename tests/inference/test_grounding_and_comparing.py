"""Boxes of phrases, statements about two pictures, questions about videos."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from xmodaler.datasets.tasks.entailment import LABELS
from xmodaler.inference import Answerer, Comparer, Grounder, load
from xmodaler.inference.drawing import FOUND
from xmodaler.utils.errors import UserError

SIZES = [(60, 40), (120, 80)]
ANSWERS = ["red", "ball", "two"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, write_tower_run):
    """Loads the tiny model of a task, made once."""
    made = {}

    def get(task, **changes):
        if task not in made:
            folder = write_tower_run(tmp_path_factory.mktemp("run"), task, **changes)
            if task == "X2VLMClassifier":
                (folder / "answers.json").write_text(json.dumps(ANSWERS))
            made[task] = load(folder, device="cpu")
        return made[task]

    return get


def noise(seed, size=(60, 40)):
    values = np.random.RandomState(seed).randint(0, 255, (size[1], size[0], 3))
    return Image.fromarray(values.astype(np.uint8))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(3):
        noise(k).save(folder / f"{k}.png")
    return folder


def test_a_box_is_in_pixels_of_the_picture(loaded, files):
    grounder = loaded("X2VLMGrounding")
    assert isinstance(grounder, Grounder) and ".ground(" in grounder.ability
    found = grounder.ground(str(files / "0.png"), "red ball")
    x, y, width, height = found.box
    assert found.size == (60, 40) and found.phrase == "red ball"
    assert 0 <= x < x + width <= 60 and 0 <= y < y + height <= 40
    assert found.corners == (x, y, x + width, y + height)
    # Twice the picture, twice the box.
    one, two = (grounder.ground(Image.new("RGB", size, "red"), "ball") for size in SIZES)
    assert two.box == pytest.approx([2 * side for side in one.box], abs=1e-3)
    line = json.loads(json.dumps(found.as_dict()))
    assert line["width"] == 60 and len(line["box"]) == 4


def test_boxes_are_those_of_the_model(loaded, files):
    grounder = loaded("X2VLMGrounding")
    names = [str(files / f"{k}.png") for k in range(3)]
    phrases = ["red ball", "ball", "left red red"]
    alone = [grounder.ground(n, p).box for n, p in zip(names, phrases, strict=True)]
    together = grounder.ground(names, phrases)
    assert [found.id for found in together] == names
    for found, box in zip(together, alone, strict=True):
        assert found.box == pytest.approx(box, abs=1e-3)
    of_one = grounder.ground(names[0], phrases, batch_size=2)
    assert of_one[0].box == pytest.approx(alone[0], abs=1e-3)
    assert len({found.box for found in of_one}) == 3
    assert len(grounder.ground(names, "red")) == 3


def test_boxes_are_drawn_and_saved(loaded, files, tmp_path):
    found = loaded("X2VLMGrounding").ground(str(files / "1.png"), "red ball")
    path = found.save(tmp_path / "found.png")
    with Image.open(path) as drawn:
        pixels = np.asarray(drawn).reshape(-1, 3)
        assert drawn.size == found.size and (pixels == FOUND).all(1).any()
    with pytest.raises(UserError, match="cannot be written"):
        found.save(tmp_path / "found.nothing")
    with Image.open(files / "1.png") as untouched:
        assert not (np.asarray(untouched).reshape(-1, 3) == FOUND).all(1).any()


def test_attention_is_shown_on_request(loaded, files):
    grounder = loaded("X2VLMGrounding")
    names = [str(files / f"{k}.png") for k in range(2)]
    plain = grounder.ground(names, ["red ball", "ball"])
    found = grounder.ground(names, ["red ball", "ball"], return_attention=True)
    assert plain[0].attention is None and plain[0].words == ()
    assert found[0].words == ("[CLS]", "red", "ball", "[SEP]")
    assert found[0].attention.shape == (4, 2, 2) and found[1].attention.shape == (3, 2, 2)
    for one, other in zip(plain, found, strict=True):
        assert one.box == pytest.approx(other.box, abs=1e-3)
        # Patches and the token of the whole picture share the attention.
        assert (other.attention.sum((1, 2)) < 1).all() and (other.attention > 0).all()
    assert not any("ask" in vars(module) for module in grounder.model.modules())


def test_attention_of_statements(loaded, files):
    names = [str(files / f"{k}.png") for k in range(2)]
    comparer = loaded("X2VLMReasoning")
    plain = comparer.compare(*names, ["two ball", "red"])
    found = comparer.compare(*names, ["two ball", "red"], return_attention=True)
    assert plain[0].attention is None and found[0].words == ("[CLS]", "two", "ball", "[SEP]")
    for one, other, length in zip(plain, found, (4, 3), strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-4)
        first, second = other.attention
        assert first.shape == second.shape == (length, 2, 2)
        assert not np.allclose(first, second)
    # The maps are in the order of the pictures.
    (swapped,) = comparer.compare([names[1]], [names[0]], ["red"], return_attention=True)
    np.testing.assert_allclose(swapped.attention[0], found[1].attention[1], atol=1e-5)


@pytest.mark.parametrize(
    ("picture", "phrase", "message"),
    [
        ("gone.png", "red", "does not exist"),
        ("film.mp4", "red", "is a video"),
        (None, "red", "cannot be"),
        ("0.png", " ", "empty"),
        ("0.png", "?!", "no word"),
        ("0.png", [], "no phrase"),
    ],
)
def test_what_cannot_be_searched_is_said(loaded, files, picture, phrase, message):
    source = str(files / picture) if picture else picture
    with pytest.raises(UserError, match=message):
        loaded("X2VLMGrounding").ground(source, phrase)


def test_one_bad_picture_of_many_may_be_left_out(loaded, files):
    names = [str(files / "0.png"), str(files / "gone.png")]
    found = loaded("X2VLMGrounding").ground(names, "red", on_error="skip")
    assert [one.id for one in found] == names[:1]


def test_statements_about_two_pictures(loaded, files):
    comparer = loaded("X2VLMReasoning")
    assert isinstance(comparer, Comparer)
    names = [str(files / f"{k}.png") for k in range(3)]
    found = comparer.compare(names[0], names[1], "two red ball")
    assert found.ids == tuple(names[:2]) and 0 <= found.probability <= 1
    assert found.is_true == (found.probability >= 0.5) == bool(found)
    assert str(found) in ("true", "false") and found.as_dict()["label"] is found.is_true
    # The places of the pictures matter.
    swapped = comparer.compare(names[1], names[0], "two red ball")
    assert abs(swapped.probability - found.probability) > 1e-6
    many = comparer.compare(names[:2], names[1:], ["two red ball", "ball"], batch_size=1)
    assert many[0].probability == pytest.approx(found.probability, abs=1e-5)
    assert many[1].ids == (names[1], names[2])
    assert len(comparer.compare(names[0], names[1], ["red", "ball", "two"])) == 3
    assert len(comparer.compare(names[:2], names[1:], "red")) == 2


def test_pairs_must_be_pairs(loaded, files):
    comparer = loaded("X2VLMReasoning")
    one, two = str(files / "0.png"), str(files / "1.png")
    with pytest.raises(UserError, match="do not pair up"):
        comparer.compare([one, two], [one], "red")
    with pytest.raises(UserError, match="2 pairs of pictures and 3 statements"):
        comparer.compare([one, two], [two, one], ["red"] * 3)
    with pytest.raises(UserError, match="does not exist"):
        comparer.compare(one, str(files / "gone.png"), "red")
    pairs = [one, one], [two, str(files / "gone.png")]
    assert len(comparer.compare(*pairs, "red", on_error="skip")) == 1


def test_models_say_what_they_can_do(loaded, files):
    with pytest.raises(UserError, match=r"has no \.ground\(\.\.\.\): it tells whether"):
        loaded("X2VLMReasoning").ground(str(files / "0.png"), "red")
    with pytest.raises(UserError, match=r"has no \.compare\(\.\.\.\): it finds what"):
        loaded("X2VLMGrounding").compare(1, 2, "red")


def test_questions_about_videos(loaded, files, tmp_path):
    answerer = loaded(
        "X2VLMClassifier",
        **{
            "MODEL.X2VLM.NUM_LABELS": len(ANSWERS),
            "MODEL.VISION.FRAME_POSITIONS": 4,
            "DATALOADER.TASK.VIDEO": True,
            "DATALOADER.MAX_FEAT_NUM": 4,
        },
    )
    assert isinstance(answerer, Answerer) and answerer.kind == "videos"
    # A folder of frames, one that is shorter than the model wants, and frames in memory.
    found = answerer.answer(str(files), "what is red")
    assert found.text in ANSWERS and len(found) == 3
    assert sum(share for _, share in found) == pytest.approx(1, abs=1e-5)
    in_memory = answerer.answer([[noise(k) for k in range(3)]], ["what is red"])
    assert in_memory[0].probability == pytest.approx(found.probability, abs=1e-5)
    shown = answerer.answer(str(files), "two red ball", return_attention=True)
    assert found.words == () and shown.words == ("[CLS]", "two", "red", "ball", "[SEP]")
    assert shown.attention.shape == (5, 2, 2)
    assert dict(shown) == pytest.approx(dict(answerer.answer(str(files), "two red ball")), abs=1e-5)
    frames = []
    for k in range(3):
        file = io.BytesIO()
        noise(k).save(file, "PNG")
        frames.append(base64.b64encode(file.getvalue()).decode())
    (tmp_path / "video.json").write_text(json.dumps(frames))
    listed = answerer.answer(str(tmp_path / "video.json"), "what is red")
    assert listed.probability == pytest.approx(found.probability, abs=1e-5)
    with pytest.raises(UserError, match="does not exist"):
        answerer.answer(str(tmp_path / "gone.mp4"), "what is red")


def test_entailment_answers_with_its_labels(loaded, files):
    changes = {"MODEL.X2VLM.NUM_LABELS": 3}
    found = loaded("entailment", **changes).answer(str(files / "0.png"), "two red ball")
    assert {text for text, _ in found} == set(LABELS)


def test_the_command_line_finds_and_compares(loaded, files, tmp_path, capsys):
    from xmodaler.inference.predicting import predict

    def weights(task):
        return loaded(task).weights

    one, two = str(files / "0.png"), str(files / "1.png")
    drawn = tmp_path / "drawn"
    code = predict(weights("X2VLMGrounding"), [one, two], phrase=["red ball"], draw=str(drawn))
    # Tests before this one may have set up a logger that writes there as well.
    lines = [line for line in capsys.readouterr().out.splitlines() if "\t" in line]
    assert code == 0 and [line.split("\t")[:2] for line in lines] == [
        [one, "red ball"],
        [two, "red ball"],
    ]
    assert sorted(path.name for path in drawn.iterdir()) == ["0_red-ball.png", "1_red-ball.png"]
    predict(weights("X2VLMReasoning"), [one, two, two, one], statement=["red"], jsonl="-")
    written = capsys.readouterr().out.splitlines()
    lines = [json.loads(line) for line in written if line.startswith("{")]
    assert [line["images"] for line in lines] == [[one, two], [two, one]]
    with pytest.raises(UserError, match="3 pictures do not make pairs"):
        predict(weights("X2VLMReasoning"), [one, two, one], statement=["red"])
    with pytest.raises(UserError, match="give --phrase too"):
        predict(weights("X2VLMReasoning"), [one], draw="here")
    with pytest.raises(UserError, match="give one of them alone"):
        predict(weights("X2VLMReasoning"), [one], phrase=["a"], question=["b"])
    with pytest.raises(UserError, match=r"has no \.ground"):
        predict(weights("X2VLMReasoning"), [one], phrase=["a"])
