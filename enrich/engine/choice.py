"""The choice of engine: the continuous one for the models that it can run, else the plain one."""

from __future__ import annotations

from typing import Any

from enrich.engine import continuous, reference
from enrich.engine.protocol import Engine, EngineStats, SamplingParams
from enrich.engine.stopping import StopStrings
from enrich.engine.tokenizer import Tokenizer


def make_engine(
    model: Any,
    tokenizer: Tokenizer,
    params: SamplingParams,
    stats: EngineStats,
    *,
    deterministic: bool = False,
    owns_model: bool = False,
) -> Engine:
    """Return the engine for a model whose weights are loaded.

    A `deterministic` one gives float32 texts the same bytes for every number of rows at once, on every device. One that
    owns the model lets go of weights that it has laid out anew: nobody else can compute with it any more.
    """
    told = model, tokenizer.end_token_id, params, stats, StopStrings.of(tokenizer, params), deterministic
    if continuous.can_run(model):
        return continuous.ContinuousEngine(*told, owns_model=owns_model)
    return reference.ReferenceEngine(*told)
