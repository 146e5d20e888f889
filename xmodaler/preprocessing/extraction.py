"""What ``tools/extract_features.py`` does, from its arguments to its last line."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from xmodaler.utils.pictures import load_picture

from .feature_sink import FeatureSink
from .features import (
    Arrays,
    ExtractionSummary,
    extract_features,
    files_of_annotations,
    files_of_folder,
)


def run_extraction(args: argparse.Namespace) -> ExtractionSummary:
    """Extract as the command line says; files that are stored already are passed over.

    Raises:
        UserError: The arguments do not fit each other, or the run fails.
    """
    sources = _sources(args)
    if not (args.weights or args.pretrained):
        print("note: no --weights and no --pretrained, the features are those of random weights")
    with torch.random.fork_rng():
        # Random weights are the same ones when a stopped run goes on.
        torch.manual_seed(0)
        extractor = _region_extractor(args) if args.regions else _grid_extractor(args)
    settings = dict(extractor.settings)
    if args.videos:
        read, compute, settings["frames"] = _video_functions(args, extractor)
    else:

        def read(path: str) -> Any:
            return extractor.prepare(load_picture(path))

        compute = extractor.pictures
    sink = FeatureSink(args.out, settings, args.dtype)
    print(f"{len(sources)} files, {sum(s.item_id in sink for s in sources)} of them done before")
    return extract_features(
        sources,
        read,
        compute,
        sink,
        batch_size=1 if args.videos else args.batch_size,
        workers=args.workers,
        max_bad_fraction=args.max_bad_fraction,
        progress=_progress,
    )


def _sources(args: argparse.Namespace) -> list[Any]:
    folder = args.videos or args.pictures
    if args.annotations:
        return files_of_annotations(args.annotations, folder)
    suffixes = VIDEO_SUFFIXES if args.videos else PICTURE_SUFFIXES
    return files_of_folder(folder, suffixes, args.numbers)


def _grid_extractor(args: argparse.Namespace) -> Any:
    from .grid_extractor import GridExtractor

    return GridExtractor(
        args.model or "resnet101",
        weights=args.weights,
        pretrained=args.pretrained,
        size=args.size,
        kind="global" if args.videos else args.kind,
        cells=args.cells,
        device=args.device,
    )


def _region_extractor(args: argparse.Namespace) -> Any:
    from .region_extractor import DETECTORS, RegionExtractor

    if args.videos:
        raise UserError("--regions detects objects of --pictures; videos have one row per frame")
    return RegionExtractor(
        args.model or DETECTORS[0],
        weights=args.weights,
        pretrained=args.pretrained,
        min_regions=args.min_regions,
        max_regions=args.max_regions,
        min_score=args.min_score,
        device=args.device,
    )


def _video_functions(
    args: argparse.Namespace, extractor: Any
) -> tuple[Callable[[str], Any], Callable[[list[Any]], list[Arrays]], list[Any]]:
    from xmodaler.utils.frame_sampling import FrameSampling
    from xmodaler.utils.videos import load_frames

    sampling = FrameSampling(args.sampling, args.frames, args.fps)

    def read(path: str) -> list[Any]:
        return [extractor.prepare(frame) for frame in load_frames(path, sampling)]

    def compute(clips: list[Any]) -> list[Arrays]:
        return [extractor.video(frames, args.batch_size) for frames in clips]

    return read, compute, [args.sampling, args.frames, args.fps]


def _progress(files: Any) -> Any:
    from tqdm import tqdm

    return tqdm(files, unit="file", disable=not sys.stderr.isatty())
