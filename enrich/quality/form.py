"""Rules of form: what no text may be or have, whatever its product. Each returns a reason in words, or None.

All are linear in the text's length: patterns have bounded repetition only, or none that can be tried in two ways.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from importlib import resources
from itertools import pairwise

from enrich.quality.cleaning import STOPS
from enrich.quality.lexicon import Phrases, entries, groups, tokens_of
from enrich.quality.limits import Limits
from enrich.quality.reading import Reading, Words

_SHOWN = 40  # characters of a find in a reason


def too_short(reading: Reading, limits: Limits) -> str | None:
    """Find fewer words, sentences or characters than asked for."""
    if (words := reading.once(_num_words)) < limits.min_words:
        return f"{_counted(words, 'word')}, fewer than {limits.min_words}"
    # Words make one sentence at least.
    if limits.min_sentences > min(words, 1) and (sentences := _num_sentences(reading)) < limits.min_sentences:
        return f"{_counted(sentences, 'sentence')}, fewer than {limits.min_sentences}"
    if (characters := len(reading.text)) < limits.min_characters:
        return f"{_counted(characters, 'character')}, fewer than {limits.min_characters}"
    return None


def too_long(reading: Reading, limits: Limits) -> str | None:
    """Find more words, sentences or characters than asked for."""
    if (words := reading.once(_num_words)) > limits.max_words:
        return f"{_counted(words, 'word')}, more than {limits.max_words}"
    # There are no more than marks that can end one, and an unfinished one.
    at_most = sum(map(reading.text.count, STOPS)) + 1
    if at_most > limits.max_sentences and (sentences := _num_sentences(reading)) > limits.max_sentences:
        return f"{_counted(sentences, 'sentence')}, more than {limits.max_sentences}"
    if (characters := len(reading.text)) > limits.max_characters:
        return f"{_counted(characters, 'character')}, more than {limits.max_characters}"
    return None


def _num_sentences(reading: Reading) -> int:
    return len(reading.sentences) + bool(reading.unfinished)


def _num_words(words: Words) -> int:
    text = words.text
    # Without spaces between words, two characters are about a word.
    dense = 0 if text.isascii() else sum("\u2e80" <= c <= "\u9fff" or "\u0e00" <= c <= "\u0eff" for c in text)
    return len(text.split()) + dense // 2


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


_STOPPED = re.compile(r"\d\.(?!\S)")
_NUMBER_STOP = re.compile(r"(?:(?<=[^\s.!?:] )|(?<=\$))(\d{1,9})\.(?!\S)")  # not the `2.` of a list
_DECIMALS = re.compile(r"(?<![\d.,])(\d{1,9})\.\d{1,9}")
_WHOLE_NUMBERS = re.compile(r"(?<![\d.,])(\d{1,9})(?![\d.,]*\d)")


def _broken_number(reading: Reading) -> str | None:
    """Return the decimal of the row that the text has up to its point: `two doors, 3.`, where the row says 3.9 lb."""
    stopped = set(_NUMBER_STOP.findall(reading.text)) if _STOPPED.search(reading.text) else None
    if not stopped or not reading.row.has_digits:
        return None
    stopped -= set(_WHOLE_NUMBERS.findall(reading.row.text))
    return next((decimal[0] for decimal in _DECIMALS.finditer(reading.row.text) if decimal[1] in stopped), None)


_WHOLE = re.compile(r"[^\W\d][^\W\d][^\W\d][.!?]$")


def no_sentence_end(reading: Reading, limits: Limits) -> str | None:
    """Find no sentence, or one that breaks off, be it within a number of the row."""
    if reading.has_digits and (broken := _broken_number(reading)):
        return f"breaks off within {broken}"
    if _WHOLE.search(reading.text[-_SHOWN:]) or not reading.unfinished:
        return None
    return f"breaks off: {_shown(reading.unfinished[-_SHOWN:])}"


_LONG_RUN, _SHORT_RUN = 7, 4  # words
_OFTEN = 3


def _repeated_runs(words: Words) -> dict[tuple[str, ...], int]:
    """Return the runs of four words that stand there more than once."""
    tokens = words.tokens
    # A run that stands there again has pairs of words that do, one fewer than words.
    pairs = len(tokens) - 1
    if pairs - len(set(pairwise(tokens))) < _SHORT_RUN - 1:
        return {}
    runs = zip(*(tokens[start:] for start in range(_SHORT_RUN)), strict=False)
    return {run: count for run, count in Counter(runs).items() if count > 1}


def repeated_sentence(reading: Reading, limits: Limits) -> str | None:
    """Find the same sentence twice; a run drops the later one."""
    if not reading.once(_repeated_runs):
        return None
    counts = Counter(" ".join(tokens_of(sentence)) for sentence in reading.sentences)
    often, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return f"{_shown(often)} stands there {count} times" if count > 1 and often else None


def repeated_phrase(reading: Reading, limits: Limits) -> str | None:
    """Find seven words in a row twice, or four three times, that are not the product's name."""
    short = reading.once(_repeated_runs)
    if not short:  # no four words twice, so no seven either
        return None
    words, title = reading.tokens, set(tokens_of(reading.product.title))
    for run, count in short.items():
        if count >= _OFTEN and len(title.intersection(run)) < len(set(run)) - 1:
            return f"'{' '.join(run)}' stands there {count} times"
    long = Counter(zip(*(words[start:] for start in range(_LONG_RUN)), strict=False))
    for run, count in long.items():
        if count > 1 and len(title.intersection(run)) < len(set(run)) - 1:
            return f"'{' '.join(run)}' stands there {count} times"
    return None


