#!/usr/bin/env python3
"""Caption pictures or videos with a trained model: see --help."""

import argparse

from xmodaler.cli import run_cli


def _numbers(text: str) -> list[float]:
    """Numbers separated by commas."""
    return [float(part) for part in text.split(",")]


def main(argv: list[str] | None = None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description="Caption pictures or videos with a trained model.",
        epilog="Exit code: 0; 1 if a file could not be read; 2 if nothing could be done.",
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
        nargs="+",
        metavar="PICTURE",
        help="pictures, folders, or .txt files with one path a line; videos, animated pictures or "
        "folders of frames for a model trained on videos; .npz or .npy files for one on features",
    )
    parser.add_argument("--config", help="config of a weights file (default: the one beside it)")
    parser.add_argument("--beam-size", type=int, default=3, help="1 is greedy decoding")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time")
    parser.add_argument("--num-return", type=int, default=1, help="captions per picture")
    parser.add_argument("--sample", action="store_true", help="draw words at random")
    parser.add_argument("--seed", type=int, help="of the random words")
    parser.add_argument(
        "--jsonl", metavar="FILE", help="write JSON lines with scores; - for standard output"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module or .py file that registers parts of yours; may be given several times",
    )
    args = vars(parser.parse_args(argv))
    imports, seed = args.pop("imports"), args.pop("seed")

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
