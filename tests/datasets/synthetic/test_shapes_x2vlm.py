"""Lines, expressions, statements, video questions and languages of the generated data."""

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from xmodaler.datasets.synthetic import Scene, add_x2vlm, make_shapes, sample_scene
from xmodaler.datasets.synthetic.chance import RandomChooser, UsualChooser, generator
from xmodaler.datasets.synthetic.concepts import SPLITS
from xmodaler.datasets.synthetic.motions import motions_from_json, sample_motions
from xmodaler.datasets.synthetic.plans import Mention, Plan
from xmodaler.datasets.synthetic.referring import sample_references
from xmodaler.datasets.synthetic.sampling import fits, sample_crowd
from xmodaler.datasets.synthetic.scene import Ground
from xmodaler.datasets.synthetic.statements import sample_statement
from xmodaler.datasets.synthetic.tongues import TONGUES
from xmodaler.datasets.synthetic.video_questions import sample_video_questions
from xmodaler.utils.errors import UserError

KINDS = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SIZES = {"small": "small", "little": "small", "big": "big", "large": "big"}
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("x2vlm") / "set"
    make_shapes(str(out), size=40, seed=3, videos=10, x2vlm=True)
    return out


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shapes_of(scene):
    """What a reader sees: size, colour, noun and place."""
    noun = {"crescent": "moon"}
    return [(s.size, s.colour, noun.get(s.kind, s.kind), s.x, s.y) for s in scene.shapes]


def fitting(shapes, words):
    """The shapes that words such as "small red stars" describe."""
    words = [re.sub("(?<=ss)es$|(?<!s)s$", "", word) for word in words]
    said = [SIZES.get(w, w) for w in words if w in SIZES or w in COLOURS or w in KINDS]
    return [shape for shape in shapes if all(word in shape[:3] for word in said)]


# -- expressions ------------------------------------------------------------------------------


PLACES = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "over": (1, -1), "below": (1, 1)}
PLACES["under"] = (1, 1)
ENDS = {"leftmost": (3, False), "rightmost": (3, True), "top": (4, False), "bottom": (4, True)}


RELATED = re.compile(
    r"(.+?) (?:to the )?(left of|right of|above|over|below|under|next to|beside|inside|in) the (.+)"
)


def meant(scene, text):
    """Indices of the shapes that an expression can mean, by other rules than the generator's."""
    shapes = shapes_of(scene)
    related = RELATED.fullmatch(text)
    if related is None:
        first = text.split()[0]
        found = fitting(shapes, text.split())
        if first in ENDS:
            place, greatest = ENDS[first]
            found = sorted(found, key=lambda shape: shape[place], reverse=greatest)[:1]
    else:
        head, relation, landmark = related.groups()
        (other,) = fitting(shapes, landmark.split())
        found = [
            shape
            for shape in fitting(shapes, head.split())
            if shape is not other and stands(scene, shapes, shape, other, relation.split()[0])
        ]
    return [shapes.index(shape) for shape in found]


def stands(scene, shapes, one, other, relation):
    inner, outer = (scene.shapes[shapes.index(shape)] for shape in (one, other))
    distance = np.hypot(inner.x - outer.x, inner.y - outer.y)
    within = distance < 0.09
    if relation in ("inside", "in"):
        return within and inner.radius < outer.radius
    if within:
        return False
    if relation in ("next", "beside"):
        return distance - inner.radius - outer.radius < 0.075
    return is_shifted(one, other, *PLACES[relation])


def is_shifted(one, other, axis, sign):
    shift = (one[3 + axis] - other[3 + axis]) * sign
    across = abs(one[4 - axis] - other[4 - axis])
    return shift > 0.05 and (shift > across or (axis == 0 and shift == across))


