"""What is done to the words of product texts: cut into sentences, and one put for another."""

import re
from itertools import pairwise

SENTENCE_END = re.compile(r"(?<!\bin)(?<!\bNo)(?<!\bSt)[.!?][\"')\u201d]?(?=\s+[A-Z0-9\"'(]|$)")


def sentences_of(text: str) -> list[str]:
    text = re.sub(r"\s+", " ", text).strip()
    cuts = [0, *(match.end() for match in SENTENCE_END.finditer(text))]
    return [text[start:end].strip() for start, end in pairwise(cuts)]


def article(words: str) -> str:
    """Return "a" or "an", by the first letter and the exceptions that product texts have."""
    silent = re.match(r"(?:heirloom|hour|8|11|18)", words, re.I)
    sounded = re.match(r"(?:u(?:ni|se|ti|k)|euro|one\b)", words, re.I)
    return "an" if silent or (words[:1].lower() in "aeiou" and not sounded) else "a"


def swap(text: str, old: str, new: str) -> str:
    """Put one word for another, capitals and all, and mend the article before it."""

    def put(match: re.Match[str]) -> str:
        before, found = match[1] or "", match[2]
        word = new.title() if found[0].isupper() and not before[:1].isupper() else new
        if before:
            mended = article(new)
            before = (mended.title() if before[0].isupper() else mended) + " "
        return before + word

    return re.sub(rf"\b(an? )?({re.escape(old)})\b", put, text, flags=re.I)
