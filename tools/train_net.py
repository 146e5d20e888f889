#!/usr/bin/env python3
"""Train or evaluate what a config describes: see --help."""

from xmodaler.cli import run_cli
from xmodaler.utils.arguments import default_argument_parser


def main(argv: list[str] | None = None) -> None:
    """Parse and run."""
    args = default_argument_parser().parse_args(argv)
    print("Command Line Args:", args, flush=True)

    from xmodaler.engine.running import launch_run

    launch_run(args)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
