"""A catalog whose cells are HTML, scripts, formulas, right-to-left text and emoji."""

from __future__ import annotations

import polars as pl

MARKUP = [
    "<script>alert('title')</script> Oak Table",
    "<img src=x onerror=alert(1)> Lamp & <b>Shade</b>",
    "=cmd|' /C calc'!A0 Rug",
    "+SUM(1+1)*cmd Pillow",
    "شمعدان زجاجي 🕯️ أسود",
    "</style><style>body{display:none}</style> Vase",
    "{{ 7 * 7 }} {% raw %} Mirror ${alert(2)}",
    "Shelf \u202e reversed \u2066 isolate 👩‍👩‍👧‍👦",
]


def hostile_catalog() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "sku": [f"<i>id-{n}</i>" for n in range(len(MARKUP))],
            "title": MARKUP,
            "category": ["Home & Kitchen > <u>Furniture</u>"] * len(MARKUP),
            "color": ['"><svg onload=alert(3)>'] * len(MARKUP),
            "description": [None] * 5 + ["<script>alert('kept')</script> A person's words: =1+1, עברית 🎉."] * 3,
        }
    )
