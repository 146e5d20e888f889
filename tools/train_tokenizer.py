"""Learn a small WordPiece vocabulary from captions, questions or any text."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, learn, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--texts", nargs="+", required=True, help="captions, VQA or VCR JSON, JSON lines, tsv, txt"
    )
    parser.add_argument("--split", default="", help="read only what belongs to this split")
    parser.add_argument("--vocab-size", type=int, default=3000, help="the most pieces")
    parser.add_argument("--min-count", type=int, default=2, help="merge pairs as frequent as this")
    parser.add_argument("--cased", action="store_true", help="keep capitals and accents")
    parser.add_argument("--no-answers", action="store_true", help="leave out answers of VQA files")
    parser.add_argument(
        "--whole-words", nargs="*", default=["left", "right"], help="words that stay one piece"
    )
    parser.add_argument("--out", required=True, help="the folder to write")
    args = parser.parse_args(argv)

    from xmodaler.preprocessing import text_files, wordpieces

    lower_case = not args.cased
    texts = text_files.read_texts(args.texts, args.split, not args.no_answers)
    pieces = wordpieces.train_wordpieces(
        texts, args.vocab_size, args.min_count, lower_case, args.whole_words
    )
    files = wordpieces.write_tokenizer(args.out, pieces, lower_case)
    print(f"wrote {', '.join(str(path) for path in files)}")
    mean = wordpieces.pieces_per_word(texts, pieces, lower_case)
    print(f"{len(texts)} sentences, {mean:.3f} pieces a word; set MODEL.VOCAB_SIZE {len(pieces)}")
    print(f"and MODEL.PRETRAINING.MODEL_NAME {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
