"""Quality: texts cleaned, and what stays wrong with them named."""

from enrich.quality.cleaning import Cleaned, clean_text

__all__ = ["Cleaned", "clean_text"]
