"""The rules by which Stanford's Penn-Treebank lexer (CoreNLP 3.4.1) cuts English text.

The table was established by feeding the Java program and comparing answers. Each row holds the
expression of a token, the right context it demands, and how the token is rewritten. The longest
match wins, among equals the row listed first. As in the lexer generator behind the original, the
context counts for the length of the match but is handed back to the input afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

__all__ = ["Rule", "lexer_rules"]


@cache
def _letter_ranges() -> str:
    """Letters beyond ASCII of the basic plane, as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in range(0x80, 0x10000):
        if chr(code).isalpha():
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)


# Marks that the lexer counts as parts of words: modifier letters, combining accents, the vowel
# signs of Hebrew, Arabic and Indic scripts.
_MARKS = (
    "\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0375\u0384\u0385\u03f6\u0483-\u0487"
    "\u055a-\u055f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670"
    "\u06d6-\u06e4\u06e7-\u06ed\u0711\u0730-\u074c\u07a6-\u07b0\u07eb-\u07f3\u0900-\u0903\u093c"
    "\u093e-\u094e\u0951-\u0955\u0962\u0963\u0981-\u0983\u09bc\u09be-\u09c4\u09c7\u09c8\u09cb-\u09cd"
    "\u09d7\u09e2\u09e3\u0a01-\u0a03\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc\u0abe-\u0acf\u0b82"
    "\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d44\u0d46-\u0d48"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
)
# Everything else that becomes a token by itself. What is neither here nor in a rule (emoji, control
# characters, symbols the lexer does not know) vanishes, but still separates its neighbours.
_SYMBOLS = (
    "!-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0"
    "\u05c3\u05c6\u05f3\u05f4\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d"
    "\u0964\u0965\u0e3f\u0e4f\u2013-\u2023\u2026\u2030-\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e"
    "\u2080-\u208e\u20a0\u20a4\u20ac\u2100-\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6"
)

_APOS = r"(?:['\x92’]|(?i:&apos;))"
_APOS_LIKE = r"(?:['\x92’`\x91‘‛]|(?i:&apos;))"
_HYPHEN = r"[-_\u058a\u2010\u2011]"
_NUMBER = r"(?:\d*(?:[.:,\u00ad\u066b\u066c]\d+)+|\d+)"
_AUXILIARY = r"(?:[msdMSD]|(?i:re|ve|ll))"  # what may follow the apostrophe of a contraction
_NOT = rf"[nN]{_APOS_LIKE}[tT]"
_SPACE = r"[ \t\u00a0\u2000-\u200a\u3000\r\n\v\f\x85\u2028\u2029]"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])*"

# Words shortened with a full stop, where the stop belongs to the token. Letters outside a
# case-insensitive group appear in the case shown only.
_ABBREVIATIONS = (
    # months, days, states, companies, what follows a name or a list
    r"(?i:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu(?:rs)?|fri"
    r"|ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn"
    r"|tenn|va|vt|wisc?|wyo|inc|cos?|corp|ltd|plc|rt|bancorp|bhd|assn|univ|intl|sys|tel|est|ext|sq"
    r"|jr|sr|(?:ed|ph)\.d|bros|blvd|rd|esq|etc|al|seq|bldg)"
    r"|A(?i:z|rk)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)"
    r"|(?i:pp?t)[ey]s?"
)
_TITLES = (
    r"(?i:mr|mrs|ms|mme|mlle|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt"
    r"|cpl|pvt|capt|ste?|ave|pres|lieut|hon|brig|co?mdr|pfc|spc|sfc|supts?|det|ens|insp|msgr|treas"
    r"|asst|assoc|dept|elec|natl|invt|cie|mt|ft|vs|alex|wm|jos|cf|adj|adv)|[mM][ft](?i:g)"
)
_BEFORE_NUMBERS = r"(?i:nos?|pp|figs?|art|prop|op|ca)"
# Words that open a sentence: after one of them "plan B. The" is read as a plan and a full stop.
_OPENERS = (
    r"(?i:A|About|According|After|An|As|At|But|He|Her|However|If|In|It|Last|Many|More|Now|One|Other"
    r"|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|You)"
)

_FILE_EXTENSIONS = (
    r"(?i:bat|bmp|c|class|cgi|cpp|dll|doc|docx|exe|gif|gz|h|htm|html|jar|java|jpeg|jpg|mov|mp3|pdf"
    r"|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip)"
)


