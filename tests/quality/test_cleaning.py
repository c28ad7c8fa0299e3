from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from enrich.quality.cleaning import Cleaned, clean_text, split_sentences

unhurried = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # machines may be busy

# Whole sentences, as lists: joined by a space they are the input, split they must be the list again.
SENTENCES: dict[str, list[str]] = {
    "plain": ["A soft pillow.", "It is filled with down.", "Machine wash."],
    "decimals and inches": ["A frame of 2.5 in. x 3.5 in. for small photos.", "Made of oak."],
    "decimal at the end": ["Its diameter is 2.5.", "Its height is 3.5."],
    "number at the end": ["A cabinet with three shelves and two doors.", "It holds 3."],
    "decimal with a space": ["A cabinet with two doors, 3. 5 in. deep.", "Only $4. 99 per lime.", "It is oak."],
    "price": ["Only $4.99 per lime.", "Just $18.99."],
    "W D H": ["Measures 24 in. W x 18 in. D x 30 in. H.", "Assembly required."],
    "W D H in sentence": ["The 24 in. W by 18 in. D table fits.", "It is oak."],
    "W D H after inch marks": ['Size: 10"L x 5"W x 3"H.', "Weight: 5 lbs."],
    "W D H comma": ["It is 24 in. W, 18 in. D and 30 in. H overall.", "It is oak."],
    "Wide x Deep": ["24 in. Wide x 18 in. Deep x 30 in. High.", "It is oak."],
    "glued units": ["Measures 24in. W x 18in. D.", "It holds 12oz.", "Perfect for tea."],
    "capital X": ["A rug, 5 ft. X 7 ft. in size.", "It is wool."],
    "feet and inches": ["It is 5 ft. 6 in. tall.", "It is heavy."],
    "pounds and ounces": ["It weighs 2 lb. 3 oz. only.", "It is light."],
    "square feet": ["Covers 200 sq. ft. of floor.", "It is wool."],
    "square and fluid, at the end": ["Covers 200 sq. of floor.", "Holds 12 fl. of tea."],
    "unit range": ["Fits waists of 28 in. - 32 in. only.", "Runs small."],
    "unit and bracket": ["Holds 12 oz. (354 ml) of tea.", "Holds 16 oz. (Pack of 2)."],
    "unit ends": ["It holds 12 oz.", "Perfect for tea."],
    "unit ends, A": ["It holds 12 oz.", "A mug for tea."],
    "unit ends, It": ["The bag weighs 3 lbs.", "It has two pockets."],
    "unit ends, rare word": ["The rug is 5 ft.", "Vacuum weekly."],
    "unit ends, number": ["Holds 5 kg.", "3 year warranty."],
    "unit ends, percent": ["The throw weighs 2 lbs.", "100% cotton."],
    "unit in a name": ["A 5 qt. Dutch oven for stews.", "The 12 oz. Mason jar is clear."],
    "unit before number": ["Pack of 6 ct. 12 oz. bottles.", "Cold drinks."],
    "temperature": ["Wash at 40 deg. C.", "Do not iron."],
    "litres": ["The kettle holds 1.7 L.", "It boils fast."],
    "No. 4": ["A brush No. 4 for fine lines.", "Chanel No. 5 for her.", "Nos. 4 and 5 fit."],
    "No alone": ["Is it heavy?", "No.", "It is light."],
    "no in the sentence": ["The answer is no.", "It never bends."],
    "St. Ives": ["A lotion by St. Ives.", "Very soft."],
    "St. inside": ["St. Patrick's Day hat.", "The St. Louis Cardinals cap fits all."],
    "Dr. Martens": ["Dr. Martens boots last.", "Made with care."],
    "Mr. and Mrs.": ["The Mr. and Mrs. mugs are white.", "With Mr. Potato Head."],
    "J. Crew": ["A J. Crew sweater.", "By J. K. Rowling.", "By H. G. Wells."],
    "initials in capitals": ["The J. Peterman Co. Classic shirt.", "It is linen."],
    "vitamin": ["Rich in vitamin C.", "Great for skin."],
    "size letter": ["The model wears size M.", "Fits true to size."],
    "U.S.-made": ["U.S.-made leather.", "It ages well."],
    "U.S. end": ["Made in the U.S.", "It ages well."],
    "U.S. inside": ["A U.S. Army surplus bag.", "Made in the U.S.A. with care."],
    "initialism brands": ["By E.L.F. Cosmetics.", "A P.F. Chang's sauce.", "An L.O.L. Surprise doll."],
    "a.m.": ["Ships at 9 a.m. Monday.", "Open until 5 p.m. on Fridays."],
    "e.g.": ["For hot drinks, e.g. tea.", "For herbs, e.g. Greek oregano.", "A tee, i.e. T-shirt."],
    "approx.": ["It weighs approx. 3 lbs.", "Easy to carry."],
    "approx. in brackets": ["It is light (approx. 3 lbs.) and soft.", "Easy to carry."],
    "Inc.": ["Made by Acme Inc. in Ohio.", "Sold by Acme, Inc., since 1990.", "A Vanishing Inc. Dapper deck."],
    "Inc. end": ["It is made by Acme Inc.", "The warranty is long."],
    "Bros.": ["The Mario Bros. Ultra set.", "It is blue."],
    "vs.": ["Cotton vs. linen: choose both.", "Bart vs. Ned Flanders."],
    "etc.": ["Stores towels, mats, etc.", "Folds flat."],
    "etc. inside": ["Stores towels, mats, etc. in one place.", "Folds flat."],
    "max.": ["The max. load is 5 kg.", "Max. Load: 5 kg.", "Holds 200 lbs. max.", "It folds."],
    "Max": ["A case for the iPhone 15 Pro Max.", "It fits."],
    "gen.": ["For the iPad 9th gen.", "It fits."],
    "Ft. Worth": ["Sewn in Ft. Worth.", "Sewn near Mt. Hood."],
    "est.": ["A bakery, est. 1990.", "It is good."],
    "versions": ["Firmware v2.0 is in.", "It needs v2.0.", "Model X.5 fits.", "Get the X.5."],
    "domain": ["See www.example.com for more.", "Visit example.com.", "Uses Node.js."],
    "file": ["Plays .mp3 and .wav files.", "It is loud."],
    "ellipsis inside": ["Soft... and warm.", "It is... wool."],
    "ellipsis between": ["Soft and warm...", "Just like home."],
    "ellipsis character": ["Soft and warm…", "Just… like home."],
    "interrobang": ["Is it soft!?", "You bet?!", "Really soft!!!"],
    "question": ["Need more light?", "This lamp helps!", "Try it now."],
    "quotes": ['He said "Buy it."', "Then he left.", "“It is soft.”", "‘So warm!’"],
    "quote goes on": ['"Is it soft?" she asked.', "It is."],
    "brackets": ["(It is new.)", "It is soft (and new).", "It is soft (really!)."],
    "bullets": ["- Soft cotton.", "- Machine wash.", "• 2 pockets.", "* Made in Italy."],
    "bullet after unit": ["• Holds 12 oz.", "• Machine wash."],
    "numbered list": ["1. Soft cotton.", "2. Machine wash.", "10. Made in Italy."],
    "Yahoo! Mail": ["Works with Yahoo! Mail and others.", "It is fast."],
    "names with marks": ["The Funko Pop! Jolteon figure.", "The Go! Go! Smart Wheels jet.", "A Guess? Jeans tee."],
    "mark after capital": ["Meet our Trusty Fishing Hooks!", "This set has ten."],
    "shout": ["BUY NOW!", "FREE SHIPPING!", "IT IS SOFT."],
    "starts with digits": ["It is bright.", "60W bulb included.", "2 chairs included.", "1.5 m cable."],
    "starts with iPhone": ["Fits your phone.", "iPhone users love it.", "eBay sellers too!", "iPad fits."],
    "spaced marks": ["A soft pillow !", "Really nice .", "Nice . . . and soft."],
    "apostrophes": ["It's a dog's bed.", "Don't iron it.", "You'll sleep."],
    "accents": ["It fits any décor.", "Élégant and light.", "Ça va."],
    "Chinese with spaces": ["柔软的枕头。", "很好！", "要吗？"],
    "Hindi": ["यह अच्छा है।", "यह नरम है।"],
    "Arabic": ["هل هو ناعم؟", "نعم."],
    "Russian": ["Сделано в России.", "Хорошее качество."],
    "zip plus": ["Ages 3+.", "Rated 4.5/5.", "In sizes S, M, L.", "It fits."],
}