def test_expressions_mean_one_shape_that_is_not_alone_of_its_kind():
    ways = Counter()
    for index in range(150):
        scene = sample_crowd(5, "train", index)
        assert fits(scene.shapes) and 3 <= len(scene.shapes) <= 4
        chooser = RandomChooser(generator(5, "train", index, "references"))
        for target, shape in enumerate(scene.shapes):
            for reference in sample_references(scene, target, 3, chooser):
                text = reference.words(chooser)
                assert meant(scene, text) == [target], (text, scene)
                assert len(scene.select(kind=shape.kind)) > 1
                way = reference.relation or reference.extreme or "look"
                ways[way] += 1
    assert ways["look"] > 100 and ways["left_of"] > 30 and ways["leftmost"] > 30


def test_expressions_come_as_refcoco_writes_them(folder):
    place = folder / "x2vlm" / "grounding"
    refs = {ref["ref_id"]: ref for ref in read(place / "refs.json")}
    instances = read(place / "instances.json")
    boxes = {annotation["id"]: annotation for annotation in instances["annotations"]}
    images = {image["id"]: image for image in instances["images"]}
    assert {ref["split"] for ref in refs.values()} == {"train", "val", "testA", "testB"}
    count = 0
    for split in SPLITS:
        for record in read(place / f"{split}.json"):
            ref = refs[record["ref_id"]]
            assert record["text"] in [sentence["raw"] for sentence in ref["sentences"]]
            assert ref["split"].startswith(split) and (folder / record["image"]).is_file()
            annotation = boxes[ref["ann_id"]]
            assert annotation["image_id"] == ref["image_id"]
            assert images[ref["image_id"]]["file_name"] == record["image"].split("/")[-1]
            x, y, width, height = annotation["bbox"]
            assert min(x, y) >= 0 and max(x + width, y + height) <= 64
            big = min(width, height) > 16
            assert ref["split"] in ("train", "val", "testA" if big else "testB")
            count += 1
    assert count == sum(len(ref["sentences"]) for ref in refs.values())


# -- statements -------------------------------------------------------------------------------


def truth(left, right, text):
    """Whether a reader finds a statement true."""
    words = text.split()
    if words[-1] == "background":
        return left.ground.pattern == right.ground.pattern == words[-2]
    if text.startswith("in one picture"):
        cut = next(k for k, word in enumerate(words) if word in PLACES and k > 2)
        return any(
            stands(scene, shapes_of(scene), one, other, words[cut])
            for scene in (left, right)
            for one in fitting(shapes_of(scene), words[3:cut])
            for other in fitting(shapes_of(scene), words[cut:])
        )
    subject = words[: words.index("than")] if "than" in words else words
    one, other = (len(fitting(shapes_of(scene), subject)) for scene in (left, right))
    if "than" in words:
        return one > other if words[1] == "left" else other > one
    if words[0] == "there":
        return one + other == NUMBERS[words[2]]
    if words[0] == "both":
        return bool(one and other)
    if words[0] == "only":
        return bool(one) != bool(other)
    return bool(one if words[1] == "left" else other)


def test_statements_are_true_of_one_pair_and_false_of_another():
    scenes = [sample_scene(7, "val", index) for index in range(300)]
    topics = Counter()
    for index in range(len(scenes)):
        chooser = RandomChooser(generator(7, "val", index, "statements"))
        judged = sample_statement(scenes, index, chooser)
        if judged is None:
            continue
        topics[judged.statement.topic] += 1
        text = judged.statement.words()
        for label, pair in ((True, judged.true), (False, judged.false)):
            assert truth(*(scenes[k] for k in pair), text) == label, text
    assert sum(topics.values()) > 200 and min(topics.values()) > 3 and len(topics) == 9


def test_nobody_judges_statements_by_their_words_or_by_one_picture(folder):
    records = read(folder / "x2vlm" / "reasoning" / "train.json")
    labels = defaultdict(list)
    for record in records:
        labels[record["sentence"]].append(record["label"])
        assert len(record["images"]) == 2
        assert all((folder / image).is_file() for image in record["images"])
    assert all(2 * said.count("True") == len(said) for said in labels.values())


