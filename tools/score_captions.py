#!/usr/bin/env python3
"""Score the captions of any systems and compare them: see --help."""

import argparse
import os

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> None:
    """Parse, score, print, write."""
    parser = argparse.ArgumentParser(
        description="Score captions with confidence intervals; compare systems.",
        epilog="Files: COCO captions JSON, COCO results, {id: caption}, {id: [captions]}, or JSON "
        "lines with an id and caption(s).",
    )
    parser.add_argument("references", help="human captions")
    parser.add_argument("hypotheses", nargs="+", help="captions of a system; several are compared")
    parser.add_argument("--names", nargs="+", default=[], help="names of the systems")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["BLEU", "METEOR", "ROUGE_L", "CIDEr", "SPICE"],
        help="of BLEU, METEOR, ROUGE_L, CIDEr, CIDEr-D, SPICE (default: all but CIDEr-D, which "
        "equals CIDEr here)",
    )
    parser.add_argument("--training", default=None, help="training captions, to count novel ones")
    parser.add_argument(
        "--images",
        choices=["captioned", "common", "all"],
        default="captioned",
        help="which to score: those with a caption (default; the same in all files), those with a "
        "caption in all files, or all with references, of which none may be missing",
    )
    parser.add_argument(
        "--clip", default="", metavar="FOLDER", help="CLIP or SigLIP model for CLIPScore"
    )
    parser.add_argument(
        "--pictures", default=None, help="folder of the pictures, for --clip and for HTML"
    )
    parser.add_argument("--device", default="auto", help="for --clip: auto, cpu, cuda or mps")
    parser.add_argument("--samples", type=int, default=1000, help="resampled sets; 0: no intervals")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument(
        "--no-tokenize", action="store_true", help="captions are tokens with spaces between"
    )
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write a report: .json, .md or .html; may be given several times",
    )
    parser.add_argument("--title", default="Caption scores", help="heading of the reports")
    args = parser.parse_args(argv)

    from xmodaler.evaluation.caption_report import (
        check_ending,
        markdown_report,
        write_caption_report,
    )
    from xmodaler.evaluation.caption_systems import name_systems
    from xmodaler.evaluation.scoring import compare_captions

    for path in args.out:
        check_ending(path)
    encoder = None
    if args.clip:
        from xmodaler.evaluation.clip_score import TransformersDualEncoder

        encoder = TransformersDualEncoder(args.clip, args.device)
    report = compare_captions(
        args.references,
        name_systems(args.hypotheses, args.names),
        args.metrics,
        tokenize=not args.no_tokenize,
        samples=args.samples,
        confidence=args.confidence,
        seed=args.seed,
        training_captions=args.training,
        images=args.images,
        dual_encoder=encoder,
        pictures=args.pictures,
    )
    print(markdown_report(report, args.title), end="")
    for path in args.out:
        write_caption_report(path, report, args.title)
        print(f"wrote {os.fspath(path)}")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
