"""Quality: texts cleaned and judged, and what stays wrong with them named."""

from enrich.quality.cleaning import Cleaned, clean_text
from enrich.quality.mending import mend
from enrich.quality.rules import EMPTY, RULES, Rulebook
from enrich.quality.verdict import Failure, Severity, Verdict

SENTENCE_DROPPED = "sentence_dropped"  # the flag of a text that was mended

__all__ = [
    "EMPTY",
    "RULES",
    "SENTENCE_DROPPED",
    "Cleaned",
    "Failure",
    "Rulebook",
    "Severity",
    "Verdict",
    "clean_text",
    "mend",
]
