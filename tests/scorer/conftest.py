"""CIDEr-D as plain dictionaries compute it, and random captions."""

import math

import numpy as np
import pytest


class PlainCider:
    """CIDEr-D from its definition, one sentence and one n-gram at a time.

    References are turned into vectors anew for every sentence that is scored.
    """

    def __init__(self, frequencies, log_num_documents, max_order=4, sigma=6.0):
        self.frequencies, self.log_num_documents = frequencies, log_num_documents
        self.max_order, self.sigma = max_order, sigma

    def score(self, sentence, references):
        own, own_norms, own_length = self.vector(sentence)
        total = 0.0
        for reference in references:
            other, norms, length = self.vector(reference)
            penalty = math.exp(-((own_length - length) ** 2) / (2 * self.sigma**2))
            for order in range(self.max_order):
                product = 0.0
                for ngram, weight in own[order].items():
                    if ngram in other[order]:
                        product += min(weight, other[order][ngram]) * other[order][ngram]
                if own_norms[order] and norms[order]:
                    product /= own_norms[order] * norms[order]
                total += product * penalty
        return 10 * total / self.max_order / len(references)

    def vector(self, sentence):
        counts = {}
        for order in range(1, self.max_order + 1):
            for start in range(len(sentence) - order + 1):
                ngram = tuple(sentence[start : start + order])
                counts[ngram] = counts.get(ngram, 0) + 1
        vectors = [{} for _ in range(self.max_order)]
        squares = [0.0] * self.max_order
        length = 0
        for ngram, count in counts.items():
            documents = math.log(max(1.0, self.frequencies.get(ngram, 0.0)))
            weight = count * (self.log_num_documents - documents)
            vectors[len(ngram) - 1][ngram] = weight
            squares[len(ngram) - 1] += weight**2
            length += count if len(ngram) == 2 else 0
        return vectors, [math.sqrt(square) for square in squares], length


def count_documents(references, max_order=4):
    table = {}
    for sentences in references:
        ngrams = {
            tuple(words[start : start + order])
            for words in sentences
            for order in range(1, max_order + 1)
            for start in range(len(words) - order + 1)
        }
        for ngram in ngrams:
            table[ngram] = table.get(ngram, 0) + 1
    return table


def random_references(images, seed, words=30, most=14, captions=5):
    """Captions with words as common as in a language, so that n-grams repeat; they end with 0."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, words + 1)
    chances /= chances.sum()

    def caption():
        length = rng.integers(1, most)
        return [int(w) + 1 for w in rng.choice(words, size=length, p=chances)] + [0]

    return {
        f"image{i}": [caption() for _ in range(rng.integers(1, captions + 1))]
        for i in range(images)
    }


@pytest.fixture(scope="session")
def plain():
    """The plain implementation and the makers of its input."""

    class Plain:
        Cider = PlainCider
        count_documents = staticmethod(count_documents)
        random_references = staticmethod(random_references)

    return Plain


@pytest.fixture
def cider_file(tmp_path, plain):
    """Writes document frequencies; returns the file."""
    from xmodaler.scorer.cider_files import write_frequencies

    def write(references, num_images=None, name="cider.json"):
        count = len(references) if num_images is None else num_images
        path = tmp_path / name
        write_frequencies(path, count_documents(references.values()), math.log(count))
        return str(path)

    return write
