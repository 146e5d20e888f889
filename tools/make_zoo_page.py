#!/usr/bin/env python3
"""Write the tables of docs/model_zoo.md and README.md from configs/zoo.yaml."""

import argparse
from pathlib import Path

from xmodaler.cli import run_cli

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    """Replace the blocks, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if out of date")
    args = parser.parse_args(argv)

    from xmodaler.model_zoo.page import model_table, replace_block, score_tables
    from xmodaler.utils.atomic import atomic_write

    stale = []
    blocks = {"README.md": model_table("configs"), "docs/model_zoo.md": score_tables()}
    for name, block in blocks.items():
        old = (ROOT / name).read_text(encoding="utf-8")
        new = replace_block(old, block, name)
        if new != old:
            stale.append(name)
            if not args.check:
                with atomic_write(ROOT / name, "w") as file:
                    file.write(new)
    print(f"{'out of date' if args.check else 'changed'}: {', '.join(stale) or 'none'}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
