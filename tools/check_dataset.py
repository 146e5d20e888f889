"""Walk the data sets of a config and report every record that cannot be used."""

import argparse

from xmodaler.cli import run_cli


def main(argv: list[str] | None = None) -> int:
    """Parse, walk, print; 1 if anything is bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides")
    args = parser.parse_args(argv)
    overrides = args.opts[1:] if args.opts[:1] == ["--opts"] else args.opts

    from xmodaler.config import load_config
    from xmodaler.datasets.checking import check_dataset, format_reports
    from xmodaler.modeling import add_config

    def add_keys(cfg, named):
        # A config that only describes data names no model, whose classes would add keys.
        if named.get("MODEL", {}).get("META_ARCHITECTURE"):
            add_config(cfg, named)

    reports = check_dataset(load_config(args.config_file, overrides, add_keys))
    print(format_reports(reports))
    return 1 if any(report.bad for report in reports) else 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
