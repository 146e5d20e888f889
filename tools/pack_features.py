"""Pack features into one memory-mapped file that DATALOADER.FEATS_FOLDER can name."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, pack, print what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--folder", help="folder of <id>.npz or <id>.npy files")
    source.add_argument("--array", help="FILE.npz:NAME or FILE.npy, one row per record")
    parser.add_argument(
        "--ids", help="with --array: COCO JSON whose images have id and row, or a JSON list of ids"
    )
    parser.add_argument("--out", required=True, help="the file to write")
    parser.add_argument("--dtype", choices=("float32", "float16", "uint8"), help="default: as is")
    parser.add_argument("--scale", type=float, help="value of one unit of uint8 features")
    args = parser.parse_args(argv)
    if (args.array is None) != (args.ids is None):
        parser.error("--array and --ids go together")

    from xmodaler.datasets.packing import pack, records_of_array, records_of_folder

    records = (
        records_of_folder(args.folder) if args.folder else records_of_array(args.array, args.ids)
    )
    written, problems = pack(records, args.out, dtype=args.dtype, scale=args.scale)
    for problem in problems:
        print(f"left out {problem}")
    print(f"packed {written} records into {args.out}, left out {len(problems)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
