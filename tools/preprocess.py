"""Turn the published captions of COCO, MSVD or MSR-VTT into vocabulary, arrays and references."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, convert, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="dataset", required=True)
    for name, source in (
        ("coco", "dataset_coco.json, the Karpathy split"),
        ("msvd", "a Karpathy-style JSON file"),
        ("msrvtt", "videodatainfo JSON files"),
    ):
        command = commands.add_parser(name, help=f"from {source}")
        nargs = "+" if name == "msrvtt" else 1
        command.add_argument("--annotations", nargs=nargs, required=True, help=source)
        command.add_argument("--out", required=True, help="folder of the files to write")
        command.add_argument("--min-count", type=int, help="keep words that occur so often")
        command.add_argument("--max-length", type=int, default=20, help="words of a caption")
        command.add_argument("--splits", nargs="+", default=["train", "val", "test"])
        command.add_argument("--npz", action="store_true", help="arrays as .npz, not .json")
        command.add_argument("--max-bad-fraction", type=float, default=0.01)
        if name == "msrvtt":
            command.add_argument("--names", action="store_true", help="ids are video7, not 7")
        else:
            command.add_argument("--id-field", default="", help="field of the id, such as filename")
    args = parser.parse_args(argv)

    from xmodaler.preprocessing import caption_files, caption_sources

    if args.dataset == "msrvtt":
        items, problems = caption_sources.read_videodatainfo(args.annotations, args.names)
    else:
        items, problems = caption_sources.read_karpathy(args.annotations[0], args.id_field)
    summary = caption_files.write_caption_files(
        items,
        problems,
        {
            "coco": caption_files.COCO,
            "msvd": caption_files.MSVD,
            "msrvtt": caption_files.MSRVTT,
        }[args.dataset],
        args.out,
        min_count=args.min_count,
        max_length=args.max_length,
        splits=args.splits,
        suffix=".npz" if args.npz else ".json",
        max_bad_fraction=args.max_bad_fraction,
    )
    print(summary)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
