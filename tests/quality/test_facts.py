from __future__ import annotations

import pytest

from enrich.product import Attribute, Product
from enrich.quality import Rulebook
from enrich.quality.facts import other_brand
from enrich.quality.limits import Limits
from enrich.quality.quantities import numbers_in
from enrich.quality.reading import Reading


def broken(text: str, of: Product) -> set[str]:
    return set(Rulebook().judge(text, of).rules)


def row(title: str, **attributes: str) -> Product:
    pairs = tuple(Attribute(name.capitalize(), value) for name, value in attributes.items())
    return Product(0, "1", title, "", pairs, "")


OAK = row("Oak side table with 2 drawers", material="solid oak", color="Natural", size="24 x 18 x 30 in")
LANTERN = row("Candle Lantern, Black, 16 in", material="metal and glass", color="Black")
SHEETS = row("Queen Sheet Set, 4-Piece", material="cotton", color="Navy")
KETTLE = row("Stovetop Kettle, Enameled Steel, 2 qt", material="enameled steel", color="Cream", weight="3 lb")
PHONE = row("Case for iPhone 13, Clear", material="plastic")
BAG = row("PU Leather Handbag", color="Tan")


@pytest.mark.parametrize(
    ("rule", "of", "text"),
    [
        ("contradicted_material", OAK, "This walnut table holds a lamp."),
        ("contradicted_material", OAK, "The table is made of solid pine."),
        ("contradicted_material", OAK, "This glass table holds a lamp."),
        ("contradicted_material", SHEETS, "These soft silk sheets cool the bed."),
        ("contradicted_material", BAG, "A handbag made of genuine leather."),
        ("contradicted_material", LANTERN, "Crafted from bamboo, it glows."),
        (
            "contradicted_material",
            row("Pouf Ottoman, Tan Genuine Leather", material="genuine leather"),
            "Enjoy this exquisite tan velvet ottoman. The soft leather seat is plush.",
        ),
        (
            "contradicted_material",
            row("Brass Spray Nozzle", material="brass"),
            "This brass nozzle is durable, while the natural copper construction ensures easy slipping.",
        ),
        (
            "contradicted_material",
            row("Brass Spray Nozzle", material="brass"),
            "It slips on easily, while the natural copper construction lasts.",
        ),
        (
            "contradicted_material",
            row("Paper Column Standing Lamp in White", material="rice paper and bamboo"),
            "Transform your space with our Modern Creating Linen Night Chair. This sleek lamp glows.",
        ),
        (
            "contradicted_material",
            row("Cabinet Bar Pulls, 5 in Centers", material="zinc alloy"),
            "These brushed zinc linen bar pulls handle small repairs.",
        ),
        (
            "contradicted_count",
            row("Offset Electric Guitar", details="22 frets; coil split"),
            "This guitar features 22 frets and a tone that delights with its 20 frets.",
        ),
        ("contradicted_color", row("Elm Wood Counter Stool", color="Weathered Gray"), "It comes in copper."),
        ("contradicted_color", LANTERN, "This green lantern glows at night."),
        ("contradicted_color", LANTERN, "A lantern for the porch. The color is white."),
        ("contradicted_color", SHEETS, "It comes in white."),
        ("contradicted_color", SHEETS, "They come in sage."),
        ("contradicted_color", SHEETS, "This pink sheet set cools the bed."),
        ("contradicted_color", SHEETS, "These bright yellow sheets cool the bed."),
        ("contradicted_number", OAK, "The table measures 30 x 20 x 40 in."),
        ("contradicted_number", LANTERN, "This 24-inch lantern glows at night."),
        ("contradicted_number", LANTERN, "It stands 60 cm on the porch."),
        ("contradicted_number", KETTLE, "The kettle holds 3 quarts of water."),
        ("contradicted_number", KETTLE, "It weighs 2 kg when empty."),
        ("contradicted_count", OAK, "Three drawers hold the rest."),
        ("contradicted_count", OAK, "A 4-drawer table for a lamp."),
        ("contradicted_count", SHEETS, "This set of six is soft."),
        ("contradicted_count", SHEETS, "The set has 6."),
        ("contradicted_material", row("Beech Wood Stool"), "This walnut stool seats one."),
        ("contradicted_number", row("Paper Lantern, 20 in", size="20 in"), "The size is 54 in."),
        ("contradicted_number", OAK, "The size is 88 x 36 x 70 in."),
        ("contradicted_count", SHEETS, "The 3-piece set is soft."),
        ("contradicted_model", PHONE, "It fits the iPhone 12 well."),
        ("unstated_material", OAK, "Brass knobs finish it."),
        ("unstated_color", OAK, "It goes with pink walls."),
        ("unstated_number", OAK, "It holds up to 45 pounds."),
        ("unstated_number", LANTERN, "It burns for 12 hours."),
    ],
)
def test_what_the_row_does_not_bear_out(rule: str, of: Product, text: str) -> None:
    assert rule in broken(text, of)