# -- videos -----------------------------------------------------------------------------------


def happening(question, scene, motions):
    """The answer of somebody who knows what happens."""
    does = {
        "still": "nothing", "move_left": "moves sideways", "move_right": "moves sideways",
        "move_up": "moves up or down", "move_down": "moves up or down",
        "grow": "changes size", "shrink": "changes size", "blink": "blinks",
    }  # fmt: skip
    manners = {i: does[motion.name] for members, motion in motions.items() for i in members}
    shapes = shapes_of(scene)
    words = question.strip("?").split()
    if words[:2] in (["what", "shape"], ["what", "color"]):
        doing = " ".join(words[2:] if words[1] == "shape" else words[6:])
        (found,) = {shapes[i][:3] for i, manner in manners.items() if manner == doing}
        return found[2 if words[1] == "shape" else 1]
    named = fitting(shapes, words)
    (manner,) = {manners[shapes.index(shape)] for shape in named}
    if words[0] == "what":
        return manner
    said = "nothing" if words[-1] == "still" else " ".join(words[4:])
    return "yes" if manner.replace("s", "") == said.replace("s", "") else "no"


def test_answers_about_videos_are_true(folder):
    labels = read(folder / "x2vlm" / "video_qa" / "answer2label.json")
    assert sorted(labels.values()) == list(range(len(labels)))
    for split in SPLITS:
        truths = {str(r["image_id"]): r for r in read_lines(folder / f"video_scenes_{split}.jsonl")}
        for record in read_lines(folder / "x2vlm" / "video_qa" / f"{split}.jsonl"):
            video = truths[record["video_id"]]
            scene, motions = Scene.from_json(video), motions_from_json(video["motions"])
            assert record["answer"] == happening(record["question"], scene, motions), record
            assert record["answer"] in labels
            frames = folder / "x2vlm" / "frames" / record["video_id"]
            assert len(list(frames.iterdir())) == 8


def test_questions_about_videos_ask_for_the_video():
    """Whoever gives the commonest answer to each question of one half stays near chance."""
    asked = []
    for index in range(400):
        scene = sample_scene(9, "train", index)
        motions = sample_motions(scene, 9, "train", index)
        chooser = RandomChooser(generator(9, "train", index, "video_questions"))
        asked += sample_video_questions(scene, motions, chooser)
    half = len(asked) // 2
    seen = defaultdict(Counter)
    for question in asked[:half]:
        seen[question.topic, question.manner][question.answer] += 1
    right = defaultdict(list)
    for question in asked[half:]:
        guess = seen[question.topic, question.manner].most_common(1)
        right[question.topic].append(bool(guess) and guess[0][0] == question.answer)
    assert 0.4 < np.mean(right["does"]) < 0.62
    assert np.mean(right["manner_of"]) < 0.4
    assert np.mean(right["kind_of"]) < 0.25 and np.mean(right["colour_of"]) < 0.25


# -- languages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "related", "several"),
    [
        ("en", "A small red star above two blue circles on a striped grey background.",
         "Three green hearts and a big pink moon."),
        ("de", "Ein kleiner roter Stern über zwei blauen Kreisen auf einem gestreiften grauen "
         "Hintergrund.", "Drei grüne Herzen und ein großer rosafarbener Mond."),
        ("fr", "Une petite étoile rouge au-dessus de deux cercles bleus sur un fond gris rayé.",
         "Trois coeurs verts et une grande lune rose."),
        ("zh", "灰色条纹背景上,一颗小的红色星星在两个蓝色圆形的上面。",
         "三颗绿色爱心和一个大的粉色月亮。"),
        ("ja", "灰色の縞模様の背景の前で、二つの青い丸の上に一つの小さい赤い星。",
         "三つの緑のハートと一つの大きい桃色の月。"),
    ],
)  # fmt: skip
def test_languages_say_plans(code, related, several):
    star, circles = Mention((0,), "star", "red", "small"), Mention((1, 2), "circle", "blue", None)
    hearts = Mention((0, 1, 2), "heart", "green", None)
    moon = Mention((3,), "crescent", "pink", "big")
    plan = Plan((star, circles), "above", Ground("grey", "striped"))
    assert TONGUES[code].sentence(plan, UsualChooser()) == related
    assert TONGUES[code].sentence(Plan((hearts, moon)), UsualChooser()) == several


