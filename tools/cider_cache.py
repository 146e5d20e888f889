"""Write the references and document frequencies that CIDEr-D rewards are computed from."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--infile",
        required=True,
        help="encoded captions, such as mscoco_caption_anno_train.json; with --vocabulary or "
        "--tokenizer, COCO captions JSON or JSON lines",
    )
    parser.add_argument(
        "--vocabulary", default="", help="the model's words, to encode written captions with"
    )
    parser.add_argument(
        "--tokenizer", default="", help="the model's word pieces, for BertTokenizedScorer"
    )
    parser.add_argument("--split", default="", help="of written captions, the split to read")
    parser.add_argument(
        "--max-length", type=int, default=20, help="of written captions, the words kept"
    )
    parser.add_argument(
        "--image-ids", "--image_ids", default="", help="text file with one id a line; default: all"
    )
    parser.add_argument("--gts", required=True, help="the references to write (SCORER.GT_PATH)")
    parser.add_argument(
        "--outfile", required=True, help="the frequencies to write (SCORER.CIDER_CACHED)"
    )
    args = parser.parse_args(argv)

    from xmodaler.preprocessing.cider_cache import Written, write_cider_files

    summary = write_cider_files(
        args.infile,
        args.gts,
        args.outfile,
        args.image_ids,
        Written(args.vocabulary, args.tokenizer, args.split, args.max_length),
    )
    print(summary)
    print(f"wrote {args.gts}\nwrote {args.outfile}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
