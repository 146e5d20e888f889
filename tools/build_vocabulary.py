"""Write the word list of captions: one word a line, the unknown word last."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--annotations", nargs="+", required=True, help="COCO captions JSON or JSON lines"
    )
    parser.add_argument("--split", default="", help="count only pictures of this split")
    parser.add_argument("--min-count", type=int, default=5, help="keep words as frequent as this")
    parser.add_argument("--order", choices=("first", "frequency"), default="first")
    parser.add_argument("--unk", default="UNK", help="stands for other words; '' for none")
    parser.add_argument("--max-len", type=int, default=0, help="count only so many words a caption")
    parser.add_argument("--out", required=True, help="the vocabulary file to write")
    parser.add_argument("--arrays", help="also write the encoded captions to this .json or .npz")
    parser.add_argument("--length", type=int, default=20, help="length of the encoded captions")
    args = parser.parse_args(argv)

    from xmodaler.datasets import vocabulary

    captions = vocabulary.tokenized_captions(args.annotations, args.split)
    sentences = [words for _, found in captions for words in found]
    words = vocabulary.build_vocabulary(
        sentences, args.min_count, args.order, args.unk, args.max_len
    )
    vocabulary.write_vocabulary(args.out, words)
    print(f"{args.out}: {len(words)} words of {len(sentences)} captions; ", end="")
    print(f"set MODEL.VOCAB_SIZE {len(words) + 1}")
    if args.arrays:
        written = vocabulary.write_encoded_captions(args.arrays, captions, words, args.length)
        print(f"{args.arrays}: captions of {written} pictures, arrays of {args.length}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