@pytest.mark.parametrize(
    ("rule", "of", "text"),
    [
        # what a thing is a kind of, other words for it, plurals
        ("contradicted_material", OAK, "This wooden table is made of wood, a hardwood."),
        ("contradicted_material", KETTLE, "This metal kettle is made of steel."),
        ("contradicted_material", row("Wood stool"), "This oak stool seats one."),
        ("contradicted_material", row("Throw pillow", material="corduroy"), "This cotton pillow is soft."),
        # parts, other things and idioms
        ("contradicted_material", OAK, "The oak table has walnut legs."),
        ("contradicted_material", row("Soy Jar Candle", material="soy wax"), "A soy wax candle, a glass jar candle."),
        ("contradicted_material", OAK, "Our Oak Side Table goes with the Marble Hill Lamp."),
        ("contradicted_count", row("Chest, 6 drawers"), "It has 6 drawers: 2 drawers above, 4 drawers below."),
        ("contradicted_material", OAK, "Set a wine glass on it and iron out the day."),
        ("contradicted_material", row("Rosewood Fingerboard Guitar"), "A maple neck meets the rosewood fingerboard."),
        ("unstated_material", LANTERN, "A metal lantern with a glass pane."),
        ("unstated_material", OAK, "It stands on hardwood floors, crystal clear."),
        ("contradicted_color", LANTERN, "This black lantern has a white candle."),
        ("contradicted_color", LANTERN, "This lantern glows against white walls."),
        ("contradicted_color", SHEETS, "These blue sheets cool the bed."),
        ("contradicted_color", row("Multicolor Rug", color="Multicolor, blue"), "This red rug warms the floor."),
        ("contradicted_color", row("Puzzle in White"), "See the colors of the Green Mountain State Puzzle."),
        ("contradicted_color", OAK, "This olive oil table keeps green tea warm."),
        ("unstated_color", SHEETS, "These navy sheets go with white noise."),
        # units, words for numbers, roundings
        ("contradicted_number", LANTERN, "It stands 40.6 cm on the porch."),
        ("contradicted_number", LANTERN, "The handle is 3 inches wide."),
        ("contradicted_number", OAK, "At 24 x 18 x 30 inches it is small."),
        ("contradicted_number", OAK, "It is 2 ft wide."),
        ("contradicted_number", KETTLE, "It holds half a gallon, or 1.9 liters."),
        ("contradicted_number", KETTLE, "It boils 2 quarts, with a 1 cup mark."),
        ("contradicted_number", row("Kettle, 1 to 4 qt"), "It holds 2 quarts."),
        ("unstated_number", OAK, "Two drawers, 24 x 18 x 30 in."),
        ("contradicted_count", OAK, "Its two drawers and one shelf hold books."),
        ("contradicted_count", SHEETS, "Four pieces, two pillowcases among them."),
        ("contradicted_count", OAK, "A table for two people and 3 lamps."),
        ("contradicted_model", PHONE, "It fits the iPhone 13 and iPhone 13 Pro."),
        ("contradicted_model", PHONE, "It fits the Galaxy S21 case."),
        ("contradicted_material", OAK, "Beside a marble table lamp this oak table is at home."),
        ("contradicted_material", OAK, "This oak side table is no walnut tabletop."),
        ("contradicted_model", row("Frozen 2031 Light Pad"), "Draw with the friends of Frozen 2."),
        ("contradicted_number", row("Drive Shaft, 3.56-4.5, 90.5-114.8mm"), "A 3.56 x 4.5 mm steel shaft."),
        ("contradicted_count", row("XT60 Male To XT-30 Female Adapter"), "It has two female XT30 plugs."),
    ],
)
def test_what_the_row_bears_out_or_leaves_open(rule: str, of: Product, text: str) -> None:
    assert rule not in broken(text, of)


def test_what_is_not_stated_is_a_flag_and_under_strict_facts_a_retry() -> None:
    text = "This oak side table has brass knobs on both of its drawers."
    assert Rulebook().judge(text, OAK).accepted
    assert not Rulebook(strict_facts=True).judge(text, OAK).accepted


def test_a_maker_that_is_not_the_rows() -> None:
    of = row("Oak table", brand="Halden")
    assert other_brand(Reading("A table by Acme for you.", of), Limits()) == "says by Acme; the row's brand is Halden"
    for text in ("A table by Halden.", "Made by hand in Italy.", "A wood from Italy.", "Made by The hand."):
        assert other_brand(Reading(text, of), Limits()) is None


@pytest.mark.parametrize(
    ("text", "inches"),
    [
        ('24" x 18"', [24, 18]),
        ("24 x 18 x 30 in.", [24, 18, 30]),
        ("3 1/2 in", [3.5]),
        ("3-1/2-inch", [3.5]),
        ("3½ inches", [3.5]),
        ("1/8 in", [0.125]),
        ("4.7''", [4.7]),
        ("5 ft", [60]),
        ("100 cm", [39.37]),
        ("1,200 mm", [47.24]),
        ("5 in 1", []),
        ("5 in the box", []),
        ("36W x 24D x 30H", []),
        ("v2.4", []),
    ],
)
def test_lengths_as_they_are_written(text: str, inches: list[float]) -> None:
    found = [q.value for q in numbers_in(text, set(text.lower().split())).quantities if q.kind == "length"]
    assert found == pytest.approx(inches, rel=1e-3)
