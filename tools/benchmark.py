"""Time the training step and the decoding of a config, side by side with others.

python tools/benchmark.py --config-file configs/image_caption/updown/updown.yaml
python tools/benchmark.py --config-file A.yaml --against B.yaml --mode train
python tools/benchmark.py --config-file configs/image_caption/transformer/transformer.yaml \
    --peer transformers --reference-seconds 6.1,8.9

Inputs and weights are random; no data is needed.
"""

import argparse
import os

from xmodaler.cli import run_cli

# Set before torch is imported: its profiler warns about memory that is older than the recording.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def main(argv: list[str] | None = None) -> int:
    """Parse, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config to time")
    parser.add_argument("--against", action="append", default=[], help="another config to time")
    parser.add_argument("--peer", choices=["transformers"], help="a model of the same sizes")
    parser.add_argument("--mode", choices=["train", "decode", "both"], default="both")
    parser.add_argument("--batch-size", type=int, help="pictures a run (default: the config's)")
    parser.add_argument("--captions", type=int, help="captions per picture in training")
    parser.add_argument("--beam-size", type=int, help="beams per picture")
    parser.add_argument("--steps", type=int, help="words per generated caption")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each system")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps or auto")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    parser.add_argument(
        "--reference-seconds",
        default="",
        metavar="S[,S]",
        help="CPU seconds of one run of another system, one number for each mode",
    )
    parser.add_argument("--json", metavar="FILE", default="", help="write all figures to FILE")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of every config")
    args = parser.parse_args(argv)

    from xmodaler.engine.benchmark import render, run, write_json

    result = run(args)
    print(render(result))
    if args.json:
        write_json(args.json, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
