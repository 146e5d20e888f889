"""What X²-VLM learns from, beside the pictures of a data set: ``x2vlm/``.

Lines of pictures, regions, videos and texts for pre-training, and a list for every task, in the
files of the released data; pictures are paths in the data set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence

from xmodaler.datasets.synthetic.captions import sample_captions
from xmodaler.datasets.synthetic.chance import RandomChooser, generator
from xmodaler.datasets.synthetic.concepts import SPLITS
from xmodaler.datasets.synthetic.files import write_json, write_lines, write_text
from xmodaler.datasets.synthetic.grounding import write_crowds, write_grounding
from xmodaler.datasets.synthetic.motions import Motions, motions_from_json
from xmodaler.datasets.synthetic.question_language import ENGLISH_QUESTIONS
from xmodaler.datasets.synthetic.regions import region_record
from xmodaler.datasets.synthetic.sampling import sample_scene
from xmodaler.datasets.synthetic.scene import Scene
from xmodaler.datasets.synthetic.statements import sample_statement
from xmodaler.datasets.synthetic.tongues import TONGUES, translate, translations
from xmodaler.datasets.synthetic.understanding import (
    UNDERSTANDING,
    Split,
    add_part,
    add_understanding,
    pool,
    read_split,
    twin_id,
)
from xmodaler.datasets.synthetic.video_questions import (
    all_answers,
    answer_words,
    sample_video_questions,
)
from xmodaler.datasets.synthetic.wordpieces import multilingual_pieces

X2VLM = "x2vlm"
FRAMES = 8  # most pictures of a video
FIRST_TEXT = 600_000  # number of the first scene that is only spoken of
PARTS = (
    "pretrain",
    "retrieval",
    "vqa",
    "grounding",
    "reasoning",
    "video_qa",
    "captions",
    "multilingual",
)


def add_x2vlm(folder: str | os.PathLike[str]) -> bool:
    """Write ``x2vlm/`` into a data set, and what it builds on, unless it has one.

    Args:
        folder: From :func:`~xmodaler.datasets.synthetic.make_shapes`.

    Returns:
        Whether it was missing.

    Raises:
        UserError: ``folder`` is no complete data set or cannot be written.
    """
    add_understanding(folder)
    return add_part(Path(folder), X2VLM, write_x2vlm, "tasks of X²-VLM")


def write_x2vlm(folder: Path, out: Path, seed: int, side: int) -> None:
    """Write the lines and lists.

    Args:
        folder: A data set with its pictures, captions, videos and ``understanding/``.
        out: Folder to make.
        seed: Of the data set.
        side: Side of its pictures in pixels.
    """
    for name in PARTS:
        (out / name).mkdir(parents=True)
    write_text(out / "vocab.txt", "".join(f"{piece}\n" for piece in multilingual_pieces()))
    write_json(out / "vqa" / "answer_list.json", ENGLISH_QUESTIONS.answers())
    labels = {answer: label for label, answer in enumerate(all_answers())}
    write_json(out / "video_qa" / "answer2label.json", labels)
    for split in SPLITS:
        read = read_split(folder, split)
        crowds = write_crowds(out / "grounding", len(read.scenes), seed, split, side)
        _write_lines(out / "pretrain", read, crowds, seed, side)
        _write_captions(out / "captions", folder, read)
        _write_searches(out, folder, read, seed)
        _write_vqa(out / "vqa", folder, split)
        _write_statements(out / "reasoning", read, seed)
        videos = list(_read_videos(folder, split))
        if videos:
            _write_videos(folder, out, videos, seed, split)
    write_grounding(out / "grounding", side)


@dataclass(frozen=True)
class _Video:
    """A video as it was written."""

    video_id: int
    scene: Scene
    motions: Motions
    captions: list[str]


def _picture(split: Split, index: int) -> str:
    return f"images/{split.name}/{split.image_ids[index]}.png"


def _write_lines(
    out: Path, split: Split, crowds: Sequence[dict[str, Any]], seed: int, side: int
) -> None:
    """Lines of pictures, regions, texts and parallel texts."""
    images, regions, texts, parallel, tongues = [], [], [], [], []
    for index, scene in enumerate(split.scenes):
        picture = _picture(split, index)
        images.append({"image": picture, "caption": split.captions[index]})
        chooser = RandomChooser(generator(seed, split.name, index, "references"))
        record = region_record(scene, side, chooser)
        regions.append({"image": picture, "caption": split.captions[index], **record})
        said = translations(scene, seed, split.name, index, 2)
        tongues.append({"image": picture, "caption": {c: [s[c] for s in said] for c in TONGUES}})
        for number, code in enumerate(code for code in TONGUES if code != "en"):
            same = said[number % len(said)]
            pair = {"source_text": same["en"], "target_text": same[code], "target_language": code}
            parallel.append(pair)
        unseen = sample_scene(seed, split.name, FIRST_TEXT + index)
        texts += [
            {"text": text}
            for _, text in sample_captions(unseen, seed, split.name, FIRST_TEXT + index, 1)
        ]
    write_lines(out / f"images_{split.name}.jsonl", images)
    write_lines(out / f"regions_{split.name}.jsonl", [*regions, *crowds])
    write_lines(out / f"texts_{split.name}.jsonl", texts)
    write_lines(out / f"parallel_{split.name}.jsonl", parallel)
    write_lines(out / f"multilingual_{split.name}.jsonl", tongues)


def _write_captions(out: Path, folder: Path, split: Split) -> None:
    """What is learned from is one caption a record; the truth of the others is COCO's file."""
    records = []
    for index, image_id in enumerate(split.image_ids):
        picture = {"image": _picture(split, index), "image_id": image_id}
        if split.name == "train":
            records += [{**picture, "caption": caption} for caption in split.captions[index]]
        else:
            records.append(picture)
    write_json(out / f"{split.name}.json", records)
    if split.name != "train":
        truth = json.loads((folder / f"captions_{split.name}.json").read_text(encoding="utf-8"))
        write_json(out / f"{split.name}_gt.json", truth)


