#!/usr/bin/env python3
"""Train all configs of a suite, score them, and write one table that compares them.

python tools/reproduce.py shapes                      # every captioner on generated data
python tools/reproduce.py shapes --suite understanding
python tools/reproduce.py shapes --suite x2vlm        # pre-training, and every task from it
python tools/reproduce.py shapes updown uniter_vqa --jobs 2
"""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code: 0; 1 if a model is below its bar or failed; 2 after a wrong argument. "
        "What is finished is not run again; what was interrupted goes on.",
    )
    parser.add_argument("data_set", choices=["shapes"], help="folder of configs")
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs (default: all of the suite)")
    parser.add_argument(
        "--suite",
        choices=["captioning", "understanding", "x2vlm", "all"],
        help="captioners; pre-training, questions, choices and searches; X²-VLM on all of its "
        "tasks; or all (default: captioning, or all where names are given)",
    )
    parser.add_argument("--out", help="folder of the runs (default: output/reproduce/shapes)")
    parser.add_argument("--data", help="folder of the data, made if absent (default: data/shapes)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run")
    parser.add_argument("--fresh", action="store_true", help="run again what is finished")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of every config"
    )
    args = parser.parse_args(argv)

    from xmodaler.engine.reproduce import run

    return run(args)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