def test_every_word_of_every_language_is_in_the_vocabulary(folder):
    from xmodaler.tokenization import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(str(folder / "x2vlm" / "vocab.txt"))
    pieces = set()
    for path in sorted((folder / "x2vlm").rglob("*.json*")):
        content = read(path) if path.suffix == ".json" else read_lines(path)
        for text in texts_of(content):
            cut = tokenizer.tokenize(text)
            assert "[UNK]" not in cut, (path, text)
            pieces.update(cut)
    assert len(pieces) > 300


def texts_of(content, key="caption"):
    """All that is said in a file."""
    said = ("caption", "text", "sentence", "question", "answer", "source_text", "target_text")
    said += ("attributes", "en", "de", "fr", "zh", "ja", "raw")
    if isinstance(content, str):
        return [content] if key in said else []
    if isinstance(content, dict):
        return [text for name, value in content.items() for text in texts_of(value, name)]
    if isinstance(content, list):
        return [text for value in content for text in texts_of(value, key)]
    return []


# -- the files --------------------------------------------------------------------------------


def test_lines_name_pictures_and_boxes_in_them(folder):
    for split in SPLITS:
        place = folder / "x2vlm" / "pretrain"
        regions = read_lines(place / f"regions_{split}.jsonl")
        assert len(regions) == 2 * len(read_lines(place / f"images_{split}.jsonl"))
        for record in regions:
            assert (folder / record["image"]).is_file()
            assert record["elems"]
            for element in record["elems"]:
                x, y, width, height = element["bb"]
                assert min(x, y) >= 0 and x + width <= 64 and y + height <= 64
                assert min(width, height) > 5
        for record in read_lines(place / f"videos_{split}.jsonl"):
            assert all((folder / frame).is_file() for frame in record["image"])
            assert len(record["caption"]) == 5
        for record in read_lines(place / f"multilingual_{split}.jsonl"):
            assert record["caption"].keys() == TONGUES.keys()
        assert {r["target_language"] for r in read_lines(place / f"parallel_{split}.jsonl")} == (
            TONGUES.keys() - {"en"}
        )


def test_searches_have_the_same_pictures_in_every_language(folder):
    place = folder / "x2vlm"
    for split in SPLITS:
        pictures = [record["image"] for record in read(place / "retrieval" / f"{split}.json")]
        assert all((folder / picture).is_file() for picture in pictures)
        for code in TONGUES:
            records = read(place / "multilingual" / code / f"{split}.json")
            assert {record["image"] for record in records} == set(pictures)
    videos = read(place / "retrieval" / "videos_test.json")
    assert all((folder / record["video"]).is_dir() for record in videos)


def test_an_older_set_gets_them_too(folder, tmp_path):
    other = tmp_path / "old"
    make_shapes(str(other), 40, 3, videos=10, understanding=False)
    assert add_x2vlm(other) and not add_x2vlm(other)
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len(paths) > 300
    for path in paths:
        assert (other / path).read_bytes() == (folder / path).read_bytes(), path
    with pytest.raises(UserError, match="gets no"):
        add_x2vlm(tmp_path / "nothing")
    make_shapes(str(other), 10, 4)  # what was written may be replaced
    assert not (other / "x2vlm").exists()


def test_a_set_without_videos_has_the_rest(tmp_path):
    make_shapes(str(tmp_path / "still"), 10, 4, x2vlm=True)
    place = tmp_path / "still" / "x2vlm"
    assert not (place / "frames").exists() and (place / "reasoning" / "test.json").is_file()
