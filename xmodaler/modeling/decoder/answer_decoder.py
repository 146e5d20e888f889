"""Generates and ranks short answers, given the states of a question and its picture."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xmodaler.utils.errors import UserError

from ..encoder.text_fusion_encoder import FusionMemory
from ..layers.bert_stack import BertSizes, fusion_stack
from ..layers.kv_cache import empty_cache, slot_mask
from ..layers.masking import BERT_HIDDEN, additive, compute_dtype
from ..layers.packing import pack_or_flatten, worth_packing

LOGIT_ROWS = 512
"""Rows of which logits over all words are held at once while ranking."""


@dataclass(frozen=True)
class AnswerTree:
    """Candidate answers as a tree: answers that begin alike share what they begin with.

    Attributes:
        words: (n,) int64, the word of every node but the root, level by level.
        parents: (n,) int64, the node above, or -1 below the root.
        levels: Where the nodes of each level begin, and the end: ``levels[d] : levels[d + 1]``
            are the words in place d.
        paths: (C, L) int64, the nodes of every answer, -1 behind its end.
        targets: (C, L + 1) int64, its words and the end of sentence, -1 behind that.
    """

    words: Tensor
    parents: Tensor
    levels: list[int]
    paths: Tensor
    targets: Tensor

    @classmethod
    def of(cls, answers: list[list[int]], end: int) -> "AnswerTree":
        """The tree of answers, given as their words without begin and end of sentence.

        Raises:
            UserError: There are none, or one is empty.
        """
        empty = [number for number, answer in enumerate(answers) if not answer]
        if empty or not answers:
            raise UserError(
                f"candidate answer {empty[0]} has no words" if empty else "no candidate answers"
            )
        longest = max(map(len, answers))
        paths = torch.full((len(answers), longest), -1)
        targets = torch.full((len(answers), longest + 1), -1)
        words, parents, levels = [], [], [0]
        above: dict[int, int] = {}
        for place in range(longest):
            known: dict[tuple[int, int], int] = {}
            for number, answer in enumerate(answers):
                if place >= len(answer):
                    continue
                key = (above.get(number, -1), answer[place])
                if key not in known:
                    known[key] = len(words)
                    words.append(answer[place])
                    parents.append(key[0])
                above[number] = known[key]
                paths[number, place] = known[key]
            levels.append(len(words))
        for number, answer in enumerate(answers):
            targets[number, : len(answer) + 1] = torch.tensor([*answer, end])
        return cls(torch.tensor(words), torch.tensor(parents), levels, paths, targets)

    def to(self, device: torch.device) -> "AnswerTree":
        """The same on another device."""
        moved = (x.to(device) for x in (self.words, self.parents, self.paths, self.targets))
        words, parents, paths, targets = moved
        return AnswerTree(words, parents, self.levels, paths, targets)


class AnswerDecoder(nn.Module):
    """A causal stack with attention to the states of a question (X²-VLM, section 4.2).

    Args:
        embed: Embedding of words, with ``embed(tokens, types, step)``.
        head: Word head; its matrix may be that of ``embed``.
        sizes: Of the layers.
        number: How many layers.
        memory_width: Width of the states of questions.
    """

    def __init__(
        self,
        *,
        embed: nn.Module,
        head: nn.Module,
        sizes: BertSizes,
        number: int,
        memory_width: int,
    ) -> None:
        super().__init__()
        self.embed = embed
        self.layers = fusion_stack(sizes, number, memory_width)
        self.head = head

    def memory(self, states: Tensor, mask: Tensor) -> FusionMemory:
        """Keys and values of questions (B, T, D) under their additive mask (B, 1, 1, T)."""
        pairs = [layer.x_att.self.project_memory(states, states) for layer in self.layers]
        return FusionMemory(pairs, mask)

    def logits(self, states: Tensor) -> Tensor:
        """(k, D) -> (k, V)."""
        return self.head.decoder(self.head.transform(states))

    def forward(self, tokens: Tensor, shown: Tensor, memory: FusionMemory) -> Tensor:
        """States of given answers.

        Args:
            tokens: (A, T) int64, begin of sentence first.
            shown: Bool (A, T), which are real.
            memory: Of the question of each answer: A rows.

        Returns:
            (A, T, D); zeros where padding was left out.
        """
        packing = worth_packing(shown)
        x = pack_or_flatten(self.embed.embed(tokens, torch.zeros_like(tokens)), packing)
        length = tokens.shape[1]
        lower = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        visible = lower & shown[:, None, None, :]
        mask = additive(visible, compute_dtype(x), BERT_HIDDEN)
        for layer, keys_values in zip(self.layers, memory, strict=True):
            x = layer(x, keys_values, mask, memory.mask, packing=packing)
        return x if packing is None else packing.unpack(x)

    @torch.no_grad()
    def rank(
        self,
        tree: AnswerTree,
        memory: FusionMemory,
        begin: int,
        top_k: int = 0,
        first_twice: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The likelihood of candidate answers.

        Every beginning that answers share is computed once per question.

        Args:
            tree: The candidates.
            memory: Of B questions.
            begin: The word that every answer begins after.
            top_k: Only the k candidates whose first word is the likeliest are scored in full
                (ties: those that come first); 0 scores all.
            first_twice: Count the first word twice, and break ties, as the released X²-VLM does.

        Returns:
            Candidates (B, k) int64, the best first, and their log-likelihoods (B, k).
        """
        images = memory.layers[0][0].shape[0]
        cache = empty_cache(len(self.layers))
        slots = torch.zeros(images, 1, 1, dtype=torch.int64, device=tree.words.device)
        roots = torch.full((images, 1), begin, device=tree.words.device)
        states = self._level(roots, slots, 0, memory, cache)
        firsts = tree.targets[:, 0]
        scores = self._word_scores(states, firsts.expand(images, -1), None)
        number = len(firsts) if top_k <= 0 else min(top_k, len(firsts))
        if first_twice:  # which of equal ones are kept is up to torch there
            kept = scores.topk(number, dim=1).indices
        else:
            kept = scores.argsort(dim=1, descending=True, stable=True)[:, :number]
        totals = scores.gather(1, kept) * (2 if first_twice else 1)
        columns = torch.zeros(images, 0, dtype=torch.int64, device=kept.device)
        for place in range(tree.paths.shape[1]):
            nodes = tree.paths[kept, place]
            used, wanted = nodes >= 0, tree.targets[kept, place + 1]
            columns, slots, words = _columns(tree, place, nodes, columns, slots, cache["used"])
            if not words.shape[1]:
                break
            states = self._level(words, slots, place + 1, memory, cache)
            column = columns.gather(1, (nodes - tree.levels[place]).clamp(min=0))
            gained = self._word_scores(states, wanted.clamp(min=0), column)
            totals = totals + gained.where(used, 0.0)
        order = totals.argsort(dim=1, descending=True, stable=True)
        return kept.gather(1, order), totals.gather(1, order)

    def _level(
        self, words: Tensor, slots: Tensor, place: int, memory: FusionMemory, cache: dict
    ) -> Tensor:
        """States (B, G, D) of words (B, G) in one place, which see the slots (B, G, t)."""
        images, groups = words.shape
        x = self.embed.embed(words.flatten(), words.new_zeros(words.numel()), step=place)
        own = slots.flatten(0, 1)
        mask = slot_mask(own, cache["used"] + groups, images, compute_dtype(x))
        for number, (layer, keys_values) in enumerate(zip(self.layers, memory, strict=True)):
            x, _ = layer.step(x, keys_values, cache, number, mask, memory.mask)
        cache["used"] += groups
        return x.unflatten(0, (images, groups))

    def _word_scores(self, states: Tensor, words: Tensor, column: Tensor | None) -> Tensor:
        """Log-probabilities (B, k) of words (B, k), each after the state in its column.

        Args:
            states: (B, G, D).
            words: (B, k) int64.
            column: (B, k) int64, or None where there is one state.
        """
        images, groups = states.shape[:2]
        if column is None:
            column = torch.zeros_like(words)
        rows = torch.arange(images, device=words.device)[:, None] * groups + column
        scores = states.new_zeros(words.shape, dtype=torch.float32)
        for start in range(0, images * groups, LOGIT_ROWS):
            part = states.flatten(0, 1)[start : start + LOGIT_ROWS]
            logits = self.logits(part).float()
            here = (rows >= start) & (rows < start + len(part))
            chosen = logits[rows[here] - start, words[here]]
            scores[here] = chosen - logits.logsumexp(1)[rows[here] - start]
        return scores


