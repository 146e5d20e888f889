"""Questions, choices, searches and pairs of the generated pictures."""

import json
import math
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from xmodaler.datasets.answer_files import read_targets
from xmodaler.datasets.synthetic import Scene, add_understanding, make_shapes, sample_scene
from xmodaler.datasets.synthetic.choices import sample_choices
from xmodaler.datasets.synthetic.concepts import SPLITS
from xmodaler.datasets.synthetic.questions import NUMBER, TOPICS, balanced
from xmodaler.datasets.synthetic.scene import split_of
from xmodaler.datasets.synthetic.twins import sample_family
from xmodaler.datasets.synthetic.vqa import sample_questions
from xmodaler.evaluation.vqa_normalize import vqa_accuracy
from xmodaler.utils.errors import UserError

MANY = 1200
PLACES = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scenes_of(folder, split):
    return {r["image_id"]: Scene.from_json(r) for r in read_lines(folder / f"scenes_{split}.jsonl")}


@pytest.fixture(scope="module")
def many():
    return [sample_scene(11, "train", index) for index in range(MANY)]


@pytest.fixture(scope="module")
def asked(many):
    return list(sample_questions(many, 11, "train"))


def truth(scene, words):
    """The answer that a reader of the scene finds, by other means than the generator's."""
    shapes = [(s.colour, {"crescent": "moon"}.get(s.kind, s.kind), s.x, s.y) for s in scene.shapes]
    nouns = [re.sub("(?<=ss)es$|(?<!s)s$", "", word.strip("?")) for word in words]

    def matching(part):
        return [s for s in shapes if all(w in s[:2] for w in part if w in VOCABULARY)]

    def stands(one, other, part):
        axis, sign = next(PLACES[word] for word in part if word in PLACES)
        return all((a[2 + axis] - b[2 + axis]) * sign > 0 for a in one for b in other)

    if words[:2] == ["how", "many"]:
        return str(len(matching(nouns)))
    if words[-1] == "background?":
        return scene.ground.colour
    if words[:2] == ["what", "pattern"]:
        return scene.ground.pattern
    if words[0] in ("is", "are") and words[1] == "there":
        return "yes" if matching(nouns) else "no"
    place = next((k for k, word in enumerate(words) if word in PLACES), None)
    if words[:2] == ["what", "shape"]:
        if place is None:
            (found,) = {s[1] for s in matching(nouns)}
            return found
        (found,) = {s[1] for s in shapes if s not in matching(nouns[place:])}
        return found
    if words[:2] == ["what", "color"]:
        (found,) = {s[0] for s in matching(nouns)}
        return found
    if place is not None:
        holds = stands(matching(nouns[:place]), matching(nouns[place:]), words)
        return "yes" if holds else "no"
    (colour,) = {s[0] for s in matching(nouns[:-1])}
    return "yes" if colour == nouns[-1] else "no"


VOCABULARY = {
    *("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon"),
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
}


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true_of_the_pictures(shapes, split):
    folder, scenes = shapes / "understanding" / "vqa", scenes_of(shapes, split)
    questions = read(folder / f"v2_OpenEnded_shapes_{split}_questions.json")["questions"]
    annotations = read(folder / f"v2_shapes_{split}_annotations.json")["annotations"]
    answers = read(folder / "answers.json")
    assert len(set(answers)) == len(answers) == 33
    assert len(questions) == 3 * len(scenes)
    for question, annotation in zip(questions, annotations, strict=True):
        assert question["question_id"] == annotation["question_id"]
        assert question["question_id"] // 10 == question["image_id"] == annotation["image_id"]
        expected = truth(scenes[question["image_id"]], question["question"].split())
        assert annotation["true_answer"] == expected, question
        assert expected in answers and len(annotation["answers"]) == 10
        assert question["question"].startswith(annotation["question_type"])
    targets, problems = read_targets(folder / f"{split}_target.json", answers)
    assert not problems
    for target, annotation in zip(targets, annotations, strict=True):
        assert target["question_id"] == annotation["question_id"]
        people = [record["answer"] for record in annotation["answers"]]
        for label, score in zip(target["labels"], target["scores"], strict=True):
            assert score == pytest.approx(vqa_accuracy(answers[label], people))


