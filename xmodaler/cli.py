"""What all command lines share: user mistakes become one sentence and an exit code."""

import os
import sys
from collections.abc import Callable

from xmodaler.utils.errors import UserError

# Weights are read from main memory again and again; large pages make that up to a tenth faster.
# Read by torch when it first allocates memory on a CPU.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

USER_ERROR = 2
INTERRUPTED = 130


def run_cli(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run the main function of a tool and turn what ends it into an exit code.

    Used as ``raise SystemExit(run_cli(main))``.

    Args:
        main: Takes the arguments (None: those of the process), returns an exit code or None.
        argv: The arguments.

    Returns:
        The code of ``main`` (None counts as 0); 2 after a :class:`UserError`, whose message goes
        to standard error without a traceback; 130 after Ctrl-C. A reader that closes the pipe, as
        ``| head`` does, is no error.
    """
    try:
        code = main(argv)
        sys.stdout.flush()
        return code or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Otherwise the interpreter flushes standard output once more at exit and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
