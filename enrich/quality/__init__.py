"""Quality: texts cleaned and judged, and what stays wrong with them named."""

from enrich.quality.cleaning import Cleaned, clean_text
from enrich.quality.duplicates import Duplicates
from enrich.quality.mending import mend
from enrich.quality.rules import EMPTY, NEAR_DUPLICATE, RULES, Rulebook
from enrich.quality.verdict import Failure, Severity, Verdict

SENTENCE_DROPPED = "sentence_dropped"  # the flag of a text that was mended

__all__ = [
    "EMPTY",
    "NEAR_DUPLICATE",
    "RULES",
    "SENTENCE_DROPPED",
    "Cleaned",
    "Duplicates",
    "Failure",
    "Rulebook",
    "Severity",
    "Verdict",
    "clean_text",
    "mend",
]
