"""Train a captioner on generated pictures, score it beside an oracle, and write a report."""

import argparse
import logging
import time
from pathlib import Path

from xmodaler.cli import run_cli

SIZE = 8000  # pictures: 6,400 to train, 800 for each of the other splits
GOAL = 0.8  # of the oracle's CIDEr-D
METRICS = ("Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr-D")


def generate(folder: Path, size: int, seed: int) -> None:
    """Make the pictures unless they are there."""
    from xmodaler.datasets.synthetic import is_made_with, make_shapes

    if not is_made_with(str(folder), size=size, seed=seed):
        make_shapes(str(folder), size=size, seed=seed, progress=True, understanding=False)


def train_and_test(output: Path, data: Path, overrides: list[str]) -> dict[str, float]:
    """Train the config of the quickstart and return the scores of the test split."""
    from xmodaler.engine import DefaultTrainer, default_setup
    from xmodaler.engine.reproduce import read_config

    config = Path(__file__).resolve().parents[1] / "configs" / "shapes" / "quickstart.yaml"
    cfg = read_config(str(config), str(output), str(data), overrides)
    cfg.freeze()
    default_setup(cfg, argparse.Namespace())
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    metrics = trainer.train()
    return {name.removeprefix("test/"): value for name, value in metrics.items()}


def quiet_console() -> None:
    """Let the log go to its file; the terminal shows the progress bar and warnings."""
    from xmodaler.utils.logger import setup_logger

    for name in ("xmodaler", "fvcore"):
        for handler in setup_logger(name=name).handlers:
            handler.setLevel(logging.WARNING)


def table(rows: list[dict[str, object]]) -> str:
    """The score table as text."""
    lines = ["".join([f"{'':<16}", *(f"{metric:>10}" for metric in METRICS)])]
    for row in rows:
        cells = [f"{row[metric]:>10.3f}" for metric in METRICS]
        lines.append("".join([f"{row['captions by']:<16}", *cells]))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Generate, train, test, report; 1 if the captioner misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="output/quickstart", help="folder of the run")
    parser.add_argument("--size", type=int, default=SIZE, help="pictures to generate")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides of the config")
    args = parser.parse_args(argv)
    output = Path(args.out)
    data = output / "data"

    start = time.monotonic()
    print(f"[1/3] {args.size} pictures of coloured shapes with captions -> {data}", flush=True)
    generate(data, args.size, args.seed)
    print("[2/3] training a captioner on their pixels", flush=True)
    quiet_console()
    found = train_and_test(output, data, args.opts)

    from xmodaler.engine.reproduce import oracle_scores

    oracle = oracle_scores(data / "captions_test.json")
    share = found["CIDEr-D"] / oracle["CIDEr-D"]
    print("[3/3] report", flush=True)
    rows = [{"captions by": "this model", **{name: found[name] for name in METRICS}}]
    rows.append({"captions by": "oracle", **{name: oracle[name] for name in METRICS}})

    from xmodaler.inference.report import make_report

    note = (
        "The oracle writes one sentence of the generator's own grammar from the true scene. "
        f"The model reaches {share:.0%} of its CIDEr-D."
    )
    report = make_report(output, scores=rows, notes=note, title="xmodaler quickstart")
    print(
        f"\nTest split, {args.size // 10} pictures that training has not seen:\n\n{table(rows)}\n"
    )
    print(f"{share:.0%} of the oracle's CIDEr-D, in {time.monotonic() - start:.0f} s")
    print(f"report: {report}")
    print(
        "\nCaption a picture of your own:\n\n"
        f"    .venv/bin/python tools/predict.py --weights {output} YOUR_PICTURE.png\n"
    )
    if share < GOAL:
        print(f"The goal is {GOAL:.0%}: something is wrong with this installation.")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