class Rule(NamedTuple):
    """One row of the table.

    Attributes:
        pattern: Group 1 is the token, the rest of the match its right context.
        rewrite: How the token is spelt in the output; None where it is copied.
    """

    pattern: re.Pattern[str]
    rewrite: Callable[[str], str] | None


_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
_FRACTIONS = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_CURRENCIES = {"¢": "cents", "£": "#"}
_QUOTES = (
    dict.fromkeys("‘‛\x91‹", "`")
    | dict.fromkeys("’\x92›", "'")
    | dict.fromkeys("“\x93«", "``")
    | dict.fromkeys('”\x94»"', "''")
)


def _join(token: str) -> str:
    """A token that holds a space keeps it as a no-break space; round brackets are spelt out."""
    return token.replace(" ", "\u00a0").replace("(", "-LRB-").replace(")", "-RRB-")


def _plain_apostrophe(token: str) -> str:
    return re.sub(_APOS, "'", token).translate({ord(c): "`" for c in "‘‛\x91"})


def _quote(token: str) -> str:
    if token.startswith("&"):
        return "'" if "apos" in token.lower() else "''"
    return "".join(_QUOTES.get(c, c) for c in token)


@cache
def lexer_rules() -> tuple[Rule, ...]:
    """The lexer's table; built on first use because the letter class takes some milliseconds."""
    letter = rf"[A-Za-z\u00ad{_letter_ranges()}{_MARKS}]"
    alnum = rf"[A-Za-z\u00ad{_letter_ranges()}{_MARKS}\d]"
    word = rf"{letter}{alnum}*(?:[.!?]{letter}{alnum}*)*"
    # A hyphenated word, with a clipped article at its head or after a hyphen if any: "d'oeuvre".
    clipped = rf"[dDoOlL]{_APOS_LIKE}{alnum}"
    thing = rf"(?:{clipped})?{alnum}+(?:{_HYPHEN}(?:{clipped})?{alnum}+)*"
    url_tail = r"/[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},-]"
    email_host = r"[^ \t\n\f\r\"<>|(){}.\u00a0]+"

    table: list[tuple[str, str, Callable[[str], str] | None]] = [
        # (token, right context, rewriting)
        # Markup, and entities for punctuation.
        (
            r"<(?:[!?][A-Za-z-][^>\r\n]*|/?[A-Za-z][A-Za-z0-9_:.-]*"
            r"(?: +[A-Za-z][A-Za-z0-9_:.-]*"
            r"(?: *= *(?:'[^'\r\n]*'|\"[^\"\r\n]*\"))?)* *(?:/ *)?)>",
            "",
            _join,
        ),
        (r"(?i:&(?:md|mdash|ndash);)|[\x96\x97\u2013-\u2015]", "", lambda _: "--"),
        (r"(?i:&amp;)", "", lambda _: "&"),
        (r"(?i:&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);)", "", None),
        # Treebank oddities that no general rule covers.
        (r"(?i:C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls|C\+\+|[CF]#)", "", None),
        (r"(?i:(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(?:U\.K|U\.S\.S\.R))\.?", "", None),
        # Words before a contraction are cut in front of it: "dog|'s", "do|n't".
        (word, rf"{_APOS}{_AUXILIARY}", None),
        (r"[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*", _NOT, None),
        (word, "", None),
        # Words spelt with an apostrophe: "'em", "ol'", "s'mores", "ma'am", "D'Artagnan", "'90s".
        (
            rf"{_APOS}[nN]{_APOS}|[lLdDjJ]{_APOS}|{_APOS}[2-9]0s"
            rf"|(?i:dunkin{_APOS}|somethin{_APOS}|ol{_APOS}|{_APOS}em|{_APOS}cause|{_APOS}till?"
            rf"|cont{_APOS}d\.?|nor{_APOS}easter|c'mon|c{_APOS}est|cap{_APOS}n|e{_APOS}er"
            rf"|s{_APOS}mores|ev{_APOS}ry|li{_APOS}l|nat{_APOS}l|o{_APOS}o)"
            rf"|[A-HJ-XZn]{_APOS_LIKE}{letter}{letter}+"
            rf"|{letter}+[aeiouyA-Z]{_APOS_LIKE}[aeiouA-Z]{letter}*",
            "",
            None,
        ),
        (r"'[nN]", rf"{_SPACE}|\Z", None),
        (rf"{_APOS}\d\d", _SPACE, None),
        (rf"(?!'){_APOS}[nN]", "", None),
        (rf"[yY]{_APOS}", letter, None),
        (r"'[tT]", r"(?i:is|was)", None),
        # Addresses of the web.
        (r"(?i:https?)://[^ \t\n\f\r\"<>|(){}]+[^ \t\n\f\r\"<>|.!?(){},-]", "", None),
        (
            r"(?:(?i:www)\.(?:[^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
            # ",-_" is a range (digits and capitals among others), as in the original.
            rf"|(?:[^ \t\n\f\r\"`'<>|.!?(){{}},-_$]+\.)+(?i:com|net|org|edu))(?:{url_tail})?",
            "",
            None,
        ),
        (
            r"(?:&lt;|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|(){}\u00a0]*"
            rf"@(?:{email_host}\.)*{email_host}(?:&gt;|>)?",
            "",
            None,
        ),
        (rf"@[A-Za-z_][A-Za-z0-9_]*|#{letter}+", "", None),
        # The contractions themselves.
        (rf"'{_AUXILIARY}", r"[^A-Za-z]|\Z", None),
        (rf"(?!'){_APOS}{_AUXILIARY}|{_NOT}", "", _plain_apostrophe),
        # Numbers, fractions, money.
        (r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}", "", None),
        (rf"[-+]?{_NUMBER}", "", None),
        (
            r"[\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+)",
            "",
            None,
        ),
        (r"(?:\d{1,4}[- \u00a0])?\d{1,4}(?:\\?/|\u2044)\d{1,4}", "", _join),
        (r"[\u00bc-\u00be\u2153-\u215e]", "", lambda token: _FRACTIONS.get(token, token)),
        (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", "", None),
        (r"[A-Z]*\$", "", None),
        (
            r"[\u00a2-\u00a5\x80\u20a0\u20a4\u20ac\u0e3f\uffe0\uffe1\uffe5\uffe6]",
            "",
            lambda token: _CURRENCIES.get(token, "$" if token in "¤₠€\x80" else token),
        ),
        # Abbreviations. Two characters of context let the stop win against "co.uk"-like words.
        (rf"(?:{_ABBREVIATIONS})\.", r"[\s\S]{2}", None),
        (rf"(?:{_ABBREVIATIONS}|{_TITLES})\.", "", None),
        (rf"{_BEFORE_NUMBERS}\.", rf"{_SPACE}?\d", None),
        (r"[A-Za-z]", rf"\.{_SPACE}+(?:(?=[A-Z]){_OPENERS}{_SPACE}|</?[A-Za-z])", None),
        (rf"{_ACRONYM}\.", "", None),
        # In front of a comma or colon a full stop is taken for that of an abbreviation.
        (rf"(?:{word}|{thing})\.", r"[,;:\u3001]", None),
        (
            r"(?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
            r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}"
            r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
            "",
            _join,
        ),
        # Punctuation.
        (rf"\"|(?i:&quot;)|''|[`‘-‟\x82\x84\x91-\x94‹›«»]{{1,2}}|{_APOS}", "", _quote),
        (r"(?i:&lt;)|<<", "", lambda token: "<" if token != "<<" else token),
        (r"(?i:&gt;)|>>", "", lambda token: ">" if token != ">>" else token),
        (r"-+", "", lambda token: "--" if len(token) in (3, 4) else token),
        (r"\.{3,5}|(?:\.[ \u00a0]){2,4}\.|[\x85\u2026]", "", lambda _: "..."),
        (r"@+|#+|_+|\*+|(?:\\\*){1,3}|[!?]+", "", None),
        # Western faces are recognised only when no letter or digit follows.
        (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", r"[^A-Za-z0-9]", _join),
        (
            r"[-\^x=~<>']_[-\^x=~<>']|\([-\^x=~<>'][_.]?[-\^x=~<>']\)"
            r"|\([\^x=~<>']-[\^x=~<>'`]\)",
            "",
            _join,
        ),
        (r"[][(){}]", "", _BRACKETS.__getitem__),
        # Compounds: "x-ray", "AT&T", "3.5-inch", "50s.jpg".
        (thing, "", None),
        (
            r"[A-Z]+(?:(?:[+&]|(?i:&amp;))[A-Z]+)+",
            "",
            lambda token: re.sub("(?i:&amp;)", "&", token),
        ),
        (
            r"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*"
            r"(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\u00ad]+))+",
            "",
            None,
        ),
        (rf"{alnum}+(?:\.{alnum}+)*\.{_FILE_EXTENSIONS}", rf"{_SPACE}|[.?!,]", None),
        (rf"[{_SYMBOLS}]", "", None),
    ]
    return tuple(
        Rule(re.compile(f"({token}){context and f'(?:{context})'}"), rewrite)
        for token, context, rewrite in table
    )
