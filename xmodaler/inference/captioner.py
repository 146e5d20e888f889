"""A loaded model that captions pictures and videos."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from xmodaler.config import kfg
from xmodaler.inference.base import LoadedPredictor, OnError, batches, check_counts
from xmodaler.utils.errors import UserError

__all__ = ["Caption", "Captioner"]


@dataclass
class Caption:
    """A sentence about a picture or a video.

    Attributes:
        id: Path of the file (or folder of frames), or its place among the inputs.
        text: The sentence.
        score: Natural logarithm of its probability: the sum of ``log_probs``.
        words: Its words.
        log_probs: Of each word and, where the sentence was finished, of its end.
        alternatives: Further sentences, best first, when more than one was asked for.
        attention: Where the model looked for each word: ``(words, rows, columns)`` over the
            picture, ``(words, frames)`` over the sampled frames of a video, or ``(words, rows of
            ATT_FEATS)`` over regions or frames given as features (a token of the whole picture, if
            the model has one, comes first); None unless asked for and available.
    """

    id: str
    text: str
    score: float
    words: list[str]
    log_probs: list[float]
    alternatives: list[Caption] = field(default_factory=list)
    attention: np.ndarray | None = None

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """What goes into a line of JSON."""
        record: dict[str, Any] = {"image": self.id, "caption": self.text, "score": self.score}
        if self.alternatives:
            record["alternatives"] = [
                {"caption": other.text, "score": other.score} for other in self.alternatives
            ]
        return record


class Captioner(LoadedPredictor):
    """Captions pictures, videos or features of them, whichever its model was trained on."""

    ability = "describes pictures: .caption(pictures)"
    generates = True

    def __call__(self, pictures: Any, **options: Any) -> list[Caption]:
        return self.caption(pictures, **options)

    def caption(
        self,
        pictures: Any,
        beam_size: int = 3,
        batch_size: int = 16,
        num_return: int = 1,
        sample: bool = False,
        return_attention: bool = False,
        on_error: OnError = "raise",
    ) -> list[Caption]:
        """Captions pictures.

        Args:
            pictures: A path, folder, ``.txt`` list of paths, PIL image or array (height, width[,
                3 or 4]), or an iterable of these. For a model on videos, paths of videos, animated
                pictures or folders of frames, arrays (frames, height, width, 3), or, inside an
                iterable, lists of pictures. For a model on features ``.npz``/``.npy`` files,
                arrays (regions or frames, width) or mappings of arrays; what the model reads
                beside features goes by the names ``relations``, ``attributes``,
                ``global_features`` and ``semantics_ids``.
            beam_size: Hypotheses of the beam search; 1 is greedy decoding.
            batch_size: Pictures or clips that go through the model together.
            num_return: Sentences per picture, at most ``beam_size`` unless sampled.
            sample: Draw words at random (see DECODE_STRATEGY.{TEMPERATURE, TOP_K, TOP_P}) instead
                of searching.
            return_attention: Fill :attr:`Caption.attention` where the model has attention.
            on_error: What happens to a picture that cannot be read: ``"raise"``, ``"skip"`` (one
                warning in the log), or a function of its id and the error.

        Returns:
            One caption per readable picture, in the order given.

        Raises:
            UserError: A picture cannot be read, or an argument is out of range.
        """
        return list(
            self.stream(
                pictures, beam_size, batch_size, num_return, sample, return_attention, on_error
            )
        )

    def stream(
        self,
        pictures: Any,
        beam_size: int = 3,
        batch_size: int = 16,
        num_return: int = 1,
        sample: bool = False,
        return_attention: bool = False,
        on_error: OnError = "raise",
    ) -> Iterator[Caption]:
        """As :meth:`caption`, but gives captions as soon as their batch is done."""
        check_counts(beam_size=beam_size, batch_size=batch_size, num_return=num_return)
        if not sample and num_return > beam_size:
            raise UserError(
                f"num_return is {num_return} but a search with beam_size {beam_size} has only "
                f"{beam_size} sentences; raise beam_size or sample"
            )
        for batch in batches(self.read(pictures, on_error), batch_size):
            yield from self.caption_samples(batch, beam_size, num_return, sample, return_attention)

    @torch.inference_mode()
    def caption_samples(
        self,
        samples: list[dict[str, Any]],
        beam_size: int = 3,
        num_return: int = 1,
        sample: bool = False,
        return_attention: bool = False,
    ) -> list[Caption]:
        """Captions one batch of samples as a dataset makes them for its test split.

        Args:
            samples: Dicts with IDS and the visual keys that the model reads.
            beam_size, num_return, sample, return_attention: As in :meth:`caption`.
        """
        batch = self.model.preprocess_batch(samples)
        if return_attention:
            batch["RETURN_ATTENTION"] = True
        use_beam_search = not sample and beam_size > 1
        if sample:
            batch[kfg.DECODE_BY_SAMPLE] = True
            batch["SAMPLES_PER_IMAGE"] = num_return
        elif use_beam_search:
            batch["OUT_SIZE"] = num_return
        with self._decoding(beam_size if use_beam_search else None):
            outputs = self.model(batch, use_beam_search=use_beam_search)
        return self._captions(batch, outputs, num_return)

    @contextlib.contextmanager
    def _decoding(self, beam_size: int | None) -> Iterator[None]:
        """The precision and the beam size of one call; the model's own setting comes back."""
        searcher = self.model.beam_searcher
        previous = getattr(searcher, "beam_size", None)
        if beam_size is not None and searcher is not None:
            searcher.beam_size = beam_size
        try:
            with self._autocast():
                yield
        finally:
            if previous is not None:
                searcher.beam_size = previous

    def _captions(
        self, batch: dict[str, Any], outputs: dict[str, Any], num_return: int
    ) -> list[Caption]:
        ids: list[str] = batch[kfg.IDS]
        count = len(ids)
        tokens = outputs[kfg.G_SENTS_IDS].reshape(count, num_return, -1).cpu()
        log_probs = outputs[kfg.G_LOGP].float().reshape(count, num_return, -1).cpu()
        maps = outputs.get("ATTENTION_MAPS")
        if maps is not None:
            # Sampling returns maps of every sentence; those of the first one are shown.
            maps = maps.float().reshape(count, -1, *maps.shape[-2:])[:, 0].cpu().numpy()
        captions = []
        for index, name in enumerate(ids):
            best, *others = [
                self._caption(name, tokens[index, k], log_probs[index, k])
                for k in range(num_return)
            ]
            best.alternatives = others
            if maps is not None:
                best.attention = self._layout(maps[index][: len(best.words)], batch, index)
            captions.append(best)
        return captions

    def _caption(self, name: str, tokens: torch.Tensor, log_probs: torch.Tensor) -> Caption:
        strategy = self.model.greedy_decoder
        text = strategy.sentences(tokens.unsqueeze(0))[0]
        ends = (tokens == strategy.eos_token_id).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(tokens)
        values = log_probs[:length].tolist()
        return Caption(str(name), text, math.fsum(values), text.split(), values)

    def _layout(self, maps: np.ndarray, batch: dict[str, Any], index: int) -> np.ndarray:
        """Attention (words, positions) of one item, as :class:`Caption` describes it."""
        positions = maps.shape[1]
        masks = batch.get(kfg.ATT_MASKS)
        if masks is not None:
            real = int(masks[index].sum())
            extra = positions % masks.shape[1]  # a token of the whole may come before the others
            each = positions // masks.shape[1]
            if extra <= 1 and self.kind == "videos":
                return maps[:, extra : extra + real * each].reshape(len(maps), real, each).sum(2)
            if extra <= 1 and each == 1:
                return maps[:, : real + extra]
        # Pictures are made square, so grids are; a token of the whole picture may come before.
        for extra in (0, 1):
            side = math.isqrt(positions - extra)
            if self.reads_pictures and side > 1 and side * side == positions - extra:
                return maps[:, extra:].reshape(len(maps), side, side)
        return maps