@pytest.mark.parametrize("sentences", SENTENCES.values(), ids=SENTENCES.keys())
def test_whole_sentences_are_told_apart_and_kept(sentences: list[str]) -> None:
    text = " ".join(sentences)
    assert split_sentences(text) == (sentences, "")
    assert clean_text(text) == Cleaned(text, ())


def test_where_a_stop_may_or_may_not_end_a_sentence_it_does_not() -> None:
    text = "A gift from Tiffany & Co. Bracelets are silver. Types A. B. and C. exist."
    assert split_sentences(text) == (
        ["A gift from Tiffany & Co. Bracelets are silver.", "Types A. B. and C. exist."],
        "",
    )


@pytest.mark.parametrize(
    ("raw", "text", "flags"),
    [
        ("It is soft. It is very", "It is soft.", "cut_to_sentence"),
        ("It is soft! And it", "It is soft!", "cut_to_sentence"),
        ("Frame of 2.5 in. x 3.", "Frame of 2.5 in. x 3.", ""),
        ("It is soft. A frame of 2.5 in. x 3", "It is soft.", "cut_to_sentence"),
        ("It is soft. It measures 24 in. W x 18", "It is soft.", "cut_to_sentence"),
        ("It is soft. Made by Dr.", "It is soft.", "cut_to_sentence"),
        ("It is soft. For hot drinks, e.g.", "It is soft.", "cut_to_sentence"),
        ("It is soft. Chanel No.", "It is soft.", "cut_to_sentence"),
        ("It is soft. It weighs approx.", "It is soft.", "cut_to_sentence"),
        ("It is soft. With two doors, 3. 5 in", "It is soft.", "cut_to_sentence"),
        ("It is soft. It covers 200 sq.", "It is soft.", "cut_to_sentence"),
        ("It is soft. It holds 12 fl.", "It is soft.", "cut_to_sentence"),
        ("It is soft. It holds 3.", "It is soft. It holds 3.", ""),
        ("1. It is soft. 2.", "1. It is soft.", "cut_to_sentence"),
        ("It is soft. It is warm and...", "It is soft.", "cut_to_sentence"),
        ("It is soft. Warm... And so…", "It is soft.", "cut_to_sentence"),
        ("It is soft. It is warm . . .", "It is soft.", "cut_to_sentence"),
        ("It is soft. Warm... It is soft.", "It is soft.", "repeated_sentence cut_to_sentence"),
        ("It is soft. ***", "It is soft.", "cut_to_sentence"),
        ("It is soft. !!!", "It is soft. !!!", ""),
        ("柔软。很", "柔软。", "cut_to_sentence"),
        ("a soft pillow with", "a soft pillow with", "no_sentence_end"),
        ("soft and warm...", "soft and warm...", "no_sentence_end"),
        ("2.5 in. x 3.5 in", "2.5 in. x 3.5 in", "no_sentence_end"),
        ("!!! soft", "!!! soft", "no_sentence_end"),
        ("...", "...", "no_sentence_end"),
        ("", "", "empty"),
        (" \n\t ", "", "empty"),
        ("\x00\ufffd\u00a0", "", "empty"),
        ("It is soft. It is soft.", "It is soft.", "repeated_sentence"),
        ("It is soft. It is warm. It is soft. It is new.", "It is soft. It is warm. It is new.", "repeated_sentence"),
        ("It is soft. IT IS SOFT! It is “soft”. It is warm.", "It is soft. It is warm.", "repeated_sentence"),
        ("It's soft. Its soft. - Its soft.", "It's soft.", "repeated_sentence"),
        ("It is soft. It is soft. It is", "It is soft.", "repeated_sentence cut_to_sentence"),
        ("It is soft. It is warm. It is soft", "It is soft. It is warm.", "cut_to_sentence"),
        ("It is 2.5 in. It is 25 in. It is 2.5 in.", "It is 2.5 in. It is 25 in.", "repeated_sentence"),
        ("Pack of 1-2. Pack of 12. Pack of 1/2.", "Pack of 1-2. Pack of 12. Pack of 1/2.", ""),
        ("Saves 50%. Saves 50. Costs $5.", "Saves 50%. Saves 50. Costs $5.", ""),
        ("यह की है। यह का है।", "यह की है। यह का है।", ""),  # the vowel signs are no letters to Python
        ("柔软。很好。柔软。新的。", "柔软。很好。新的。", "repeated_sentence"),
        ("好。Soft. 好。New. Red.", "好。Soft. New. Red.", "repeated_sentence"),
        # Without what stood between them, two sentences read as one, and that one has been said before.
        (
            "It holds 12 oz. 6 oz. each. Great. It holds 12 oz. Great. 6 oz. each.",
            "It holds 12 oz. 6 oz. each. Great.",
            "repeated_sentence",
        ),
        ("  It is\nsoft.\t\r\n It is\u00a0warm. ", "It is soft. It is warm.", ""),
        ("It\x00 is\x1f soft\ufffd.\x0cIt is\ufeff warm.", "It is soft. It is warm.", ""),
        ("It is soft.\ud83d It is warm\udc00.\x85", "It is soft. It is warm.", ""),
        ("It is soft. 🎉", "It is soft.", "cut_to_sentence"),
        ("It is soft 🎉. It is 👩‍👩‍👧.", "It is soft 🎉. It is 👩‍👩‍👧.", ""),
    ],
)
def test_clean(raw: str, text: str, flags: str) -> None:
    assert clean_text(raw) == Cleaned(text, tuple(flags.split()))


