"""Build the answer vocabulary and the soft targets of VQA annotations."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--annotations",
        nargs="+",
        required=True,
        help="VQA annotations as STAGE=FILE, or one FILE that --images shares out",
    )
    parser.add_argument("--images", help="JSON with images[] of id and split")
    parser.add_argument(
        "--count-in", nargs="+", help="stages whose answers are counted (default: train and val)"
    )
    parser.add_argument("--min-count", type=int, default=9, help="questions an answer must have")
    parser.add_argument("--max-answers", type=int, default=0, help="keep the most frequent only")
    parser.add_argument("--answers", help="use this label2ans file and count nothing")
    parser.add_argument("--max-bad-fraction", type=float, default=0.01)
    parser.add_argument("--out", required=True, help="the folder to write")
    args = parser.parse_args(argv)

    from xmodaler.datasets.answer_files import read_label2ans
    from xmodaler.preprocessing import vqa_answers

    stages, problems = vqa_answers.read_stages(args.annotations, args.images)
    if args.answers:
        answers = read_label2ans(args.answers)
    else:
        counted = vqa_answers.counted_questions(stages, args.count_in)
        answers = vqa_answers.build_vocabulary(counted, args.min_count, args.max_answers)
    print(
        vqa_answers.write_answer_files(stages, answers, args.out, problems, args.max_bad_fraction)
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
