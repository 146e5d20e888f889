"""Write the relations between the regions of pictures (DATALOADER.RELATION_FILE)."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, build, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--boxes", help="spatial relations of features stored with boxes")
    source.add_argument("--triples", help="semantic relations, JSON lines of a classifier")
    parser.add_argument("--out", required=True, help="a .npz, or a packed .xmf for many pictures")
    parser.add_argument("--max-regions", type=int, default=0, help="with --boxes; default: all")
    parser.add_argument("--max-bad-fraction", type=float, default=0.01)
    args = parser.parse_args(argv)

    from xmodaler.preprocessing import relations

    if args.boxes:
        records = relations.spatial_matrices(args.boxes, args.max_regions)
    else:
        records = relations.semantic_matrices(args.triples)
    print(relations.write_relations(records, args.out, args.max_bad_fraction))
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