@pytest.mark.parametrize(
    ("raw", "text", "flags"),
    [
        ("It is soft. With two doors, 3.", "It is soft.", "cut_to_sentence"),
        ("It is soft. Only $18.", "It is soft.", "cut_to_sentence"),
        ("It is soft. It is 2.5.", "It is soft.", "cut_to_sentence"),
        ("It is soft. By H.", "It is soft.", "cut_to_sentence"),
        ("It is soft. Made in the U.", "It is soft.", "cut_to_sentence"),
        ("It is soft. For hot drinks, e.", "It is soft.", "cut_to_sentence"),
        ("It is soft. It comes in style no.", "It is soft.", "cut_to_sentence"),
        ("It is soft. It holds 12 oz.", "It is soft. It holds 12 oz.", ""),
        ("It is soft. It is warm.", "It is soft. It is warm.", ""),
        ("It is soft. It is no.1!", "It is soft. It is no.1!", ""),
        ("With two doors, 3.", "With two doors, 3", "no_sentence_end"),
        ("3.", "3", "no_sentence_end"),
    ],
)
def test_a_stop_at_which_a_text_was_cut_off_may_be_within_a_number_or_an_abbreviation(
    raw: str, text: str, flags: str
) -> None:
    assert clean_text(raw, cut_off=True) == Cleaned(text, tuple(flags.split()))