def _columns(
    tree: AnswerTree, place: int, nodes: Tensor, above: Tensor, slots: Tensor, used: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the nodes of a level stand that each question needs.

    Args:
        tree: The candidates.
        place: The level.
        nodes: (B, k) int64, nodes of the level, -1 for answers that have ended.
        above: (B, nodes of the level above), the columns there.
        slots: (B, G, t) int64, slots of the words of the level above.
        used: Slots in use.

    Returns:
        Columns (B, nodes of the level), slots (B, G', t + 1), and words (B, G'); questions that
        need fewer than G' nodes have copies of the first ones behind.
    """
    start, end = tree.levels[place], tree.levels[place + 1]
    needed = torch.zeros(len(nodes), end - start + 1, dtype=torch.int64, device=nodes.device)
    needed.scatter_(1, torch.where(nodes >= 0, nodes - start, end - start), 1)
    needed = needed[:, :-1]
    columns = needed.cumsum(1) - 1
    groups = int(needed.sum(1).max())
    # The nodes in use in front, in their order; the rest fills up the shorter lists.
    picked = needed.argsort(dim=1, descending=True, stable=True)[:, :groups]
    words = tree.words[start + picked]
    parents = tree.parents[start + picked]
    if place == 0:
        parent_columns = torch.zeros_like(parents)
    else:
        parent_columns = above.gather(1, parents - tree.levels[place - 1]).clamp(min=0)
    inherited = slots.gather(1, parent_columns[..., None].expand(-1, -1, slots.shape[2]))
    own = used + torch.arange(groups, device=nodes.device).expand(len(nodes), -1)
    return columns, torch.cat([inherited, own[..., None]], dim=2), words