_NEVER_DOUBLED = frozenset(
    "the a an and of to in with for is it its or at by from on this these your our are as".split()
)

_DOUBLED = re.compile(rf"\b({'|'.join(sorted(_NEVER_DOUBLED))})\s{{1,3}}\1\b", re.I)


# Names come doubled with a capital: Tsum Tsum.
_DOUBLED_NAME = re.compile(r"\b([a-z]{3,20}) \1\b")
_BOTH_SIDES = re.compile(r"\b((?:[^\W\d_]{1,20} ){0,5}[^\W\d_]{3,20}),? (?:and|or) (?:an? |the )?\1(?=[.,;:!?])")
_JOINT = re.compile(r" (?:and|or)(?= )")
_LONGEST_SIDE = 140  # characters, more than the pattern can take in behind an "and"
_MAY_BE_DOUBLED = frozenset(
    "again bigger bye chop chug far had hush knock less long longer many more night over really so tap that then time"
    " tut very yum".split()
)


def doubled_word(reading: Reading, limits: Limits) -> str | None:
    """Find a word twice in a row, "with with a lid" or "this box box", or on both sides of an and or an or."""
    doubled = {one for one, other in pairwise(reading.tokens) if one == other}
    if doubled & _NEVER_DOUBLED and (found := _DOUBLED.search(reading.text)):
        return f"'{found[0]}'"
    for found in _DOUBLED_NAME.finditer(reading.text) if doubled else ():
        if found[1] not in _MAY_BE_DOUBLED and found[0] not in reading.row.text.lower():
            return f"'{found[0]}'"
    for found in _BOTH_SIDES.finditer(reading.text) if _may_have_both_sides(reading.text) else ():
        if found[1].split()[-1].lower() not in _MAY_BE_DOUBLED and found[0].lower() not in reading.row.text.lower():
            return f"'{found[0]}'"
    return None


def _may_have_both_sides(text: str) -> bool:
    """Tell whether letters before an "and" or an "or" stand behind it too, with a mark: in few texts they do."""
    for joint in _JOINT.finditer(text):
        ending = text[max(0, joint.start() - 4) : joint.start()].rstrip(",")[-3:]
        behind = text[joint.end() : joint.end() + _LONGEST_SIDE]
        if ending in behind and any(f"{ending}{mark}" in behind for mark in ".,;:!?"):
            return True
    return False


