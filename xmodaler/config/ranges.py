"""Numbers that no run can have, found before anything is built from them."""

from collections.abc import Mapping
from typing import Any

from xmodaler.utils.errors import UserError

# Smallest and largest value; None where there is no limit.
RANGES: dict[str, tuple[float, float | None]] = {
    "DATALOADER.IMAGE_SIZE": (1, None),
    "DATALOADER.MAX_BAD_FRACTION": (0, 1),
    "DATALOADER.MIRROR_PROB": (0, 1),
    "DATALOADER.NUM_WORKERS": (0, None),
    "DATALOADER.SEQ_PER_SAMPLE": (1, None),
    "DATALOADER.TEST_BATCH_SIZE": (1, None),
    "DATALOADER.TRAIN_BATCH_SIZE": (1, None),
    "DATALOADER.VCR_MAX_SEQ_LEN": (0, None),
    "MODEL.EMA_DECAY": (0, 1),
    "MODEL.ITM_NEG_PROB": (0, 1),
    "MODEL.MAX_SEQ_LEN": (1, None),
    "MODEL.VOCAB_SIZE": (1, None),
    "SCHEDULED_SAMPLING.INC_EVERY_EPOCH": (1, None),
    "SCHEDULED_SAMPLING.INC_PROB": (0, 1),
    "SCHEDULED_SAMPLING.MAX_PROB": (0, 1),
    "SOLVER.BASE_LR": (0, None),
    "SOLVER.CHECKPOINT_PERIOD": (1, None),
    "SOLVER.EPOCH": (0, None),
    "SOLVER.WRITE_PERIOD": (1, None),
}


def check_ranges(cfg: Mapping[str, Any]) -> None:
    """Refuse numbers out of range, among them every probability of dropout.

    Args:
        cfg: A whole config; keys that it lacks are passed over.

    Raises:
        UserError: A value is out of range; the message names key, value and range.
    """
    for key, value in _numbers(cfg, ()):
        # Classes of users have dropouts of their own, which the table cannot know.
        smallest, largest = (0, 1) if "DROPOUT" in key else RANGES.get(key, (None, None))
        if smallest is None or smallest <= value <= (value if largest is None else largest):
            continue
        limits = f"at least {smallest}" if largest is None else f"from {smallest} to {largest}"
        raise UserError(f"{key} is {value}, but must be {limits}")


def _numbers(node: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, float]]:
    found = []
    for name, value in node.items():
        if isinstance(value, Mapping):
            found += _numbers(value, (*path, str(name)))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((".".join((*path, str(name))), value))
    return found
