"""Which configs are trained, and what each must reach."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError, did_you_mean

__all__ = ["BARS", "Entry", "read_suite"]

BARS = "bars.yaml"


@dataclass(frozen=True)
class Entry:
    """One config of a suite.

    Attributes:
        name: File name of the config without its ending.
        config: Its path.
        bar: Least share of the oracle's CIDEr-D.
        reason: Why the bar is not the usual one; '' where it is.
    """

    name: str
    config: str
    bar: float
    reason: str = ""


def read_suite(folder: str | os.PathLike[str], names: Sequence[str] = ()) -> list[Entry]:
    """The configs of a folder with their bars.

    ``bars.yaml`` of the folder holds ``DEFAULT``, the usual bar, ``LEAVE_OUT``, the names that
    are no members of the suite, and ``BARS``, a mapping from name to ``{BAR, REASON}``.

    Args:
        folder: Holds the configs and their ``bars.yaml``.
        names: Which to take, in this order; none means all, by name.

    Raises:
        UserError: A name or the folder does not exist, or the bars name no config.
    """
    folder = Path(folder)
    bars = CfgNode(CfgNode.load_yaml_with_base(str(folder / BARS)))
    known = sorted(path.stem for path in folder.glob("*.yaml") if path.name != BARS)
    for name in (*bars.LEAVE_OUT, *bars.BARS):
        if name not in known:
            raise UserError(
                f"'{folder / BARS}' names '{name}', but there is no '{folder / name}.yaml'"
            )
    suite = [name for name in known if name not in bars.LEAVE_OUT]
    for name in names:
        if name not in suite:
            raise UserError(
                f"there is no config '{name}' in '{folder}'{did_you_mean(name, suite)}; "
                f"known are {', '.join(suite)}"
            )
    return [_entry(folder, name, bars) for name in names or suite]


def _entry(folder: Path, name: str, bars: CfgNode) -> Entry:
    own = bars.BARS.get(name, {})
    bar, reason = float(own.get("BAR", bars.DEFAULT)), str(own.get("REASON", ""))
    if bar < bars.DEFAULT and not reason:
        raise UserError(
            f"'{folder / BARS}' asks less than {bars.DEFAULT:.0%} of '{name}' but gives no REASON"
        )
    return Entry(name, str(folder / f"{name}.yaml"), bar, reason)
