"""The command line of training, without anything that takes long to import."""

import argparse
import os
import sys
from collections.abc import Sequence


class _OptionsParser(argparse.ArgumentParser):
    """Collects ``KEY VALUE`` pairs, with or without ``--opts`` before them, from anywhere.

    Flags are recognised wherever they stand, also behind the first pair; a value may begin with a
    minus sign.
    """

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        flags, overrides = self._separate(list(sys.argv[1:] if args is None else args))
        parsed, unknown = super().parse_known_args(flags, namespace)
        if len(overrides) % 2 and not unknown:
            self.error(
                f"overrides come in pairs KEY VALUE, but the last one, '{overrides[-1]}', is alone"
            )
        parsed.opts = overrides
        return parsed, unknown

    def _separate(self, arguments: list[str]) -> tuple[list[str], list[str]]:
        """Split a command line into the flags with their values and the overrides."""
        flags: list[str] = []
        overrides: list[str] = []
        waiting = iter(arguments)
        for argument in waiting:
            action = self._option_string_actions.get(argument.split("=", 1)[0])
            if action is not None:
                flags.append(argument)
                if action.nargs != 0 and "=" not in argument:
                    flags.extend([value for value in [next(waiting, None)] if value is not None])
            elif argument in ("--opts", "--"):
                continue
            elif argument.startswith("-") and len(overrides) % 2 == 0:
                flags.append(argument)
            else:
                overrides.append(argument)
        return flags, overrides


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The parser of ``tools/train_net.py``.

    Args:
        epilog: Text at the end of the help.

    Returns:
        A parser of ``--config-file``, ``--then``, ``--resume``, ``--eval-only``, ``--num-gpus``,
        ``--num-machines``, ``--machine-rank``, ``--dist-url``, ``--import`` and of overrides
        ``KEY VALUE ...``, which land in ``opts`` with or without ``--opts`` before them.
    """
    program = os.path.basename(sys.argv[0]) or "train_net.py"
    parser = _OptionsParser(
        epilog=epilog
        or f"""
examples:
  one process:          {program} --config-file cfg.yaml
  change some settings: {program} --config-file cfg.yaml SOLVER.BASE_LR 0.001 OUTPUT_DIR ./out
  go on with a run:     {program} --config-file cfg.yaml --resume
  then train again:     {program} --config-file cfg.yaml --then cfg_rl.yaml 2:SOLVER.EPOCH 5
  only evaluate:        {program} --config-file cfg.yaml --eval-only MODEL.WEIGHTS model.pth
  4 GPUs:               {program} --num-gpus 4 --config-file cfg.yaml
  2 CPU processes:      {program} --num-gpus 2 --config-file cfg.yaml MODEL.DEVICE cpu
  torchrun:             torchrun --nproc-per-node 4 {program} --config-file cfg.yaml
  2 machines, on each:  {program} --num-machines 2 --machine-rank {{0,1}} --dist-url tcp://HOST:PORT
                        --num-gpus 8 --config-file cfg.yaml
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Flags are told from overrides by their full names.
        allow_abbrev=False,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="config of the run")
    parser.add_argument(
        "--then",
        action="append",
        default=[],
        metavar="FILE",
        help="config of a further training, from the best weights of the one before; may be given "
        "several times",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in OUTPUT_DIR, if there is one",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate and do not train")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on each machine")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument("--machine-rank", type=int, default=0, help="index of this machine, from 0")
    parser.add_argument(
        "--dist-url",
        default=_default_dist_url(),
        help="address at which the processes meet (default: a port of this machine)",
    )
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module or .py file that registers parts of yours; may be given several times",
    )
    parser.add_argument(
        "opts",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="overrides of the config, with or without --opts before them",
    )
    return parser


def _default_dist_url() -> str:
    """A port that differs between the users of a machine, so that their runs do not meet."""
    user = os.getuid() if hasattr(os, "getuid") else 1
    return f"tcp://127.0.0.1:{2**15 + 2**14 + hash(user) % 2**14}"
