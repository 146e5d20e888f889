"""Chinese and Japanese: no spaces, no plurals, counting words, and what is told of comes last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xmodaler.datasets.synthetic.chance import Chooser
from xmodaler.datasets.synthetic.european import wordings
from xmodaler.datasets.synthetic.language import Wordings, all_grounds, all_mentions
from xmodaler.datasets.synthetic.plans import Mention, Plan
from xmodaler.datasets.synthetic.scene import Ground


@dataclass(frozen=True)
class EastAsian:
    """Captions of words that are put together unchanged.

    Attributes:
        kinds, colours, sizes, patterns: A word each; those of colours, sizes and patterns as they
            stand in front of a noun.
        numbers: One to five, with the counting word that ``counters`` may replace.
        counters: Kind -> counting word, for ``{c}`` of the numbers.
        relations: Wordings of each relation between ``{a}`` and ``{b}``.
        ground_noun: The word for the ground.
        grounded: A sentence ``{s}`` that holds on a ground ``{g}``.
        opening: Wordings of a sentence ``{s}``.
        joint: Between the members of an enumeration.
    """

    kinds: Mapping[str, str]
    colours: Mapping[str, str]
    sizes: Mapping[str, str]
    patterns: Mapping[str, str]
    numbers: tuple[str, ...]
    counters: Mapping[str, str]
    relations: Wordings
    ground_noun: str
    grounded: str
    opening: tuple[tuple[float, str], ...]
    joint: str
    usual_counter: str = field(default="")

    def sentence(self, plan: Plan, chooser: Chooser) -> str:
        """One caption of a picture."""
        phrases = [self.noun_phrase(mention) for mention in plan.mentions]
        if plan.relation is not None:
            wording = chooser.pick(self.relations[plan.relation])
            words = wording.format(a=phrases[0], b=phrases[1])
        else:
            words = self.joint.join(phrases)
        if plan.ground is not None:
            words = self.grounded.format(s=words, g=self.ground(plan.ground))
        return chooser.pick(self.opening).format(s=words)

    def noun_phrase(self, mention: Mention) -> str:
        """Such as "两个小红色圆形"."""
        number = self.numbers[mention.count - 1]
        counted = number.format(c=self.counters.get(mention.kind, self.usual_counter))
        size = "" if mention.size is None else self.sizes[mention.size]
        return f"{counted}{size}{self.colours[mention.colour]}{self.kinds[mention.kind]}"

    def words(self) -> list[str]:
        """Every character that a caption may hold, in order of code points."""
        phrases = [*map(self.noun_phrase, all_mentions()), *map(self.ground, all_grounds())]
        phrases += [*wordings(self.relations), self.grounded, self.joint]
        phrases += [wording for _, wording in self.opening]
        return sorted({mark for phrase in phrases for mark in phrase if ord(mark) > 127})

    def ground(self, ground: Ground) -> str:
        """Such as "灰色条纹背景"."""
        words = (self.colours[ground.colour], self.patterns[ground.pattern], self.ground_noun)
        return "".join(words)


CHINESE = EastAsian(
    kinds={
        "circle": "圆形",
        "square": "方形",
        "triangle": "三角形",
        "star": "星星",
        "heart": "爱心",
        "cross": "十字",
        "ring": "圆环",
        "crescent": "月亮",
    },
    colours={
        "red": "红色",
        "orange": "橙色",
        "yellow": "黄色",
        "green": "绿色",
        "blue": "蓝色",
        "purple": "紫色",
        "pink": "粉色",
        "brown": "棕色",
        "white": "白色",
        "grey": "灰色",
        "black": "黑色",
        "beige": "米色",
    },
    sizes={"small": "小的", "big": "大的"},
    patterns={
        "plain": "纯色",
        "striped": "条纹",
        "dotted": "圆点",
        "checkered": "格子",
        "speckled": "斑点",
    },
    numbers=("一{c}", "两{c}", "三{c}", "四{c}", "五{c}"),
    counters={"star": "颗", "heart": "颗"},
    usual_counter="个",
    relations={
        "left_of": ((0.7, "{a}在{b}的左边"), (0.3, "{b}的左边有{a}")),
        "right_of": ((0.7, "{a}在{b}的右边"), (0.3, "{b}的右边有{a}")),
        "above": ((0.8, "{a}在{b}的上面"), (0.2, "{b}的上面有{a}")),
        "below": ((0.8, "{a}在{b}的下面"), (0.2, "{b}的下面有{a}")),
        "next_to": ((1.0, "{a}在{b}旁边"),),
        "inside": ((1.0, "{a}在{b}里面"),),
        "around": ((1.0, "{a}围着{b}"),),
    },
    ground_noun="背景",
    grounded="{g}上,{s}",
    opening=((0.8, "{s}。"), (0.2, "图中{s}。")),
    joint="和",
)

JAPANESE = EastAsian(
    kinds={
        "circle": "丸",
        "square": "四角",
        "triangle": "三角",
        "star": "星",
        "heart": "ハート",
        "cross": "十字",
        "ring": "輪",
        "crescent": "月",
    },
    colours={
        "red": "赤い",
        "orange": "橙色の",
        "yellow": "黄色い",
        "green": "緑の",
        "blue": "青い",
        "purple": "紫の",
        "pink": "桃色の",
        "brown": "茶色の",
        "white": "白い",
        "grey": "灰色の",
        "black": "黒い",
        "beige": "ベージュの",
    },
    sizes={"small": "小さい", "big": "大きい"},
    patterns={
        "plain": "無地の",
        "striped": "縞模様の",
        "dotted": "水玉の",
        "checkered": "格子模様の",
        "speckled": "まだら模様の",
    },
    numbers=("一つの", "二つの", "三つの", "四つの", "五つの"),
    counters={},
    relations={
        "left_of": ((0.7, "{b}の左に{a}"), (0.3, "{b}の左側に{a}")),
        "right_of": ((0.7, "{b}の右に{a}"), (0.3, "{b}の右側に{a}")),
        "above": ((1.0, "{b}の上に{a}"),),
        "below": ((1.0, "{b}の下に{a}"),),
        "next_to": ((1.0, "{b}の隣に{a}"),),
        "inside": ((1.0, "{b}の中に{a}"),),
        "around": ((1.0, "{b}の周りに{a}"),),
    },
    ground_noun="背景",
    grounded="{g}の前で、{s}",
    opening=((0.8, "{s}。"), (0.2, "{s}がある。")),
    joint="と",
)
