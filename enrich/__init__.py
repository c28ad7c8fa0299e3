"""Write the missing descriptions of a product catalog.

>>> from enrich import RunConfig, run
>>> summary = run(RunConfig(catalog="catalog.parquet"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EnrichError", "RunConfig", "Summary", "__version__", "run"]

if TYPE_CHECKING:
    from enrich.config import RunConfig
    from enrich.errors import EnrichError
    from enrich.job import run
    from enrich.summary import Summary


def __getattr__(name: str) -> Any:
    # Imported on first use: `enrich --help` must not wait for torch.
    if name == "RunConfig":
        from enrich.config import RunConfig

        return RunConfig
    if name == "EnrichError":
        from enrich.errors import EnrichError

        return EnrichError
    if name == "Summary":
        from enrich.summary import Summary

        return Summary
    if name == "run":
        from enrich.job import run

        return run
    raise AttributeError(f"module 'enrich' has no attribute {name!r}")
