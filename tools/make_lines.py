"""Make lines of JSON for pre-training from annotations of captions, or of boxes with words."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, convert, say how many."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--captions", help="COCO captions JSON")
    source.add_argument("--regions", help="JSON of boxes with phrases or categories, as COCO's")
    parser.add_argument("--split", default="", help="pictures of this split alone")
    parser.add_argument("--folder", default="", help="put before the names of pictures")
    parser.add_argument("--out", required=True, help="the file to write")
    args = parser.parse_args(argv)

    from xmodaler.preprocessing.picture_lines import caption_lines, region_lines, write_lines

    make = caption_lines if args.captions else region_lines
    records = make(args.captions or args.regions, args.split, args.folder)
    print(f"wrote {write_lines(records, args.out)} lines to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
