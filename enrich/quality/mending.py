"""Mending: sentences dropped from a text whose other sentences are good."""

from __future__ import annotations

from enrich.product import Product
from enrich.quality.cleaning import clean_text, split_sentences
from enrich.quality.lexicon import tokens_of
from enrich.quality.rules import Rulebook

# A sentence that begins so may stand first; one that begins with "It" needs the one before it.
_MAY_STAND_FIRST = frozenset("this these the a an our with made in crafted bring add".split())


def mend(text: str, product: Product, rulebook: Rulebook) -> str | None:
    """Return the text without the sentences that break a rule of weight by themselves.

    None if that leaves nothing that could be published, or nothing of the text's beginning to go on from.
    """
    sentences, _ = split_sentences(text)
    good = [sentence for sentence in sentences if rulebook.judge_sentence(sentence, product).accepted]
    if not good or len(good) == len(sentences):
        return None
    if good[0] != sentences[0] and tokens_of(good[0])[:1] and tokens_of(good[0])[0] not in _MAY_STAND_FIRST:
        return None
    mended = clean_text(" ".join(good)).text
    return mended if mended and rulebook.judge(mended, product).accepted else None
