"""Write the training, the finishing and the validation catalog of `home-mini`.

    python jobs/home_mini retail_demo_store.parquet vespa_ecommerce.parquet DIRECTORY

A small model writes what it has seen follow a title. In the corpora much that follows a title is not about it: stock
openers, fancy names, the colours of a picture. So a text is kept from the first sentence on that names the product, and
is written out under many faces of it (see `faces.py`). Texts composed from a list of product kinds come on top (see
`written.py`). The model is trained on the first catalog and then, for a short time, on the second, which has more of
the corpora. A tenth of the corpora's products is held out as validation.parquet, as they are: one row a text, nothing
swapped, nothing composed.
"""

import hashlib
import random
import sys
from pathlib import Path

import polars as pl
from corpus import cap_openers, read_texts
from faces import plain_face, varied_face
from written import compose_all

# How many faces of each text: many of few texts would be learned by heart, so most come at the end, at a low rate.
FACES = {"retail": 2, "vespa": 3}
FACES_AT_THE_END = {"retail": 12, "vespa": 1}
COMPOSED_PER_KIND = 400
COMPOSED_PER_FAMILY = 15_000
COMPOSED_AT_THE_END = 0.25
HELD_OUT = 0.1
FOLDER = Path(__file__).resolve().parent


def is_held_out(product: str) -> bool:
    digest = hashlib.blake2b(product.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT * 2**64


def main(retail: str, vespa: str, directory: str) -> None:
    rng = random.Random(20220)
    texts = []
    for path, source in ((retail, "retail"), (vespa, "vespa")):
        found = list(read_texts(Path(path), source))
        print(f"{source}: {len(found)} of {len(pl.read_parquet(path))} texts name their product")
        texts += found
    held_out = [text for text in texts if is_held_out(text.product)]
    learned = cap_openers([text for text in texts if not is_held_out(text.product)], rng)
    rows = [varied_face(text, rng) for text in learned for _ in range(FACES[text.source])]
    end = [varied_face(text, rng) for text in learned for _ in range(FACES_AT_THE_END[text.source])]
    composed = list(compose_all(FOLDER, COMPOSED_PER_KIND, COMPOSED_PER_FAMILY, rng))
    print(f"{len(learned)} texts after capping the openers; {len(composed)} composed")
    end += rng.sample(composed, int(len(composed) * COMPOSED_AT_THE_END))
    catalogs = {"training": rows + composed, "finishing": end, "validation": list(map(plain_face, held_out))}
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, content in catalogs.items():
        frame = pl.DataFrame(content, infer_schema_length=None).unique(maintain_order=True)
        frame.write_parquet(Path(directory) / f"{name}.parquet")
        print(f"{name}.parquet: {len(frame)} rows")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
