"""Generate the shapes data set: pictures of coloured shapes with captions, boxes and features."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, generate, print what was made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--size", type=int, default=5000, help="pictures in all three splits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=64, help="64 to 96 pixels")
    parser.add_argument("--videos", type=int, default=0, help="videos in all three splits")
    parser.add_argument(
        "--no-understanding",
        action="store_true",
        help="leave out questions, choices, searches and pairs (understanding/)",
    )
    parser.add_argument(
        "--no-x2vlm",
        action="store_true",
        help="leave out what X²-VLM learns from (x2vlm/), which needs understanding/",
    )
    args = parser.parse_args(argv)

    from xmodaler.datasets.synthetic import make_shapes

    sizes = make_shapes(
        args.out,
        args.size,
        args.seed,
        args.image_size,
        args.videos,
        progress=True,
        understanding=not args.no_understanding,
        x2vlm=not (args.no_x2vlm or args.no_understanding),
    )
    print(f"{args.out}: " + ", ".join(f"{count} {split}" for split, count in sizes.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
