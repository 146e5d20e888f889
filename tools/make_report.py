#!/usr/bin/env python3
"""Write report.html into the output folder of a training: see --help."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description="Write report.html (scores, curves, captioned test pictures) for a training."
    )
    parser.add_argument("output_dir", help="output folder of the training")
    parser.add_argument("--num-samples", type=int, default=24, help="pictures to show")
    parser.add_argument("--title", default=None, help="heading (default: the folder's name)")
    parser.add_argument(
        "--image-folder", default="", help="pictures to show (default: that of the config)"
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="show where the words of phrases, statements and questions looked",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module or .py file that registers parts of yours; may be given several times",
    )
    args = parser.parse_args(argv)

    from xmodaler.inference.report import make_report

    if args.imports:
        from xmodaler.engine.running import import_modules

        import_modules(args.imports)
    path = make_report(
        args.output_dir,
        num_samples=args.num_samples,
        title=args.title,
        image_folder=args.image_folder,
        device=args.device,
        attention=args.attention,
    )
    print(path)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