def test_questions_ask_for_the_picture(asked):
    """Whoever gives the commonest answer to each question of one half stays near chance."""
    half = len(asked) // 2
    seen = defaultdict(Counter)
    for _, question, _ in asked[:half]:
        seen[question.topic, question.slots][question.answer] += 1
        seen[question.topic][question.answer] += 1
    scores = defaultdict(list)
    for _, question, people in asked[half:]:
        known = seen[question.topic, question.slots] or seen[question.topic]
        guess = known.most_common(1)[0][0]
        scores[question.answer_type].append(guess == question.answer)
        said = [record["answer"] for record in people]
        scores["oracle"].append(vqa_accuracy(question.answer, said))
    blind = {name: np.mean(values) for name, values in scores.items()}
    assert 0.42 < blind["yes/no"] < 0.58
    assert blind["number"] < 0.48 and blind["other"] < 0.3
    assert blind["oracle"] > 0.8  # moons are "moon" to people, and some questions are hard


def test_counts_are_balanced(asked):
    flags = balanced([question for _, question, _ in asked])
    assert all(flags)  # what was kept is balanced already
    for topic in TOPICS:
        counts = Counter(q.answer for _, q, _ in asked if q.topic == topic)
        if TOPICS[topic][0] == NUMBER:
            most = [count for _, count in counts.most_common(3)]
            assert most[2] > 0.8 * most[0]


def test_people_agree_mostly_but_not_always(asked):
    agreement = [
        Counter(r["answer"] for r in people).most_common(1)[0][1] for _, _, people in asked
    ]
    assert 0.8 < np.mean(agreement) / 10 < 0.95
    assert min(agreement) < 6


def said(tokens, objects):
    parts = [[t] if isinstance(t, str) else [objects[k] for k in t] for t in tokens]
    return [word for part in parts for word in part]


@pytest.mark.parametrize("split", SPLITS)
def test_choices_are_true_of_the_pictures_and_only_they(shapes, split):
    scenes = scenes_of(shapes, split)
    for record in read_lines(shapes / "understanding" / "vcr" / f"{split}.jsonl"):
        scene = scenes[int(record["metadata_fn"].removesuffix(".json"))]
        assert (shapes / "images" / record["img_fn"]).is_file()
        assert len(record["objects"]) == len(scene.shapes)
        for name in ("answer", "rationale"):
            choices, label = record[f"{name}_choices"], record[f"{name}_label"]
            assert len(choices) == 4 and len({str(choice) for choice in choices}) == 4
            right = [is_true(scene, choice) for choice in choices]
            assert right == [k == label for k in range(4)], record


def is_true(scene, tokens):
    lists = [token for token in tokens if isinstance(token, list)]
    words = [token for token in tokens if isinstance(token, str)]
    this = [scene.shapes[k] for k in lists[0]]
    if "background" in words:
        return {scene.ground.pattern, scene.ground.colour} < set(words)
    for word, (axis, sign) in PLACES.items():
        if word in words:
            name = "xy"[axis]
            return all(
                (getattr(a, name) - getattr(b, name)) * sign > abs(getattr(a, "yx"[axis]) -
                                                                   getattr(b, "yx"[axis])) - 1e-9
                for a in this for b in (scene.shapes[k] for k in lists[1])
            )  # fmt: skip
    return all(shape.colour in words for shape in this)


def test_choices_ask_for_the_picture(many):
    """Words that are commoner in right choices than in wrong ones help nobody."""
    records = sample_choices(many, 11, "train")
    objects = ["thing"] * 9
    half = len(records) // 2
    for name in ("answer", "rationale"):
        right, all_words = Counter(), Counter()
        for _, record in records[:half]:
            for place, choice in enumerate(record[f"{name}_choices"]):
                words = said(choice, objects)
                all_words.update(words)
                if place == record[f"{name}_label"]:
                    right.update(words)
        found = []
        for _, record in records[half:]:
            scores = [
                sum(math.log((right[w] + 1) / (all_words[w] + 4)) for w in said(choice, objects))
                for choice in record[f"{name}_choices"]
            ]
            found.append(int(np.argmax(scores)) == record[f"{name}_label"])
        assert len(found) > 500 and 0.17 < np.mean(found) < 0.33


