"""German and French: articles, adjectives and nouns that agree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xmodaler.datasets.synthetic.chance import Chooser
from xmodaler.datasets.synthetic.language import Wordings, all_grounds, all_mentions
from xmodaler.datasets.synthetic.plans import Mention, Plan
from xmodaler.datasets.synthetic.scene import Ground


def enumerate_phrases(phrases: list[str], last: str) -> str:
    """Such as "a, b und c", for ``last`` "und"."""
    *first, end = phrases
    return f"{', '.join(first)} {last} {end}" if first else end


def as_sentence(words: str) -> str:
    """With a capital and a full stop."""
    return f"{words[0].upper()}{words[1:]}."


def wordings(table: Wordings) -> list[str]:
    """All phrases of a table, without their gaps."""
    return [
        phrase.replace("{a}", " ").replace("{b}", " ")
        for options in table.values()
        for _, phrase in options
    ]


def distinct_words(phrases: Iterable[str]) -> list[str]:
    """The words of phrases in alphabetical order; apostrophes and hyphens part words."""
    return sorted({word for phrase in phrases for word in re.split(r"[\s'-]+", phrase) if word})


@dataclass(frozen=True)
class German:
    """German captions.

    Attributes:
        kinds: Gender, singular, plural and dative plural of each kind.
        colours, sizes, patterns: Stems of adjectives.
        relations: Wordings of each relation; ``{b}`` is in the dative.
        numbers: Words for counts from two.
    """

    kinds: Mapping[str, tuple[str, str, str, str]] = field(
        default_factory=lambda: {
            "circle": ("m", "Kreis", "Kreise", "Kreisen"),
            "square": ("n", "Quadrat", "Quadrate", "Quadraten"),
            "triangle": ("n", "Dreieck", "Dreiecke", "Dreiecken"),
            "star": ("m", "Stern", "Sterne", "Sternen"),
            "heart": ("n", "Herz", "Herzen", "Herzen"),
            "cross": ("n", "Kreuz", "Kreuze", "Kreuzen"),
            "ring": ("m", "Ring", "Ringe", "Ringen"),
            "crescent": ("m", "Mond", "Monde", "Monden"),
        }
    )
    colours: Mapping[str, str] = field(
        default_factory=lambda: {
            "red": "rot",
            "orange": "orangefarben",
            "yellow": "gelb",
            "green": "grün",
            "blue": "blau",
            "purple": "violett",
            "pink": "rosafarben",
            "brown": "braun",
            "white": "weiß",
            "grey": "grau",
            "black": "schwarz",
            "beige": "beigefarben",
        }
    )
    sizes: Mapping[str, str] = field(default_factory=lambda: {"small": "klein", "big": "groß"})
    patterns: Mapping[str, str] = field(
        default_factory=lambda: {
            "plain": "einfarbig",
            "striped": "gestreift",
            "dotted": "gepunktet",
            "checkered": "kariert",
            "speckled": "gesprenkelt",
        }
    )
    relations: Wordings = field(
        default_factory=lambda: {
            "left_of": ((0.7, "{a} links von {b}"), (0.3, "{a} auf der linken Seite von {b}")),
            "right_of": ((0.7, "{a} rechts von {b}"), (0.3, "{a} auf der rechten Seite von {b}")),
            "above": ((0.8, "{a} über {b}"), (0.2, "{a} oberhalb von {b}")),
            "below": ((0.8, "{a} unter {b}"), (0.2, "{a} unterhalb von {b}")),
            "next_to": ((1.0, "{a} neben {b}"),),
            "inside": ((1.0, "{a} in {b}"),),
            "around": ((1.0, "{a} mit {b} darin"),),
        }
    )
    numbers: tuple[str, ...] = ("zwei", "drei", "vier", "fünf")

    def sentence(self, plan: Plan, chooser: Chooser) -> str:
        """One caption of a picture."""
        if plan.relation is not None:
            one, other = plan.mentions[:2]
            wording = chooser.pick(self.relations[plan.relation])
            words = wording.format(a=self.noun_phrase(one), b=self.noun_phrase(other, dative=True))
        else:
            words = enumerate_phrases([self.noun_phrase(m) for m in plan.mentions], "und")
        if plan.ground is not None:
            words = f"{words} auf {self.ground(plan.ground)}"
        opening = "da ist" if plan.mentions[0].count == 1 else "da sind"
        return as_sentence(chooser.pick([(0.8, words), (0.2, f"{opening} {words}")]))

    def noun_phrase(self, mention: Mention, dative: bool = False) -> str:
        """Such as "zwei kleine rote Kreise", or in the dative "zwei kleinen roten Kreisen"."""
        gender, one, many, many_dative = self.kinds[mention.kind]
        stems = [self.colours[mention.colour]]
        if mention.size is not None:
            stems.insert(0, self.sizes[mention.size])
        if mention.count > 1:
            noun = many_dative if dative else many
            article, ending = self.numbers[mention.count - 2], "en" if dative else "e"
        else:
            noun = one
            article = ("einer" if gender == "f" else "einem") if dative else "ein"
            ending = "en" if dative else {"m": "er", "n": "es", "f": "e"}[gender]
        return " ".join([article, *(f"{stem}{ending}" for stem in stems), noun])

    def words(self) -> list[str]:
        """Every word that a caption may hold, in alphabetical order."""
        phrases = [self.noun_phrase(m, dative) for m in all_mentions() for dative in (False, True)]
        phrases += map(self.ground, all_grounds())
        return distinct_words([*phrases, *wordings(self.relations), "da ist sind auf und"])

    def ground(self, ground: Ground) -> str:
        """Such as "einem gestreiften grauen Hintergrund"."""
        return (
            f"einem {self.patterns[ground.pattern]}en {self.colours[ground.colour]}en Hintergrund"
        )


@dataclass(frozen=True)
class French:
    """French captions.

    Attributes:
        kinds: Gender, singular and plural of each kind.
        colours: Masculine and feminine of each colour; an adjective with a mark ``=`` behind it
            never changes.
        sizes: Masculine and feminine of each size.
        patterns: What follows a masculine noun.
        relations: Wordings of each relation.
        numbers: Words for counts from two.
    """

    kinds: Mapping[str, tuple[str, str, str]] = field(
        default_factory=lambda: {
            "circle": ("m", "cercle", "cercles"),
            "square": ("m", "carré", "carrés"),
            "triangle": ("m", "triangle", "triangles"),
            "star": ("f", "étoile", "étoiles"),
            "heart": ("m", "coeur", "coeurs"),
            "cross": ("f", "croix", "croix"),
            "ring": ("m", "anneau", "anneaux"),
            "crescent": ("f", "lune", "lunes"),
        }
    )
    colours: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "red": ("rouge", "rouge"),
            "orange": ("orange=", "orange="),
            "yellow": ("jaune", "jaune"),
            "green": ("vert", "verte"),
            "blue": ("bleu", "bleue"),
            "purple": ("violet", "violette"),
            "pink": ("rose", "rose"),
            "brown": ("marron=", "marron="),
            "white": ("blanc", "blanche"),
            "grey": ("gris", "grise"),
            "black": ("noir", "noire"),
            "beige": ("beige", "beige"),
        }
    )
    sizes: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {"small": ("petit", "petite"), "big": ("grand", "grande")}
    )
    patterns: Mapping[str, str] = field(
        default_factory=lambda: {
            "plain": "uni",
            "striped": "rayé",
            "dotted": "à pois",
            "checkered": "à carreaux",
            "speckled": "moucheté",
        }
    )
    relations: Wordings = field(
        default_factory=lambda: {
            "left_of": ((1.0, "à gauche de"),),
            "right_of": ((1.0, "à droite de"),),
            "above": ((1.0, "au-dessus de"),),
            "below": ((0.7, "en dessous de"), (0.3, "sous")),
            "next_to": ((0.7, "à côté de"), (0.3, "près de")),
            "inside": ((0.8, "dans"), (0.2, "à l'intérieur de")),
            "around": ((1.0, "autour de"),),
        }
    )
    numbers: tuple[str, ...] = ("deux", "trois", "quatre", "cinq")

    def sentence(self, plan: Plan, chooser: Chooser) -> str:
        """One caption of a picture."""
        phrases = [self.noun_phrase(mention) for mention in plan.mentions]
        if plan.relation is not None:
            place = chooser.pick(self.relations[plan.relation])
            words = f"{phrases[0]} {place} {phrases[1]}".replace(" de un", " d'un")
        else:
            words = enumerate_phrases(phrases, "et")
        if plan.ground is not None:
            words = f"{words} sur {self.ground(plan.ground)}"
        return as_sentence(chooser.pick([(0.8, words), (0.2, f"il y a {words}")]))

    def noun_phrase(self, mention: Mention) -> str:
        """Such as "deux petits cercles rouges"."""
        gender, one, many = self.kinds[mention.kind]
        several, form = mention.count > 1, int(gender == "f")
        article = self.numbers[mention.count - 2] if several else ("un", "une")[form]
        colour = _agreeing(self.colours[mention.colour][form], several)
        words = [article, many if several else one, colour]
        if mention.size is not None:
            words.insert(1, _agreeing(self.sizes[mention.size][form], several))
        return " ".join(words)

    def words(self) -> list[str]:
        """Every word that a caption may hold, in alphabetical order."""
        phrases = [*map(self.noun_phrase, all_mentions()), *map(self.ground, all_grounds())]
        return distinct_words([*phrases, *wordings(self.relations), "il y a et sur d"])

    def ground(self, ground: Ground) -> str:
        """Such as "un fond gris rayé"."""
        return f"un fond {self.colours[ground.colour][0]} {self.patterns[ground.pattern]}"


def _agreeing(adjective: str, several: bool) -> str:
    if adjective.endswith("="):
        return adjective[:-1]
    return f"{adjective}s" if several else adjective


GERMAN, FRENCH = German(), French()
