#!/usr/bin/env python3
"""Use a trained model on pictures or videos, questions and texts: see --help."""

import argparse

from xmodaler.cli import run_cli


def _numbers(text: str) -> list[float]:
    """Numbers separated by commas."""
    return [float(part) for part in text.split(",")]


def main(argv: list[str] | None = None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description="Caption pictures or videos, answer questions about them, choose among "
        "answers, search, find what phrases describe or compare pictures, with a trained model.",
        epilog="Give pictures before options that take several values. Exit code: 0; 1 if a file "
        "could not be read; 2 if nothing could be done.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--weights",
        required=True,
        action="append",
        help="output folder of a training, or a weights file; given several times, the models "
        "caption together",
    )
    parser.add_argument(
        "--model-weights",
        type=_numbers,
        metavar="W,W,...",
        help="how much each of several models counts (default: all alike)",
    )
    parser.add_argument(
        "pictures",
        nargs="*",
        default=[],
        metavar="PICTURE",
        help="pictures, folders, or .txt files with one path a line; videos, animated pictures or "
        "folders of frames for a model trained on videos; .npz or .npy files for one on features",
    )
    parser.add_argument(
        "--question",
        action="append",
        metavar="TEXT",
        help="ask about every picture; given several times, all about one picture or one about "
        "each of as many",
    )
    parser.add_argument(
        "--choices", nargs="+", metavar="TEXT", help="answers to the question to choose from"
    )
    parser.add_argument(
        "--given", metavar="TEXT", help="the answer for which --choices are reasons"
    )
    parser.add_argument(
        "--objects",
        nargs="+",
        metavar="CLASS",
        help="objects that question and choices refer to as [0], [1], [0,1]",
    )
    parser.add_argument(
        "--texts",
        nargs="+",
        metavar="TEXT",
        help="search the pictures with each text; a .txt file stands for its lines",
    )
    parser.add_argument(
        "--phrase",
        action="append",
        metavar="TEXT",
        help="find in every picture what this describes; given several times, all in one picture "
        "or one in each of as many",
    )
    parser.add_argument(
        "--draw", metavar="FOLDER", help="keep pictures with the boxes of phrases there"
    )
    parser.add_argument(
        "--statement",
        action="append",
        metavar="TEXT",
        help="tell whether this is true of two pictures; of several pairs, given one after the "
        "other, one for all or one for each",
    )
    parser.add_argument(
        "--by",
        choices=("text", "picture"),
        help="what searches what: texts search pictures (default), or pictures search texts",
    )
    parser.add_argument(
        "--index", metavar="FILE", help="keep vectors of pictures there, and search them"
    )
    parser.add_argument("--top-k", type=int, help="answers (default 5) or finds (10) to give")
    parser.add_argument("--config", help="config of a weights file (default: the one beside it)")
    parser.add_argument("--beam-size", type=int, help="1 is greedy decoding (default 3)")
    parser.add_argument("--batch-size", type=int, help="pictures or questions at a time")
    parser.add_argument("--num-return", type=int, help="captions per picture")
    parser.add_argument("--sample", action="store_true", help="draw words at random")
    parser.add_argument("--seed", type=int, help="of the random words")
    parser.add_argument(
        "--jsonl", metavar="FILE", help="write JSON lines with scores; - for standard output"
    )
    parser.add_argument("--device", help="auto (default), cpu, cuda or mps")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"))
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        metavar="MODULE",
        help="module or .py file that registers parts of yours; may be given several times",
    )
    args = vars(parser.parse_args(argv))
    imports, seed = args.pop("imports", []), args.pop("seed", None)

    from xmodaler.inference.predicting import predict

    if imports:
        from xmodaler.engine.running import import_modules

        import_modules(imports)
    if seed is not None:
        from xmodaler.utils.env import seed_all_rng

        seed_all_rng(seed)
    return predict(**args)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