@pytest.mark.parametrize("split", ["val", "test"])
def test_twins_differ_in_one_word(shapes, split):
    folder = shapes / "understanding" / "flickr30k"
    records = read_lines(folder / f"all_data_final_{split}_set0_2014.jsonline")
    assert len(records) == len(scenes_of(shapes, split))
    for record in records:
        name = record["img_path"].removesuffix(".png")
        assert (folder / "images" / record["img_path"]).is_file()
        assert np.load(folder / "features" / f"{name}.npz")["cls_prob"].shape[1] == 9
        assert len(record["sentences"]) == 2
        near = [other for other in records if is_near(record, other)]
        assert near or record is records[-1], record  # the last family may be cut short


def is_near(one, other):
    pairs = zip(one["sentences"], other["sentences"], strict=True)
    splits = [(a.split(), b.split()) for a, b in pairs]
    same_length = all(len(a) == len(b) for a, b in splits)
    return same_length and all(
        sum(x != y for x, y in zip(a, b, strict=True)) == 1 for a, b in splits
    )


def test_twins_stay_in_their_split(many):
    families = [sample_family(scene, 11, "train", k) for k, scene in enumerate(many[:80])]
    found = [family for family in families if family]
    assert len(found) > 70 and {len(family) for family in found} <= {2, 3, 4, 5}
    for family in found:
        assert {split_of(twin.scene.signature()) for twin in family} == {"train"}
        assert len({twin.captions for twin in family}) == len(family)


def test_pairs_name_their_features(shapes):
    folder = shapes / "understanding" / "conceptual"
    rows = (folder / "Train_GCC-training.tsv").read_text().splitlines()
    numbers = (folder / "train_images_ids.txt").read_text().split()
    assert numbers == [str(k) for k in range(1, len(rows) + 1)] and len(rows) == 64
    for number, row in zip(numbers, rows, strict=True):
        caption, picture = row.split("\t")
        assert caption.endswith(".") and (shapes / picture).is_file()
        image_id = picture.split("/")[-1].removesuffix(".png")
        one = (folder / "features" / f"{number}.npz").read_bytes()
        assert one == (shapes / "features" / f"{image_id}.npz").read_bytes()


def test_the_list_of_pictures_has_them_all(shapes):
    listed = read(shapes / "understanding" / "images.json")["images"]
    assert [entry["id"] for entry in listed] == [i for s in SPLITS for i in scenes_of(shapes, s)]
    for entry in listed:
        assert (shapes / "images" / entry["file_name"]).is_file()
        assert entry["file_name"].startswith(f"{entry['split']}/")


def test_every_word_is_in_the_vocabulary(shapes):
    from xmodaler.tokenization import BertTokenizer

    folder = shapes / "understanding"
    tokenizer = BertTokenizer.from_pretrained(str(folder / "vocab.txt"))
    texts = [
        row.split("\t")[0] for row in (folder / "conceptual" / "Train_GCC-training.tsv").open()
    ]
    for split in SPLITS:
        file = folder / "vqa" / f"v2_OpenEnded_shapes_{split}_questions.json"
        texts += [question["question"] for question in read(file)["questions"]]
        for record in read_lines(folder / "vcr" / f"{split}.jsonl"):
            parts = [record["question"], *record["answer_choices"], *record["rationale_choices"]]
            texts += [" ".join(said(part, record["objects"])) for part in parts]
    pieces = {piece for text in texts for piece in tokenizer.tokenize(text)}
    assert "[UNK]" not in pieces and len(pieces) > 60
    spelled = ["two", "circle", "##s", ",", "two", "cross", "##es", "."]
    assert tokenizer.tokenize("Two circles, two crosses.") == spelled


def test_an_older_set_gets_them_too(shapes, tmp_path):
    folder = tmp_path / "old"
    make_shapes(str(folder), 40, 3, videos=10, understanding=False)
    assert not (folder / "understanding").exists()
    assert add_understanding(folder) and not add_understanding(folder)
    for path in (shapes / "understanding").rglob("*"):
        if path.is_file():
            other = folder / path.relative_to(shapes)
            assert other.read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match="gets no questions"):
        add_understanding(tmp_path / "nothing")
