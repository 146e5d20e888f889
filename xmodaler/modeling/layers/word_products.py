"""What a word contributes to the gates of a recurrent decoder, computed once per word."""

import torch
from torch import Tensor

from .few_rows import StepWeights, multiply


class WordProducts:
    """Products ``W_x x`` of the words that the sentences of one batch have used so far.

    Sentences share most of their words: after a few steps hardly any is new.

    Args:
        weight: (out, in).
        columns: Which inputs of the weight a word stands for.
    """

    def __init__(self, weight: Tensor, columns: slice) -> None:
        self._weight, self._columns = weight, columns
        self._place: dict[int, int] = {}
        self._inputs: Tensor | None = None
        self._products: Tensor | None = None

    def of(self, ids: Tensor, x: Tensor, copies: StepWeights | None) -> Tensor:
        """The products of some words.

        Args:
            ids: (rows,) int64, the words.
            x: (rows, width of the columns), their embeddings.
            copies: Copies of the weights made for decoding, or None.

        Returns:
            (rows, out).
        """
        words = ids.tolist()
        fresh = {word: row for row, word in enumerate(words) if word not in self._place}
        if fresh:
            rows = x.index_select(0, torch.tensor(list(fresh.values())))
            products = multiply(rows, self._weight, None, copies, self._columns)
            self._inputs = rows if self._inputs is None else torch.cat([self._inputs, rows])
            known = [products] if self._products is None else [self._products, products]
            self._products = torch.cat(known)
            self._place.update({word: len(self._place) + k for k, word in enumerate(fresh)})
        place = torch.tensor([self._place[word] for word in words])
        if torch.equal(self._inputs.index_select(0, place), x):
            return self._products.index_select(0, place)
        # The embedding depends on more than the word.
        return multiply(x, self._weight, None, copies, self._columns)