_BRACKETED = re.compile(
    r"[\[{<]\s{0,3}(?:your |the |insert )?(?:brand|product|item|company|store|shop|model|color|colour|size|material|"
    r"title|name|price|number|category|description|feature|features|insert|todo|tbd|placeholder|xxx?|n/a)"
    r"(?:[ _-](?:name|title|here|number|line|type|brand|color|size|description|price|category))?\s{0,3}[\]}>]",
    re.I,
)
_LEFT_OVER = re.compile(
    r"\{\{|\}\}|\{%|%\}|\$\{|\[object Object\]|#REF!|#N/A|\bNaN\b|\bN/A\b|\bundefined\b|\b(?i:lorem ipsum)\b"
    r"|\bTBD\b|\bTODO\b|\bFIXME\b|\bXXXX*\b|�"
)


_OPENING = frozenset("[{<%$#�")
_LEFT_WORDS = frozenset("nan n undefined lorem tbd todo fixme xxx xxxx xxxxx".split())


def placeholder(reading: Reading, limits: Limits) -> str | None:
    """Find what should have been filled in: "[Brand]", "{{ title }}", "N/A"."""
    text = reading.text
    # Marks and words that most texts have none of first: that is several times quicker than to try the patterns.
    found = None
    has_opening = not _OPENING.isdisjoint(reading.characters)
    if has_opening:
        found = _BRACKETED.search(text)
    if found is None and (has_opening or not _LEFT_WORDS.isdisjoint(reading.known)):
        found = _LEFT_OVER.search(text)
    return _has(found, reading)


_LABEL = re.compile(
    r"(?:^|[.!?\n]\s{0,3})"
    r"((?:Product |Item )?(?:Title|Description|Category|Prompt|Instructions?|Answer|Output|Name))\s?:"
)
_MARKERS = re.compile(r"<\|?/?(?:endoftext|im_start|im_end|s|pad|eos|unk|bos|assistant|user|system)\|?>|\[/?INST\]|###")


_MARKING = frozenset("<[#")


def prompt_leak(reading: Reading, limits: Limits) -> str | None:
    """Find words to or of the model in place of words on the product: "Title:", "as an AI"."""
    text = reading.text
    found = _LABEL.search(text) if ":" in text else None
    if found is None and not _MARKING.isdisjoint(reading.characters):
        found = _MARKERS.search(text)
    if found and found[0].strip() not in reading.row.text:
        return f"has {_shown(found[0].lstrip('.!? '))}"
    return _phrase("assistant_talk", reading)


def _phrase(lexicon: str, reading: Reading) -> str | None:
    for start, end, _ in _phrases(lexicon).find(reading.tokens, reading.known)[:1]:
        return f"says '{' '.join(reading.tokens[start:end])}'"
    return None


@cache
def _phrases(lexicon: str) -> Phrases[None]:
    return Phrases(dict.fromkeys(entries(lexicon)))


_FEW_LETTERS = 3


def foreign_script(reading: Reading, limits: Limits) -> str | None:
    """Find letters of a script that the row has none of."""
    text, row = reading.text, reading.row.text
    if text.isascii() and row.isascii():
        return None
    ours, theirs = _scripts(text), _scripts(row)
    if not theirs:
        return None
    titles = _scripts(reading.product.title)
    if "HIRAGANA" in theirs or "KATAKANA" in theirs or "CJK" in theirs:
        theirs.update(("HIRAGANA", "KATAKANA", "CJK", "FULLWIDTH", "HALFWIDTH"))
    most = sum(ours.values()) / 2
    for script, count in ours.items():
        # Latin names stand in texts and rows of every script; a whole text in Latin does not.
        known = script in (titles if script == "LATIN" and titles else theirs)
        if not known and count >= _FEW_LETTERS and (script != "LATIN" or count > most):
            return f"{count} {script.lower()} letters; the row has {', '.join(sorted(theirs)).lower()}"
    return None


