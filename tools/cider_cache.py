"""Write the references and document frequencies that CIDEr-D rewards are computed from."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--infile", required=True, help="encoded captions, such as mscoco_caption_anno_train.json"
    )
    parser.add_argument(
        "--image-ids", "--image_ids", default="", help="text file with one id a line; default: all"
    )
    parser.add_argument("--gts", required=True, help="the references to write (SCORER.GT_PATH)")
    parser.add_argument(
        "--outfile", required=True, help="the frequencies to write (SCORER.CIDER_CACHED)"
    )
    args = parser.parse_args(argv)

    from xmodaler.preprocessing.cider_cache import write_cider_files

    print(write_cider_files(args.infile, args.gts, args.outfile, args.image_ids))
    print(f"wrote {args.gts}\nwrote {args.outfile}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
