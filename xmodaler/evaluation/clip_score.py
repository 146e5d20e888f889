"""Scores of captions from their pictures, without or with references, through a dual encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = [
    "PROMPT",
    "ClipScorer",
    "DualEncoder",
    "TransformersDualEncoder",
    "clip_score",
    "ref_clip_score",
]

#: What Hessel et al. put before every caption.
PROMPT = "A photo depicts "


class DualEncoder(Protocol):
    """Whatever embeds pictures and texts in one space."""

    def encode_images(self, paths: Sequence[str | os.PathLike[str]]) -> Any:
        """Embeddings ``(N, D)`` of picture files; an array or a tensor, of any length."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """Embeddings ``(N, D)`` of texts."""
        ...


def clip_score(image_embeddings: Any, text_embeddings: Any, w: float = 2.5) -> np.ndarray:
    """CLIPScore of captions: ``w * max(cos(image, text), 0)`` (Hessel et al. 2021, section 3).

    Args:
        image_embeddings: ``(N, D)`` array or tensor.
        text_embeddings: ``(N, D)``, the caption of each image.
        w: Stretches the range; 2.5 in the paper.

    Returns:
        ``(N,)`` float64.

    Raises:
        UserError: The shapes do not fit.
    """
    images, texts = _unit(image_embeddings), _unit(text_embeddings)
    if images.shape != texts.shape:
        raise UserError(
            f"image embeddings have the shape {images.shape}, those of the captions "
            f"{texts.shape}; both must be (captions, dimension)"
        )
    return w * np.maximum((images * texts).sum(axis=1), 0.0)


def ref_clip_score(
    image_embeddings: Any,
    text_embeddings: Any,
    reference_embeddings: Sequence[Any],
    w: float = 2.5,
) -> np.ndarray:
    """RefCLIPScore (Hessel et al. 2021, section 3): the harmonic mean of CLIPScore and the
    similarity to the nearest reference, ``max(max_r cos(text, r), 0)``.

    Args:
        image_embeddings: ``(N, D)``.
        text_embeddings: ``(N, D)``.
        reference_embeddings: Per caption ``(R_i, D)``, at least one reference.
        w: As for :func:`clip_score`.

    Returns:
        ``(N,)`` float64.

    Raises:
        UserError: The shapes do not fit, or a caption has no reference.
    """
    with_image = clip_score(image_embeddings, text_embeddings, w)
    texts = _unit(text_embeddings)
    if len(reference_embeddings) != len(texts):
        raise UserError(
            f"there are references of {len(reference_embeddings)} captions, but {len(texts)} "
            "captions"
        )
    nearest = np.zeros(len(texts))
    for place, (text, others) in enumerate(zip(texts, reference_embeddings, strict=True)):
        own = _unit(others)
        if not len(own):
            raise UserError(f"caption {place} has no reference")
        nearest[place] = max(0.0, float((own @ text).max()))
    total = with_image + nearest
    return 2 * with_image * nearest / np.where(total > 0, total, 1.0)


class ClipScorer:
    """Scores captions of pictures; pictures and references are embedded once.

    Args:
        encoder: Embeds pictures and texts.
        pictures: N files.
        references: Per picture at least one reference, for RefCLIPScore.
        prompt: Put before every caption and reference.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        pictures: Sequence[str | os.PathLike[str]],
        references: Sequence[Sequence[str]] | None = None,
        prompt: str = PROMPT,
    ) -> None:
        self._encoder, self._prompt = encoder, prompt
        self._images = _rows(encoder.encode_images(list(pictures)))
        self._references = None
        if references is not None:
            embedded = self._embed([caption for own in references for caption in own])
            ends = np.cumsum([len(own) for own in references])
            self._references = np.split(embedded, ends[:-1])

    def __call__(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """``CLIPScore`` and ``RefCLIPScore``, each float64 ``(N,)``, of one caption a picture.

        Values compare only between captions scored with the same encoder.
        """
        texts = self._embed(captions)
        scores = {"CLIPScore": clip_score(self._images, texts)}
        if self._references is not None:
            scores["RefCLIPScore"] = ref_clip_score(self._images, texts, self._references)
        return scores

    def _embed(self, captions: Sequence[str]) -> np.ndarray:
        return _rows(self._encoder.encode_texts([self._prompt + text for text in captions]))


class TransformersDualEncoder:
    """A CLIP or SigLIP model of the ``transformers`` library from a folder.

    Args:
        folder: What ``save_pretrained`` of model and processor wrote; nothing is downloaded.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        batch_size: Pictures or texts at once.

    Raises:
        UserError: The folder holds no such model.
    """

    def __init__(
        self, folder: str | os.PathLike[str], device: str = "auto", batch_size: int = 64
    ) -> None:
        from transformers import AutoModel, AutoProcessor

        from xmodaler.utils.env import resolve_device

        folder = expand_path(os.fspath(folder))
        if not os.path.isfile(os.path.join(folder, "config.json")):
            raise UserError(
                f"'{folder}' is not the folder of a transformers model: it lacks config.json"
            )
        try:
            model = AutoModel.from_pretrained(folder, local_files_only=True)
            self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the model in '{folder}' cannot be loaded: {reason}") from error
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise UserError(
                f"'{folder}' holds a {type(model).__name__}, which does not embed pictures and "
                "texts in one space; a CLIP or SigLIP model does"
            )
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.batch_size = batch_size
        text = getattr(model.config, "text_config", model.config)
        self._longest = text.max_position_embeddings
        # SigLIP was trained on texts of one length.
        self._padding = "max_length" if "siglip" in model.config.model_type else True

    def encode_images(self, paths: Sequence[str | os.PathLike[str]]) -> np.ndarray:
        """Embeddings of picture files, float32 ``(N, D)``."""
        from xmodaler.utils.pictures import load_picture

        return self._encode(
            paths,
            lambda part: self.processor(
                images=[load_picture(path) for path in part], return_tensors="pt"
            ),
            self.model.get_image_features,
        )

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, float32 ``(N, D)``; what is too long is cut off."""
        return self._encode(
            texts,
            lambda part: self.processor(
                text=list(part),
                padding=self._padding,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            ),
            self.model.get_text_features,
        )

    def _encode(self, items: Sequence[Any], prepare: Any, embed: Any) -> np.ndarray:
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(items), self.batch_size):
                batch = prepare(items[start : start + self.batch_size])
                found = embed(**{name: value.to(self.device) for name, value in batch.items()})
                # Newer versions return an output with the embedding in it.
                found = found if isinstance(found, torch.Tensor) else found.pooler_output
                rows.append(found.float().cpu().numpy())
        return np.concatenate(rows)


def _rows(embeddings: Any) -> np.ndarray:
    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().float().cpu()
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2:
        raise UserError(f"embeddings have the shape {rows.shape}; (captions, dimension) is right")
    return rows


def _unit(embeddings: Any) -> np.ndarray:
    """Rows scaled to length 1; rows of zeros stay."""
    rows = _rows(embeddings)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