def _scripts(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isascii():
            if character.isalpha():
                found["LATIN"] += count
        elif character.isalpha():
            script = unicodedata.name(character, "").split(" ")[0]
            if script not in ("MICRO", "OHM", "MASCULINE", "FEMININE", "ANGSTROM", "KELVIN", "MODIFIER", ""):
                found[script] += count
    return found


_SURE_OF_TEXT, _SURE_OF_ROW = 4, 2


def foreign_language(reading: Reading, limits: Limits) -> str | None:
    """Find another language than the row's, or than the one asked for, by their commonest words."""
    text, hits = _language(reading.known)
    if hits < _SURE_OF_TEXT:
        return None
    if limits.language:
        wanted = limits.language
    else:
        wanted, hits = _language(reading.row.known)
        if hits < _SURE_OF_ROW:
            return None
    return f"is {_name(text)}; the row is {_name(wanted)}" if text != wanted else None


@cache
def _common_words() -> dict[str, tuple[str, ...]]:
    languages: dict[str, tuple[str, ...]] = {}
    for code, words in groups("common_words").items():
        for word in words:
            languages[word] = (*languages.get(word, ()), code)
    return languages


def _language(known: set[str]) -> tuple[str, int]:
    """Return the language with the most common words among these, and by how many it leads the next."""
    common = _common_words()
    hits: dict[str, int] = {}
    for word in common.keys() & known:
        for code in common[word]:
            hits[code] = hits.get(code, 0) + 1
    if not hits:
        return "", 0
    first = max(hits, key=hits.__getitem__)
    return first, hits.pop(first) - max(hits.values(), default=0)


def _name(code: str) -> str:
    names = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "nl": "Dutch",
             "pt": "Portuguese", "sv": "Swedish", "pl": "Polish"}  # fmt: skip
    return names.get(code, code)


_LINK = re.compile(
    r"https?://|\bwww\.\w|\b[\w-]{2,63}\.(?:com|net|org|info|biz|shop|store|co\.uk|de|fr|io)\b(?![\w-])", re.I
)


_MAYBE_LINK = re.compile(r"\.\w|://")


def link(reading: Reading, limits: Limits) -> str | None:
    """Find a web address."""
    found = _LINK.search(reading.text) if _MAYBE_LINK.search(reading.text) else None
    if found is None or found[0] in reading.row.text:
        return None
    return f"has {_shown(reading.text[found.start() : found.end() + 20].split()[0])}"


_MAIL = re.compile(r"[\w+-]@[\w-]{1,63}\.\w")
_MAYBE_PHONE = re.compile(r"[\d+](?:(?<=\+)\d|\d\d[.-]\d{4}|-8\d\d-)")
_PHONE = re.compile(
    r"(?<![\w.-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[.-]\d{4}(?![\w-])"
    r"|(?<!\w)\+\d{1,3}(?:[ .-]?\d{2,4}){3,5}(?!\w)|\b1-8\d\d-\w{3,8}\b"
)


def contact(reading: Reading, limits: Limits) -> str | None:
    """Find a mail address, a telephone number, or a call to make use of one."""
    found = _MAIL.search(reading.text) if "@" in reading.text else None
    if found is None and reading.has_digits and _MAYBE_PHONE.search(reading.text):
        found = _PHONE.search(reading.text)
    if found:
        return f"has {_shown(reading.text[max(0, found.start() - 12) : found.end() + 12].strip())}"
    return _phrase("contact", reading)


_PRICE = re.compile(
    r"[$€£¥]\s?\d[\d.,]{0,12}|\b\d{1,7}(?:[.,]\d\d)?\s?(?:€|£|USD\b|EUR\b|GBP\b)"
    r"|\b\d{1,7}(?:[.,]\d\d)?\s(?:dollars|euros|pounds sterling)\b"
)


_CURRENCIES = frozenset("$€£¥")
_MONEY = frozenset("usd eur gbp dollars euros pounds".split())


