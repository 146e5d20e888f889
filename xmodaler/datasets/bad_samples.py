"""What happens to records that cannot be read: skipped, counted, reported, and at last fatal.

A mapper that meets such a record raises :class:`SampleError`. :class:`~.common.MapDataset` puts
another record in its place (training) or an empty place (evaluation) and attaches a note under
:data:`BAD_KEY`; collation carries the notes through the worker processes, and the loader's
:class:`BadSampleMonitor` takes them out again, so that models and trainers never see them.
"""

import logging
from typing import Any

from xmodaler.utils.errors import UserError

BAD_KEY = "_BAD"
"""Key of a sample or batch whose value is a list of notes ``"<record>: <reason>"``."""

_LISTED = 20
_logger = logging.getLogger(__name__)


class SampleError(UserError):
    """One record cannot become a sample; the others may be fine.

    Args:
        record: What identifies the record: its id, or file and line.
        reason: What is wrong with it.
    """

    def __init__(self, record: str, reason: str = "") -> None:
        super().__init__(f"{record}: {reason}" if reason else str(record))
        self.record = str(record)
        self.reason = reason


def take_notes(batch: Any) -> tuple[Any, list[str]]:
    """Separate a batch from the notes about bad records it carries.

    Args:
        batch: A collated dict or a list of samples. It is not changed.

    Returns:
        The batch without notes (None when nothing else is left in it) and the notes.
    """
    if isinstance(batch, dict) and BAD_KEY in batch:
        rest = {key: value for key, value in batch.items() if key != BAD_KEY}
        return rest or None, list(batch[BAD_KEY])
    if isinstance(batch, list) and any(isinstance(s, dict) and BAD_KEY in s for s in batch):
        notes: list[str] = []
        samples = []
        for sample in batch:
            rest, found = take_notes(sample) if isinstance(sample, dict) else (sample, [])
            notes.extend(found)
            if rest is not None:
                samples.append(rest)
        return samples or None, notes
    return batch, []


def check(batch: Any) -> Any:
    """Log the notes of a batch that did not come from one of this package's loaders.

    Returns:
        The batch without its notes; None when every record of it was bad.
    """
    rest, notes = take_notes(batch)
    for note in notes:
        _logger.warning("Skipped a bad record: %s", note)
    return rest


class BadSampleMonitor:
    """Counts the bad records of an epoch and stops the run when they are too many.

    Args:
        size: Records that an epoch visits.
        max_fraction: The greatest part of them that may be bad.
    """

    def __init__(self, size: int, max_fraction: float = 0.01) -> None:
        self.size = size
        self.max_fraction = max_fraction
        self._epoch: dict[str, None] = {}
        self._reported: set[str] = set()

    @property
    def bad_records(self) -> list[str]:
        """The notes of this epoch, each once, in the order in which they came."""
        return list(self._epoch)

    def start_epoch(self) -> None:
        """Forget the count, but not which records were already reported."""
        self._epoch = {}

    def check(self, batch: Any) -> Any:
        """Take the notes out of a batch, report new ones, stop if there are too many.

        Returns:
            The batch without notes; None when every record of it was bad.

        Raises:
            UserError: More than ``max_fraction`` of the epoch's records are bad.
        """
        rest, notes = take_notes(batch)
        for note in notes:
            self._epoch[note] = None
            if note not in self._reported:
                self._reported.add(note)
                _logger.warning("Skipped a bad record: %s", note)
        if notes and len(self._epoch) > self.max_fraction * self.size:
            raise UserError(self._too_many())
        return rest

    def _too_many(self) -> str:
        listed = list(self._epoch)[:_LISTED]
        more = len(self._epoch) - len(listed)
        lines = "".join(f"\n  {note}" for note in listed)
        tail = f"\n  ... and {more} more" if more else ""
        return (
            f"{len(self._epoch)} of the {self.size} records of this epoch are bad, more than "
            f"DATALOADER.MAX_BAD_FRACTION {self.max_fraction:g} allows; mend or remove them:"
            f"{lines}{tail}"
        )
