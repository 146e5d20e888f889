"""``python -m xmodaler.engine.reproduce CONFIG OUTPUT DATA`` runs one config in this process."""

import argparse
import sys

import torch

from xmodaler.engine.reproduce.single import read_config, train_and_test
from xmodaler.utils.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parse and run; 2 if the user made a mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    for name in ("config", "output", "data"):
        parser.add_argument(name)
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        train_and_test(read_config(args.config, args.output, args.data, args.opts))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
