"""Add COS-Net's semantic words to encoded captions, from classifier scores and near captions."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, choose, say how good the words are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", required=True, help="mscoco_caption_anno_<split>.json")
    parser.add_argument("--references", required=True, help="the captions, COCO JSON")
    parser.add_argument("--scores", required=True, help="class scores by picture: .npz or .xmf")
    parser.add_argument("--retrieved", required=True, help="JSON {id: [[caption, similarity]]}")
    parser.add_argument("--classes", required=True, help="text file, one class a line")
    parser.add_argument(
        "--out", required=True, help="cosnet/mscoco_caption_anno_clipfilter_fast_<split>.json"
    )
    parser.add_argument("--max-bad-fraction", type=float, default=0.01)
    args = parser.parse_args(argv)

    from xmodaler.preprocessing.semantic_words import write_semantic_annotations

    print(
        write_semantic_annotations(
            args.annotations,
            args.references,
            args.scores,
            args.retrieved,
            args.classes,
            args.out,
            args.max_bad_fraction,
        )
    )
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
