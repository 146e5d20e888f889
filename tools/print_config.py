#!/usr/bin/env python3
"""Print the whole configuration that a run would use, as YAML."""

import argparse
import sys

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> None:
    """Parse, load the config, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default="", metavar="FILE", help="config to load")
    parser.add_argument("--key", default="", help="print this section or value only: MODEL.BERT")
    parser.add_argument(
        "--diff", action="store_true", help="print only what differs from the defaults"
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="overrides, with or without --opts before them"
    )
    given = sys.argv[1:] if argv is None else argv
    args = parser.parse_intermixed_args([item for item in given if item != "--opts"])

    from xmodaler.config import load_config
    from xmodaler.config.printing import describe_config
    from xmodaler.modeling import add_config

    cfg = load_config(args.config_file, args.opts, add_config)
    print(describe_config(cfg, key=args.key, only_changes=args.diff), end="")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
