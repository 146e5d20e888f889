"""The official treatment of VQA answers: how they are written and how well one agrees with ten.

Antol et al., "VQA: Visual Question Answering", ICCV 2015, section 3.3, and Goyal et al., "Making
the V in VQA Matter", CVPR 2017; the details are those of the public evaluation of VQA v2.
"""

import re
from collections import Counter
from collections.abc import Sequence

ARTICLES = frozenset(("a", "an", "the"))

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS: dict[str, str] = {"none": "0", **{word: str(n) for n, word in enumerate(_NUMBERS)}}

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """What each contraction looks like with one of its apostrophes forgotten."""
    table = {
        full[:place] + full[place + 1 :]: full
        for full in _CONTRACTED.split()
        for place, letter in enumerate(full)
        if letter == "'"
    }
    # The public table has this one the wrong way round, and scores were always computed so.
    table["somebody'd"] = "somebodyd"
    return table


CONTRACTIONS: dict[str, str] = _contractions()
"""From a spelling without one apostrophe to the spelling with it."""

_PERIOD = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The public code hands a flag to the place of the count, so that it removes at most 32 periods.
_MOST_PERIODS = 32
_ENOUGH_OTHERS = 3


def normalize_answer(answer: str) -> str:
    """An answer in the one spelling in which answers are compared.

    In this order: white space becomes single spaces; punctuation is removed where it touches a
    space (everywhere in an answer with a comma inside a number) and becomes a space elsewhere;
    periods go unless a digit follows; letters are lowered; number words become digits; articles
    go; forgotten apostrophes of contractions come back. Apostrophes and colons stay.

    Args:
        answer: As a person or a model wrote it.

    Returns:
        The normal spelling, possibly ''.
    """
    text = _plain(answer)
    everywhere = _COMMA_IN_NUMBER.search(text) is not None
    plain = text
    for mark in PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if everywhere or touches_space else " ")
    plain = _PERIOD.sub("", plain, count=_MOST_PERIODS)
    words = (NUMBER_WORDS.get(word, word) for word in plain.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalize_annotators(answers: Sequence[str]) -> list[str]:
    """The answers of all people to one question, each in its normal spelling.

    Args:
        answers: One entry a person, repeated where people agree.
    """
    return [normalize_answer(answer) for answer in answers]


def consensus_score(matches: int, people: int) -> float:
    """VQA accuracy of an answer that ``matches`` of ``people`` gave.

    ``min(1, others / 3)``, averaged over the sets that leave one person out: with m matches of n,
    ``(m min(1, (m - 1) / 3) + (n - m) min(1, m / 3)) / n``; for ten people 0, 0.3, 0.6, 0.9, 1.

    Args:
        matches: How many people gave this answer.
        people: How many people answered.
    """
    if people < 1:
        return 0.0
    with_it = matches * min(1.0, max(0, matches - 1) / _ENOUGH_OTHERS)
    without_it = (people - matches) * min(1.0, matches / _ENOUGH_OTHERS)
    return (with_it + without_it) / people


def answer_scores(answers: Sequence[str]) -> dict[str, float]:
    """The accuracy of every answer that somebody gave, in order of first appearance.

    A single person cannot be left out and still agree; their answer then counts 1, which is the
    exact match of data sets with one answer a question.

    Args:
        answers: What people answered to one question, as written.

    Returns:
        From the normal spelling to its score in [0, 1]; answers that are '' once normalised are
        no answers of a vocabulary and left out, but the people who gave them are counted.
    """
    normal = normalize_annotators(answers)
    counts = Counter(normal)
    alone = len(normal) == 1
    return {
        answer: 1.0 if alone else consensus_score(count, len(normal))
        for answer, count in counts.items()
        if answer
    }


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """The accuracy of one answer by the official leave-one-out rule, in [0, 1].

    As in the public evaluation, answers are compared as written where all people wrote the very
    same, and in their normal spelling otherwise. One person alone is an exact match of normal
    spellings.

    Args:
        answer: What a model answered.
        people: What people answered to the same question, as written.
    """
    given, others = _plain(answer), [_plain(text) for text in people]
    if len(others) == 1:
        return float(normalize_answer(given) == normalize_answer(others[0]))
    if len(set(others)) > 1:
        given, others = normalize_answer(given), normalize_annotators(others)
    return consensus_score(others.count(given), len(others))


def _plain(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