def price(reading: Reading, limits: Limits) -> str | None:
    """Find an amount of money that the row does not have."""
    if _CURRENCIES.isdisjoint(reading.characters) and _MONEY.isdisjoint(reading.known):
        return None
    for found in _PRICE.finditer(reading.text):
        amount = found[0].rstrip(".,")
        if amount not in reading.row.text:
            return f"has {amount}"
    return None


_MARKUP = re.compile(
    r"</?[a-z][a-z0-9]{0,9}(?:\s[^<>]{0,200})?/?>|&(?:nbsp|amp|lt|gt|quot|apos|#\d{1,6}|#x[0-9a-f]{1,5}|[a-z]{2,8}acute|mdash|ndash|rsquo|bull);"
    r"|\*\*\w|\]\(http|(?:^|\n)#{1,6} \w|\\u[0-9a-f]{4}|\\n|```",
    re.I,
)


_MARKS_UP = frozenset("<&*]#\\`")


def markup(reading: Reading, limits: Limits) -> str | None:
    """Find HTML or Markdown."""
    found = None if _MARKS_UP.isdisjoint(reading.characters) else _MARKUP.search(reading.text)
    return _has(found, reading)


_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u203c\u2049\ufe0f]")


def emoji(reading: Reading, limits: Limits) -> str | None:
    """Find a pictograph."""
    if reading.text.isascii():
        return None
    found = _EMOJI.search(reading.text)
    return f"has {found[0]}" if found and found[0] not in reading.row.text else None


_CAPITALS = re.compile(r"[A-Z](?<!\w[A-Z])[A-Z'’]{3,40}\b")
_LOUD = re.compile(r"!\s?!")
_MOST_CAPITALS = 2


def shouting(reading: Reading, limits: Limits) -> str | None:
    """Find words in capitals that the row does not have so, or several exclamation marks."""
    if "!" in reading.text and (found := _LOUD.search(reading.text)) and found[0] not in reading.row.text:
        return f"has '{found[0]}'"
    loud = [word for word in _CAPITALS.findall(reading.text) if word not in reading.row.text]
    if len(loud) > _MOST_CAPITALS:
        return f"has {', '.join(dict.fromkeys(loud[:4]))} in capitals"
    return None


def claim(reading: Reading, limits: Limits) -> str | None:
    """Find a phrase that texts of the category may have only if the row has it."""
    return _forbidden(limits.claim_phrases, reading)


def banned_word(reading: Reading, limits: Limits) -> str | None:
    """Find a word or phrase banned by the run's own list, unless the row has it."""
    return _forbidden(limits.banned_phrases, reading)


def _forbidden(phrases: Phrases[str], reading: Reading) -> str | None:
    found = phrases.find(reading.tokens, reading.known)
    stated = {phrase for _, _, phrase in phrases.find(reading.row.tokens, reading.row.known)} if found else set()
    for _, _, phrase in found:
        if phrase not in stated:
            return f"says '{phrase}'"
    return None


@cache
def _profanities() -> Phrases[None]:
    spared = set(entries("not_profane"))
    words = resources.files("badwords").joinpath("resource/words/en.txt").read_text(encoding="utf-8").splitlines()
    return Phrases({word: None for word in words if word not in spared})


def profanity(reading: Reading, limits: Limits) -> str | None:
    """Find a word of the package badwords-py's English list that the row does not have."""
    for start, end, _ in _profanities().find(reading.tokens, reading.known):
        words = reading.tokens[start:end]
        if not set(words) <= reading.row.known:
            return f"says '{' '.join(words)}'"
    return None


def stock_phrase(reading: Reading, limits: Limits) -> str | None:
    """Find a phrase that could stand over any product: "look no further"."""
    return _phrase("stock_phrases", reading)


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}'"


def _has(found: re.Match[str] | None, reading: Reading) -> str | None:
    """Say what was found, unless the row has it too: a title may hold anything."""
    return f"has {_shown(found[0])}" if found and found[0] not in reading.row.text else None
