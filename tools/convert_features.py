"""Convert bottom-up-attention TSV files to one archive a picture or to one packed file."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, convert, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--infeats", nargs="+", required=True, help="TSV files")
    parser.add_argument(
        "--out", "--outfolder", required=True, help="a folder, or a packed file ending with .xmf"
    )
    parser.add_argument("--boxes", action="store_true", help="keep boxes and picture sizes")
    parser.add_argument("--dtype", choices=("float32", "float16"), help="default: as is")
    args = parser.parse_args(argv)

    from xmodaler.preprocessing.feature_sink import FeatureSink
    from xmodaler.preprocessing.region_tsv import convert_region_tsv

    sink = FeatureSink(args.out, {"source": "tsv", "boxes": args.boxes}, args.dtype)
    print(convert_region_tsv(args.infeats, sink, args.boxes))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
