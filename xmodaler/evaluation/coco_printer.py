"""An evaluator that only writes captions down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.utils.errors import UserError

__all__ = ["COCOPrinter"]


@EVALUATION_REGISTRY.register()
class COCOPrinter:
    """Appends ``id<TAB>caption`` lines to ``<output_dir>/results.txt`` and scores nothing.

    Args:
        cfg: The root config; reads ``INFERENCE.{ID_KEY, VALUE}``, the keys of a result.
        annfile: Not read.
        output_dir: The folder of the file; None or '' is the working folder.
    """

    def __init__(self, cfg: Any, annfile: str, output_dir: str | None = None) -> None:
        self.id_key = cfg.INFERENCE.ID_KEY
        self.value_key = cfg.INFERENCE.VALUE
        self.path = os.path.join(output_dir or "", "results.txt")

    def eval(self, results: Sequence[Mapping[str, Any]], epoch: int = -1) -> dict[str, float]:
        """Appends the results; a tab or line break within a caption becomes a space.

        Returns:
            An empty dict: there is no metric.

        Raises:
            UserError: If the file cannot be written.
        """
        try:
            if folder := os.path.dirname(self.path):
                os.makedirs(folder, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                for result in results:
                    caption = " ".join(str(result[self.value_key]).split())
                    file.write(f"{result[self.id_key]}\t{caption}\n")
        except OSError as error:
            raise UserError(f"cannot write '{self.path}': {error.strerror}") from error
        return {}