def _write_searches(out: Path, folder: Path, split: Split, seed: int) -> None:
    """Searches in English and in all languages, for evaluation among families of twins."""
    if split.name == "train":
        english, tongues = [], {code: [] for code in TONGUES}
        for index, image_id in enumerate(split.image_ids):
            picture = {"image": _picture(split, index), "image_id": image_id}
            english += [{**picture, "caption": text} for text in split.captions[index]]
            for said in translations(split.scenes[index], seed, split.name, index, 3):
                for code, text in said.items():
                    tongues[code].append({**picture, "caption": text})
    else:
        english, tongues = [], {code: [] for code in TONGUES}
        for number, (_, twin) in enumerate(pool(split, seed)):
            image_id = twin_id(split, number)
            name = f"{UNDERSTANDING}/flickr30k/images/{image_id}.png"
            picture = {"image": name, "image_id": image_id}
            english.append({**picture, "caption": list(twin.captions)})
            chooser = RandomChooser(generator(seed, split.name, image_id, "translations"))
            said = {"en": twin.captions[0], **translate(twin.plan, chooser)}
            for code, text in said.items():
                tongues[code].append({**picture, "caption": [text]})
    write_json(out / "retrieval" / f"{split.name}.json", english)
    for code, records in tongues.items():
        (out / "multilingual" / code).mkdir(exist_ok=True)
        write_json(out / "multilingual" / code / f"{split.name}.json", records)


def _write_vqa(out: Path, folder: Path, split: str) -> None:
    """The questions of ``understanding/vqa`` as X²-VLM lists them."""
    official = folder / UNDERSTANDING / "vqa"
    questions, annotations = (
        json.loads((official / name).read_text(encoding="utf-8"))[key]
        for name, key in (
            (f"v2_OpenEnded_shapes_{split}_questions.json", "questions"),
            (f"v2_shapes_{split}_annotations.json", "annotations"),
        )
    )
    records = [
        {
            "question_id": question["question_id"],
            "question": question["question"],
            "image": f"images/{split}/{question['image_id']}.png",
            "dataset": "vqa",
            "answer": [person["answer"] for person in annotation["answers"]],
        }
        for question, annotation in zip(questions, annotations, strict=True)
    ]
    write_json(out / f"{split}.json", records)


def _write_statements(out: Path, split: Split, seed: int) -> None:
    """Two records a statement: the pair of which it is true, and the one of which it is false."""
    records = []
    for index in range(len(split.scenes)):
        chooser = RandomChooser(generator(seed, split.name, index, "statements"))
        judged = sample_statement(split.scenes, index, chooser)
        if judged is None:
            continue
        for label, pair in (("True", judged.true), ("False", judged.false)):
            records.append(
                {
                    "images": [_picture(split, place) for place in pair],
                    "sentence": judged.statement.words(),
                    "label": label,
                    "identifier": f"{split.name}-{index}-{label}",
                }
            )
    write_json(out / f"{split.name}.json", records)


def _read_videos(folder: Path, split: str) -> Iterator[_Video]:
    """The videos of a split; none if the data set was made without."""
    path = folder / f"video_scenes_{split}.jsonl"
    if not path.is_file():
        return
    captions: dict[int, list[str]] = {}
    truth = json.loads((folder / f"video_captions_{split}.json").read_text(encoding="utf-8"))
    for annotation in truth["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        video_id, motions = record["image_id"], motions_from_json(record["motions"])
        yield _Video(video_id, Scene.from_json(record), motions, captions[video_id])


def _write_videos(folder: Path, out: Path, videos: Sequence[_Video], seed: int, split: str) -> None:
    """Lines, searches and questions of videos, whose frames become pictures."""
    lines, searches, questions = [], [], []
    for index, video in enumerate(videos):
        place = f"{X2VLM}/frames/{video.video_id}"
        frames = _write_frames(folder / "videos" / split, out / "frames", video.video_id)
        names = [f"{place}/{name}" for name in frames]
        lines.append({"image": names, "caption": video.captions})
        record = {"video": place, "video_id": video.video_id}
        if split == "train":
            searches += [{**record, "caption": caption} for caption in video.captions]
        else:
            searches.append({**record, "caption": video.captions})
        chooser = RandomChooser(generator(seed, split, index, "video_questions"))
        for question in sample_video_questions(video.scene, video.motions, chooser):
            questions.append(
                {
                    "video_id": str(video.video_id),
                    "question": question.words(),
                    "answer": answer_words(question.answer),
                }
            )
    write_lines(out / "pretrain" / f"videos_{split}.jsonl", lines)
    write_json(out / "retrieval" / f"videos_{split}.json", searches)
    write_lines(out / "video_qa" / f"{split}.jsonl", questions)


def _write_frames(source: Path, frames: Path, video_id: int) -> list[str]:
    """Every frame of a short video, or some at even distances; returns the names of the files."""
    out = frames / str(video_id)
    out.mkdir(parents=True)
    with Image.open(source / f"{video_id}.png") as video:
        pictures = [frame.convert("RGB") for frame in ImageSequence.Iterator(video)]
    count = min(FRAMES, len(pictures))
    places = [round(k * (len(pictures) - 1) / max(count - 1, 1)) for k in range(count)]
    names = [f"{number:02d}.png" for number in range(count)]
    for name, place in zip(names, places, strict=True):
        pictures[place].save(out / name, format="PNG", compress_level=4)
    return names
