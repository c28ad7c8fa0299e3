"""Makes the sample catalogs in this folder: run `python sample_catalogs/make_samples.py`.

The products of home.csv, home.parquet and categories.csv are written out in sources/; those of messy.csv stand below,
since most of them hold characters that no editor shows. Nothing is drawn at random: a rerun gives the same rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import polars as pl

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "sources"

HOME_SCHEMA: dict[str, type[pl.DataType]] = {
    "sku": pl.String,
    "title": pl.String,
    "category": pl.String,
    "brand": pl.String,
    "color": pl.String,
    "material": pl.String,
    "size": pl.String,
    "price": pl.Float64,
    "in_stock": pl.Boolean,
    "description": pl.String,
}
CATEGORIES_HEADER = ("id", "name", "category", "brand", "color", "material", "features", "description")
MESSY_HEADER = (
    "Product ID",
    "Product Name",
    "Product Type",
    "Vendor",
    "Color",
    "Material",
    "Dimensions",
    "Body (HTML)",
)


@dataclass(slots=True)
class Variant:
    """One product of a line: what sets it apart from its siblings."""

    color: str | None
    material: str | None
    size: str | None
    price: int
    extra: str | None
    description: str | None = None


@dataclass(slots=True)
class ProductLine:
    """Products of one kind and brand, whose titles follow the same patterns."""

    category: str
    brand: str
    patterns: list[str] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)

    def title(self, index: int) -> str:
        """Build the title of a variant. Raises ValueError if its pattern speaks of something the variant lacks."""
        variant = self.variants[index]
        pattern = self.patterns[index % len(self.patterns)]
        values = {
            "b": self.brand,
            "c": variant.color,
            "m": title_case(variant.material) if variant.material else None,
            "s": variant.size,
            "x": variant.extra,
        }
        lacking = [name for name, value in values.items() if value is None and "{" + name + "}" in pattern]
        if lacking:
            raise ValueError(f"{self.category}: variant {index} has no value for {lacking} in {pattern!r}")
        return pattern.format_map(values)


def title_case(text: str) -> str:
    """Capitalize the words, and the parts of hyphenated words, but for "and"; leave the other letters alone."""
    return re.sub(r"(?<![^\s-])(?!and\b)\w", lambda match: match[0].upper(), text)


def source_lines(name: str) -> Iterator[str]:
    """Yield the lines of a file in sources/ that are neither blank nor part of the comment at its top."""
    text = (SOURCES / name).read_text(encoding="utf-8").partition("\n\n")[2]
    return (line for line in text.splitlines() if line)


def split_fields(line: str) -> list[str | None]:
    """Split "a | - | c" into fields, None for "-"."""
    return [None if value == "-" else value for value in map(str.strip, line.split(" | "))]


def read_product_lines() -> list[ProductLine]:
    lines: list[ProductLine] = []
    for text in source_lines("home.txt"):
        mark, _, rest = text.partition(" ")
        if mark == "##":
            category, brand = rest.split(" | ")
            lines.append(ProductLine(category, brand))
        elif mark == ">":
            lines[-1].patterns.append(rest)
        elif mark == "-":
            color, material, size, price, *extra = split_fields(rest)
            lines[-1].variants.append(Variant(color, material, size, int(price or ""), extra[0] if extra else None))
        elif mark == "=":
            variant = lines[-1].variants[-1]
            variant.description = f"{variant.description} {rest}" if variant.description else rest
        else:
            raise ValueError(f"home.txt: {text!r}")
    return lines


def home_rows() -> Iterator[tuple[object, ...]]:
    """Yield the rows of home.csv: one variant of every line in turn, each line beginning at another of its variants."""
    lines = read_product_lines()
    order = [
        (line, (place + turn) % len(line.variants))
        for turn in range(max(len(line.variants) for line in lines))
        for place, line in enumerate(lines)
        if turn < len(line.variants)
    ]
    for number, (line, index) in enumerate(order, start=1):
        variant = line.variants[index]
        yield (
            f"HOM-{number:05d}",
            line.title(index),
            f"Home & Kitchen > {line.category}",
            line.brand,
            variant.color,
            variant.material,
            variant.size,
            variant.price - (0.01 if variant.price < 100 else 0.0),
            number % 9 != 4,
            variant.description,
        )


def category_rows() -> Iterator[tuple[str, ...]]:
    """Yield the rows of categories.csv: one product of each category in turn."""
    products: dict[str, list[tuple[str, ...]]] = {}
    top = levels = ""
    for text in source_lines("categories.txt"):
        if text.startswith("## "):
            top = text.removeprefix("## ")
            products[top] = []
        elif text.startswith("# "):
            levels = text.removeprefix("# ")
        else:
            name, brand, color, material, features = (value or "" for value in split_fields(text))
            products[top].append((name, f"{top} > {levels}", brand, color, material, features, ""))
    taken_in_turn = (row for turn in zip_longest(*products.values()) for row in turn if row)
    for number, row in enumerate(taken_in_turn, start=1):
        yield (f"C{1000 + number}", *row)


def long_title() -> str:
    """Stuff a title with key words and cut it after 900 characters, as a feed with a length limit would."""
    start = "Garden Hose Reel Cart with Wheels, Holds 150 ft of 5/8 in Hose, Rust-Resistant Steel Frame"
    uses = ["Lawn", "Patio", "Yard", "Driveway", "Greenhouse", "Flower Beds", "Vegetable Plots", "Car Washing"]
    kinds = ["Hose Trolley", "Hose Holder", "Hose Winder", "Mobile Hose Storage", "Hose Caddy", "Water Hose Cart"]
    phrases = [f"{kind} for {use}" for use in uses for kind in kinds]
    return ", ".join([start, *phrases])[:900]


# The oddities of messy.csv, in the order of its README. What can't be seen is written as an escape.
FISH_LAMP = ("00126", "Paper Fish Lamp", "Lighting", "Lumenby", "White", "paper", "14 in", "")
TOWEL = ("00127", "Striped Hand Towel", "Bath", "Saltgrove", "Navy", "cotton", "16 x 28 in", "-")
MESSY_ROWS: tuple[tuple[str, ...], ...] = (
    # Ids that a number column would spoil.
    ("00123", "Oak Letter Tray", "Office", "Northquill", "Natural", "oak wood", "13 x 10 in", ""),
    ("00000", "Brass Paperweight, Sleeping Cat", "Office", "Vossbury", "Gold", "brass", "3 in", ""),
    ("1E05", "Wall Calendar with Wood Hanger", "Office", "Foliant", "Cream", "paper", "11 x 17 in", ""),
    ("000123456789012345678", "Pocket Sketchbook", "Office", "Foliant", "Black", "paper", "3.5 x 5.5 in", ""),
    # Quotation marks in titles.
    ("00124", '15" Portable Monitor, "Slim" Series', "Electronics", "Keldrix", "Gray", "aluminum", '15"', ""),
    ("00125", '"Home Sweet Home" Sign', "Home Decor", "Juniper Latch", "White", "pine", '12" x 6"', ""),
    # A row that comes twice, and a row that comes three times.
    FISH_LAMP,
    FISH_LAMP,
    TOWEL,
    ("00128", "Round Jute Trivet", "Kitchen", "Loomarch", "Natural", "jute", "8 in", ""),
    TOWEL,
    TOWEL,
    # Different products under one id.
    ("00140", "Enamel Colander", "Kitchen", "Kettlebrae", "Red", "enameled steel", "10 in", ""),
    ("00140", "Enamel Ladle", "Kitchen", "Kettlebrae", "Red", "enameled steel", "12 in", ""),
    ("00140", "Enamel Bread Bin", "Kitchen", "Kettlebrae", "Cream", "enameled steel", "13 x 10 x 9 in", "N/A"),
    # Delimiters and line ends inside fields.
    ("00141", "Spice Rack; 3 Tiers; Wall Mount", "Storage", "Stowick", "Black", "steel", "16 x 3 x 18 in", ""),
    ("00142", "Folding Clothes\nDrying Rack", "Laundry", "Wrenfold", "White", "beech wood", "30 x 20 x 42 in", ""),
    ("00143", "Beach Umbrella\r\nwith Sand Anchor", "Outdoors", "Verandel", "Coral", "polyester", "6.5 ft", ""),
    ("00144", "Desk Fan, 3 Speeds", "Appliances", "Torvik", "Mint", "plastic", "9 in\nheight: 12 in", ""),
    # HTML and entities in titles.
    ("00145", "<b>Velvet</b> Cushion Cover", "Home Decor", "Aldertwine", "Plum", "velvet", "18 x 18 in", ""),
    ("00146", "Salt &amp; Pepper Shakers", "Kitchen", "Marrowby", "Speckled Gray", "stoneware", "3 in", ""),
    ("00147", "&quot;Good Dog&quot; Treat Jar", "Pets", "Wagborough", "White", "ceramic", "6 &times; 8 in", ""),
    ("00148", "Wool Rug<br/>Hand&#45;Woven", "Rugs", "Loomarch", "Ivory &amp; Rust", "wool", "5&#39; x 8&#39;", ""),
    ("00149", "Shelf for Books < 12 in Tall & > 6 in Deep", "Furniture", "Halden", "Oak", "oak veneer", "36 in", ""),
    # Characters that can't be seen.
    ("00150", "Linen\u00a0Napkins,\u00a0Set of\u00a04", "Table Linens", "Ellisande", "Sage", "linen", "20\u00a0in", ""),
    ("00151", "Bam\u200bboo Bath\u200b Shelf", "Bath", "Stowick", "Natural", "bamboo\u200b", "28 x 6 in", ""),
    ("00152", "\ufeffGlass Cake Dome", "Kitchen", "Glimmerack", "Clear", "glass", "11 in", ""),
    ("00153", "Extra\u00adlong Shoe\u00adhorn", "Accessories", "Wrenfold", "Brown", "beech wood", "24 in", ""),
    ("00154", "Copper\tWatering Can", "Garden", "Thornwick", "Copper", "copper", "1.5\tL", ""),
    ("00155", "Desk Bell\x07 with Brass Dome", "Office", "Vossbury", "Brass", "brass", "3.5 in", ""),
    ("00156", "Canvas\x0b Apron\x1f with Pockets", "Kitchen", "Ellisande", "Blue", "cotton canvas", "27 x 33 in", ""),
    ("00157", "   Leather   Key   Tray   ", "  Home Decor ", " Larkhaven", "Tan ", " leather ", "  8 x 5 in  ", "  "),
    # Letters and signs beyond ASCII.
    ("00158", "Crème Brûlée Dish, Set of 4", "Kitchen", "Marrowby", "Écru", "porcelain", "5 in", ""),
    ("00159", "Cre\u0300me Bru\u0302le\u0301e Torch", "Kitchen", "Tindrel", "Steel", "stainless steel", "6 in", ""),
    ("00160", "🎄 Felt Tree Garland 🎄", "Seasonal", "Hollybray", "Green", "wool felt", "6 ft", ""),
    (
        "00161",
        "Family Picnic Blanket 👨\u200d👩\u200d👧",
        "Outdoors",
        "Aldertwine",
        "Red Check",
        "acrylic",
        "60 x 80 in",
        "",
    ),
    ("00162", "כרית נוי מקטיפה", "Home Decor", "Aldertwine", "כחול", "velvet", "45 x 45 cm", ""),
    ("00163", "\u202bمصباح طاولة\u202c Table Lamp", "Lighting", "Harrowlight", "أبيض", "ceramic", "40 cm", ""),
    ("00164", "木製スパイスラック Wooden Spice Rack", "Storage", "Stowick", "ナチュラル", "pine", "30 × 8 × 25 cm", ""),
    ("00165", "Smørrebrød Board – “Nordic” Style", "Kitchen", "Tindrel", "Natural", "ash wood", "14½ × 6 in", ""),
    # Titles of unusual length and case.
    ("00166", long_title(), "Garden", "Rillwater", "Green", "steel", "19 x 21 x 39 in", ""),
    ("00167", "Mug", "Kitchen", "Marrowby", "Blue", "stoneware", "12 oz", "null"),
    ("00168", "HEAVY DUTY STEEL SHELVING UNIT 5 TIER", "Storage", "STOWICK", "BLACK", "STEEL", "36 X 14 X 72 IN", ""),
    # Titles that are empty to the eye.
    ("00169", "", "Kitchen", "Kettlebrae", "Black", "cast iron", "9 in", ""),
    ("00170", "   ", "Bath", "Saltgrove", "White", "cotton", "20 x 32 in", ""),
    ("00171", "\u00a0\u00a0", "Lighting", "Lumenby", "Brass", "metal", "11 in", ""),
    ("00172", "\t\u200b", "Rugs", "Tuftwell", "Gray", "polyester", "2 x 6 ft", ""),
    # Descriptions that only hold a place.
    ("00173", "Wire Fruit Basket", "Kitchen", "Stowick", "Black", "iron wire", "12 in", "N/A"),
    ("00174", "Marble Bookends, Pair", "Home Decor", "Fennimoor", "White", "marble", "5 x 4 x 3 in", "TBD"),
    ("00175", "Playing Cards in a Tin", "Games", "Ninepin Games", "", "card", "2.5 in. x 3.5 in.", "<p></p>"),
    ("00176", "Cork Coasters, Set of 6", "Kitchen", "Tindrel", "Natural", "cork", "4 in", "<p>&nbsp;</p>\r\n<br>"),
    # Titles that look like code, a formula or a model's own mark. They are plain text.
    ("00177", "{{ 7*7 }} Novelty Mug for Programmers", "Kitchen", "Marrowby", "Black", "stoneware", "12 oz", ""),
    ("00178", "{% for x in y %} Sticker Sheet", "Office", "Inkabird", "", "vinyl", "4 x 6 in", ""),
    ("00179", "=1+1", "Books", "Little Thicket", "", "", "8 x 8 in", ""),
    ("00180", "<|endoftext|> Enamel Pin", "Accessories", "Silvanthe", "Black", "enamel", "1.25 in", ""),
    # Real descriptions, to be kept as they are, the first two in HTML.
    (
        "00181",
        "Beeswax Taper Candles, Pair",
        "Home Decor",
        "Evermoot",
        "Honey",
        "beeswax",
        "10 in",
        "<p>Two slow-burning tapers, dipped by hand in pure beeswax.</p>\n<ul><li>Burns about 8 hours</li>"
        "<li>Fits &frac34; in holders</li></ul>",
    ),
    (
        "00182",
        "Folding Step Stool",
        "Furniture",
        "Wrenfold",
        "White",
        "beech wood",
        "15 x 16 x 18 in",
        '<div class="body"><strong>Two wide steps</strong> and a carrying slot &mdash; it folds to 3&quot; flat '
        "and holds up to 250&nbsp;lb.</div>",
    ),
    (
        "00183",
        "Linen Bread Bag",
        "Kitchen",
        "Ellisande",
        "Natural",
        "linen",
        "12 x 16 in",
        "A drawstring bag that keeps a loaf's crust crisp for a day or two; shake out the crumbs and machine wash.",
    ),
    (
        "00184",
        "Terracotta Wine Cooler",
        "Kitchen",
        "Mossgate",
        "Terracotta",
        "clay",
        "7 x 5 in",
        "Soak the pot in cold water for ten minutes, and the damp clay keeps a bottle cool through dinner.\n\n"
        "No freezer, no ice and nothing to plug in.",
    ),
    (
        "00185",
        "Rag Rug, Pâtisserie Stripe",
        "Rugs",
        "Loomarch",
        "Pink and Cream",
        "recycled cotton",
        "2 x 3 ft",
        "Woven from leftover cotton in café colors, so each rug is a little different. “Rustic”, soft and washable.",
    ),
    (
        "00186",
        "Magnetic Knife Strip",
        "Kitchen",
        "Tindrel",
        "Walnut",
        "walnut wood",
        '16"',
        'Holds six knives flat against the wall, blades up to 10" long, without a magnet in sight.',
    ),
)


def write_csv(
    name: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    encoding: str = "utf-8",
    delimiter: str = ",",
    line_end: str = "\n",
) -> None:
    with (FOLDER / name).open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end)
        writer.writerow(header)
        writer.writerows(rows)


def csv_value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    home = list(home_rows())
    write_csv("home.csv", tuple(HOME_SCHEMA), [[csv_value(value) for value in row] for row in home])
    pl.DataFrame(home, schema=HOME_SCHEMA, orient="row").write_parquet(FOLDER / "home.parquet")
    write_csv("categories.csv", CATEGORIES_HEADER, category_rows())
    write_csv("messy.csv", MESSY_HEADER, MESSY_ROWS, encoding="utf-8-sig", delimiter=";", line_end="\r\n")


if __name__ == "__main__":
    main()
