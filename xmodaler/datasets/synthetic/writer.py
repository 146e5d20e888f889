"""Writing the data set, in the files that real data sets come in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xmodaler.datasets.synthetic.captions import oracle_caption, sample_captions
from xmodaler.datasets.synthetic.chance import generator
from xmodaler.datasets.synthetic.concepts import KINDS, RELATIONS, SPLITS
from xmodaler.datasets.synthetic.features import ATTRIBUTES, attribute_scores, region_features
from xmodaler.datasets.synthetic.files import npy_bytes, write_json, write_npz, write_text
from xmodaler.datasets.synthetic.folder import MARKER, replaced_folder
from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.motions import motions_to_json, sample_motions
from xmodaler.datasets.synthetic.render import encode_png, render
from xmodaler.datasets.synthetic.sampling import sample_scene
from xmodaler.datasets.synthetic.scene import Scene, dump_line
from xmodaler.datasets.synthetic.semantics import write_semantics
from xmodaler.datasets.synthetic.understanding import UNDERSTANDING, write_understanding
from xmodaler.datasets.synthetic.video import (
    FRAME_MILLISECONDS,
    encode_video,
    oracle_video_caption,
    render_video,
    sample_video_captions,
)
from xmodaler.datasets.synthetic.video_features import frame_features
from xmodaler.datasets.synthetic.x2vlm import X2VLM, write_x2vlm
from xmodaler.utils.errors import UserError

SIDES = (64, 96)
FIRST_ID = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000}
FIRST_VIDEO = 500_000  # added to the ids (and numbers of scenes) of videos
SIZES = (10, FIRST_VIDEO)  # a split of more pictures would reach the ids of the videos
ARRAY_LENGTH = 20


def split_sizes(size: int) -> dict[str, int]:
    """Pictures of each split: a tenth each for val and test, the rest for train."""
    tenth = max(size // 10, 1)
    return {"train": size - 2 * tenth, "val": tenth, "test": tenth}


def make_shapes(
    out: str,
    size: int,
    seed: int = 0,
    image_size: int = 64,
    videos: int = 0,
    progress: bool = False,
    understanding: bool = True,
    x2vlm: bool = False,
) -> dict[str, int]:
    """Generate a data set; the same arguments give the same bytes.

    Args:
        out: Folder to write; new, empty, or an earlier data set of this kind, which is replaced
            when the new one is complete.
        size: Pictures in all splits together; 80 % train, 10 % val, 10 % test.
        seed: Of everything random.
        image_size: Side of the pictures in pixels, 64 to 96.
        videos: Videos in all splits together.
        progress: Show a progress bar.
        understanding: Also write questions, choices, searches and pairs, which
            :func:`~xmodaler.datasets.synthetic.add_understanding` can do later.
        x2vlm: Also write what X²-VLM learns from, which
            :func:`~xmodaler.datasets.synthetic.add_x2vlm` can do later; needs ``understanding``.

    Returns:
        Number of pictures by split.

    Raises:
        UserError: An argument is out of range, or ``out`` cannot be written or holds anything
            else.
    """
    arguments = {"size": size, "seed": seed, "image_size": image_size, "videos": videos}
    _check_arguments(**arguments)
    with replaced_folder(out) as folder:
        _write_pictures(folder, size, seed, image_size, progress)
        if videos:
            for split, count in split_sizes(videos).items():
                _write_videos(folder, split, count, seed, image_size, progress)
        _write_vocabulary(folder, with_videos=bool(videos))
        write_semantics(folder, seed)
        if understanding:
            write_understanding(folder, folder / UNDERSTANDING, seed, image_size)
        if understanding and x2vlm:
            write_x2vlm(folder, folder / X2VLM, seed, image_size)
        write_json(folder / MARKER, {"generator": "shapes", **arguments})
    return split_sizes(size)


def is_made_with(out: str, **arguments: int) -> bool:
    """Whether ``out`` holds a complete data set that was made with these arguments."""
    try:
        made = json.loads((Path(out) / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(made, dict) and all(made.get(n) == value for n, value in arguments.items())


def _check_arguments(size: int, seed: int, image_size: int, videos: int) -> None:
    for name, value, (least, most) in (
        ("size", size, SIZES),
        ("videos", videos or SIZES[0], SIZES),
        ("image_size", image_size, SIDES),
    ):
        if not least <= value <= most:
            none = "0 or " if name == "videos" else ""
            raise UserError(f"{name} is {value}; it must be {none}{least} to {most}")
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more")


def _write_pictures(folder: Path, size: int, seed: int, side: int, progress: bool) -> None:
    arrays: dict[str, dict[str, np.ndarray]] = {"relations": {}, "attributes": {}, "global": {}}
    for split, count in split_sizes(size).items():
        _write_split(folder, split, count, seed, side, arrays, progress)
    write_npz(folder / "relations.npz", arrays["relations"])
    write_npz(folder / "attributes.npz", arrays["attributes"])
    write_npz(folder / "global_features.npz", arrays["global"])
    write_text(folder / "attributes.txt", "".join(f"{word}\n" for word in ATTRIBUTES))
    write_text(folder / "relations.txt", "".join(f"{word}\n" for word in RELATIONS))


def _write_split(
    folder: Path,
    split: str,
    count: int,
    seed: int,
    side: int,
    arrays: dict[str, dict[str, np.ndarray]],
    progress: bool,
) -> None:
    (folder / "images" / split).mkdir(parents=True, exist_ok=True)
    (folder / "features").mkdir(exist_ok=True)
    images, captions, instances, scenes = [], [], [], []
    for index in _counted(count, f"{split} pictures", progress):
        image_id = FIRST_ID[split] + index
        scene = sample_scene(seed, split, index)
        name = f"{split}/{image_id}.png"
        picture = render(scene, side, generator(seed, split, index, "picture"))
        (folder / "images" / name).write_bytes(encode_png(picture))
        images.append(_image_record(image_id, name, side))
        for number, (_, text) in enumerate(sample_captions(scene, seed, split, index)):
            captions.append({"id": image_id * 10 + number, "image_id": image_id, "caption": text})
        instances += _instances(scene, image_id, side)
        scenes.append({"image_id": image_id, "oracle": oracle_caption(scene), **scene.to_json()})
        rng = generator(seed, split, index, "features")
        regions = region_features(scene, side, rng)
        write_npz(folder / "features" / f"{image_id}.npz", regions)
        arrays["relations"][str(image_id)] = scene.relation_labels()
        arrays["attributes"][str(image_id)] = attribute_scores(scene, rng)
        arrays["global"][str(image_id)] = regions["features"].mean(0)
    info = {"description": f"shapes, {split} split, seed {seed}"}
    write_json(
        folder / f"captions_{split}.json",
        {"info": info, "licenses": [], "images": images, "annotations": captions},
    )
    categories = [{"id": k, "name": kind} for k, kind in enumerate(KINDS, start=1)]
    write_json(
        folder / f"instances_{split}.json",
        {"info": info, "images": images, "annotations": instances, "categories": categories},
    )
    write_text(folder / f"scenes_{split}.jsonl", "".join(dump_line(s) + "\n" for s in scenes))


def _image_record(image_id: int, name: str, side: int) -> dict[str, Any]:
    return {"id": image_id, "file_name": name, "height": side, "width": side}


def _instances(scene: Scene, image_id: int, side: int) -> list[dict[str, Any]]:
    return [
        {
            "id": image_id * 10 + number,
            "image_id": image_id,
            "category_id": 1 + KINDS.index(shape.kind),
            "bbox": list(shape.box(side)),
            "area": shape.area(side),
            "iscrowd": 0,
            "attributes": [shape.size, shape.colour],
        }
        for number, shape in enumerate(scene.shapes)
    ]


def _write_videos(
    folder: Path, split: str, count: int, seed: int, side: int, progress: bool
) -> None:
    (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
    (folder / "video_features").mkdir(exist_ok=True)
    videos, captions, scenes = [], [], []
    for index in _counted(count, f"{split} videos", progress):
        video_id = FIRST_ID[split] + FIRST_VIDEO + index
        scene = sample_scene(seed, split, FIRST_VIDEO + index)
        motions = sample_motions(scene, seed, split, index)
        rng = generator(seed, split, FIRST_VIDEO + index, "picture")
        frames = render_video(scene, motions, side, rng)
        name = f"{split}/{video_id}.png"
        (folder / "videos" / name).write_bytes(encode_video(frames))
        rng = generator(seed, split, FIRST_VIDEO + index, "features")
        features = frame_features(scene, motions, len(frames), rng)
        (folder / "video_features" / f"{video_id}.npy").write_bytes(npy_bytes(features))
        truth = {**scene.to_json(), "motions": motions_to_json(motions)}
        oracle = oracle_video_caption(scene, motions)
        scenes.append({"image_id": video_id, "oracle": oracle, **truth})
        record = _image_record(video_id, name, side)
        videos.append({**record, "frames": len(frames), "fps": round(1000 / FRAME_MILLISECONDS, 2)})
        for number, (_, text) in enumerate(
            sample_video_captions(scene, motions, seed, split, index)
        ):
            captions.append({"id": video_id * 10 + number, "image_id": video_id, "caption": text})
    write_json(
        folder / f"video_captions_{split}.json",
        {"info": {}, "licenses": [], "images": videos, "annotations": captions},
    )
    lines = "".join(dump_line(scene) + "\n" for scene in scenes)
    write_text(folder / f"video_scenes_{split}.jsonl", lines)


def _write_vocabulary(folder: Path, with_videos: bool) -> None:
    """Every word of the language, and X-modaler's encoded captions of each split."""
    from xmodaler.datasets import vocabulary

    sources = {"captions": "mscoco_caption_anno"}
    if with_videos:
        sources["video_captions"] = "msvd_caption_anno"
    captions = {
        (source, split): vocabulary.tokenized_captions([folder / f"{source}_{split}.json"])
        for source in sources
        for split in SPLITS
    }
    # All words, also those that this sample happens to lack: every data set has the same ids.
    words = ENGLISH.words()
    vocabulary.write_vocabulary(folder / "vocabulary.txt", words)
    for (source, split), found in captions.items():
        path = folder / f"{sources[source]}_{split}.json"
        vocabulary.write_encoded_captions(path, found, words, ARRAY_LENGTH)


def _counted(count: int, what: str, progress: bool) -> Iterator[int]:
    if not progress:
        return iter(range(count))
    from tqdm import tqdm

    return iter(tqdm(range(count), desc=what, unit="", leave=False))