@pytest.mark.parametrize(
    "raw",
    [
        "." * 100_000, "." * 100_000 + "x", "x" + "!" * 100_000 + '"x', "." + '"' * 100_000 + "x", '."' * 50_000,
        "a. " * 33_000, "No. " * 25_000, "J. " * 33_000, "in. " * 25_000, "12 oz. " * 14_000, "... " * 25_000,
        "A... " * 20_000, "! " * 50_000, ". " * 50_000, "x" * 100_000, "x" * 100_000 + ".", "。" * 100_000,
        " " * 100_000, "\ufffd" * 100_000, "1,2." * 25_000, "(" * 100_000 + "a.", "1" * 100_000 + ".", "a.b" * 33_000,
        "It is soft. " * 8_000, "".join(f"Thing {i} is new. " for i in range(5_000)),
        "".join(f"A{i}... " for i in range(12_000)), "".join(f"Chanel {i} No. " for i in range(6_000)),
    ],
    ids=lambda raw: repr(raw[:8]),
)  # fmt: skip
def test_long_texts_take_linear_time(raw: str) -> None:
    started = time.process_time()
    clean_text(raw)
    assert time.process_time() - started < 2


WORDS = (
    "It holds 12 oz. 12oz. 5 in. in. W W. H. x 24 3 No. no. No 4 J. Crew Soft... ... .. . … ! ? Great! great. great A"
    ' a. U.S. The the Inc. 。 好。 好 iPhone " ) ( ( vs. Max. max. - • 1. 2. etc. Yes. yes , \n \x00 \ufffd I । 5. .5'
).split(" ")
copy = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=20).map("".join),
    st.lists(st.sampled_from(["Warm. ", "It is 5 oz. ", "6 ct. box. ", "Soft... ", "Red! ", "好。"]), max_size=12).map(
        "".join
    ),
    st.text(max_size=60),
    st.text(alphabet=st.characters(), max_size=30),  # lone surrogates too
)


@unhurried
@given(copy)
def test_cleaning_is_idempotent_and_its_result_whole(raw: str) -> None:
    cleaned = clean_text(raw)
    again = clean_text(cleaned.text)
    assert again.text == cleaned.text
    assert not {"repeated_sentence", "cut_to_sentence"} & set(again.flags)
    sentences, rest = split_sentences(cleaned.text)
    assert bool(sentences) == (not {"no_sentence_end", "empty"} & set(cleaned.flags))
    assert not (sentences and rest)
    cleaned.text.encode("utf-8")


@unhurried
@example("It oz. ... It oz.")
@given(copy)
def test_the_result_has_sentences_of_the_input_only_and_in_order(raw: str) -> None:
    text = " ".join("".join(c for c in raw if c.isprintable() and c != "\ufffd").split())
    cleaned = clean_text(text)
    if "no_sentence_end" in cleaned.flags:
        assert cleaned.text == text
        return
    remainders = {squeezed(cleaned.text)}
    for sentence in map(squeezed, split_sentences(text)[0]):
        remainders |= {remainder.removeprefix(sentence) for remainder in remainders}
    assert "" in remainders


def squeezed(text: str) -> str:
    return "".join(text.split())


@unhurried
@given(copy)
def test_no_text_with_a_letter_or_digit_is_emptied(raw: str) -> None:
    cleaned = clean_text(raw)
    if any(map(str.isalnum, raw)):
        assert any(map(str.isalnum, cleaned.text))
    assert ("empty" in cleaned.flags) == (cleaned.text == "")
