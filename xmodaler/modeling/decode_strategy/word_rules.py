"""Which words may follow: forbidden words, repeated n-grams, and truncation for sampling."""

import torch
from torch import Tensor


class WordRules:
    """Gives forbidden words the log-probability minus infinity.

    The other words keep the model's log-probabilities (nothing is renormalised), so the score of
    a sentence stays its log-probability under the model.

    Args:
        suppressed_ids: Ids that must never come.
        no_repeat_ngram: Length of n-grams that must not come twice; 0 for no such rule. The end
            of a sentence is never forbidden by it.
        min_length: Words before which the end of a sentence must not come.
        eos_token_id: The end of a sentence.
    """

    def __init__(
        self,
        suppressed_ids: list[int],
        no_repeat_ngram: int,
        min_length: int = 0,
        eos_token_id: int = 0,
    ) -> None:
        self.suppressed_ids = suppressed_ids
        self.no_repeat_ngram = no_repeat_ngram
        self.min_length = min_length
        self.eos_token_id = eos_token_id

    def __call__(self, log_probs: Tensor, history: Tensor) -> Tensor:
        """Apply the rules.

        Args:
            log_probs: (R, V).
            history: (R, t) int64 words so far, without the id that begins a sentence.

        Returns:
            (R, V), a new tensor.
        """
        suppressed = list(self.suppressed_ids)
        if history.size(1) < self.min_length:
            suppressed.append(self.eos_token_id)
        if suppressed:
            index = torch.tensor(suppressed, device=log_probs.device)
            log_probs = log_probs.index_fill(1, index, float("-inf"))
        if 0 < self.no_repeat_ngram <= history.size(1):
            repeats = self._completes_old_ngram(history, log_probs.size(1))
            log_probs = log_probs.masked_fill(repeats, float("-inf"))
        return log_probs

    def _completes_old_ngram(self, history: Tensor, num_words: int) -> Tensor:
        """(R, V) bool: the words that would end an n-gram which ``history`` (R, t) has."""
        windows = history.unfold(1, self.no_repeat_ngram, 1)  # (R, t - n + 1, n)
        prefix = history[:, history.size(1) - self.no_repeat_ngram + 1 :]
        same_prefix = (windows[..., :-1] == prefix.unsqueeze(1)).all(-1)
        counts = torch.zeros(history.size(0), num_words, device=history.device, dtype=torch.int32)
        return counts.scatter_add_(1, windows[..., -1], same_prefix.int()) > 0


def truncate(log_probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """Keep the most probable words only and renormalise.

    Top-k sampling (Fan et al. 2018) keeps k words; nucleus sampling (Holtzman et al. 2020) keeps
    the smallest set, most probable words first, whose probability is at least ``top_p``.

    Args:
        log_probs: (R, V).
        top_k: Words kept; 0 for all.
        top_p: Probability kept, in (0, 1].

    Returns:
        (R, V) log-probabilities of the words kept, minus infinity for the others.
    """
    num_words = log_probs.size(-1)
    if 0 < top_k < num_words:
        least = log_probs.topk(top_k, dim=-1).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < least, float("-inf"))
        log_probs = torch.log_softmax(log_probs, dim=-1)
    if top_p < 1.0:
        ordered, index = log_probs.sort(dim=-1, descending=True)
        probabilities = ordered.exp()
        # A word goes when the words before it suffice, so the first one always stays.
        surplus = probabilities.cumsum(-1) - probabilities >= top_p
        dropped = torch.zeros_like(surplus).scatter(-1, index, surplus)
        log_probs = log_probs.masked_fill(dropped, float("-inf"))
        log_probs = torch.log_softmax(log_probs, dim=-1)
    return log_probs
