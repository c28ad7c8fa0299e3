"""The continuous engine: so many rows in flight, each one's place taken by the next row as soon as it is done.

On a CPU rows of unlike length stand side by side, in passes of our own where we have one for the model (`ragged`); else
they are in slots, and steps of a shape that never changes (`fixed`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from enrich.engine import sampling
from enrich.engine.crew import side_by_side
from enrich.engine.fixed import FixedBatch
from enrich.engine.forward import Forward, forward_of
from enrich.engine.loading import fuse_activations, take_over
from enrich.engine.memory import Room, is_out_of_memory
from enrich.engine.packed import pack
from enrich.engine.pool import Pool
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams, always
from enrich.engine.ragged import RaggedBatch
from enrich.engine.shelf import Shelf
from enrich.engine.stopping import StopStrings
from enrich.engine.waiting import Waiting
from enrich.engine.wide_attention import widen

# Kinds of model, as transformers calls them, whose tokens the tests have seen equal to the reference engine's. Others
# may keep more than keys and values, or read positions off the mask.
KINDS = frozenset(
    "codegen cohere gemma glm4 gpt2 gpt_bigcode gpt_neox gptj granite helium llama mistral olmo2 opt phi phi3 qwen2"
    " qwen3 smollm3 stablelm starcoder2".split()
)
_ROWS_OF_A_WORKER = 32  # the fewest for which another thread is worth its while
_GPU_CHECK_EVERY = 4  # decode steps between two looks at what they drew: a look waits for the device


def can_run(model: Any) -> bool:
    """Say whether a model is of a kind that this engine is tested with, all of its layers seeing the whole text."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return config.model_type in KINDS and set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", 0)


class ContinuousEngine:
    """Runs any causal language model of transformers whose layers all attend to the whole text."""

    def __init__(
        self,
        model: Any,
        end_token_id: int | None,
        params: SamplingParams,
        stats: EngineStats,
        stops: StopStrings | None = None,
        deterministic: bool = False,
        owns_model: bool = False,
    ) -> None:
        self.stats = stats
        self._stops = stops
        self._model = model
        self._params = params
        self._ends = set(take_over(model, end_token_id))
        self._steps = _GPU_CHECK_EVERY if model.device.type == "cuda" else 1
        self._forward = forward_of(model, takes_weights=owns_model)
        if self._forward:
            self._forward.head.prepare(sampling.considered(params, self._forward.vocabulary))
            self._room = Room(model, deterministic, has_own_pass=True)
        else:
            fuse_activations(model)
            is_packed, is_wide = pack(model), widen(model)
            self._room = Room(model, deterministic, attends_wide=is_wide, same_bits=is_packed and is_wide)
        self._pool = Pool()
        self._shelf = Shelf(self._room) if model.device.type == "cuda" else None
        self.pads = self._forward is None

    def generate(
        self,
        requests: Sequence[Request],
        width: int,
        batch_rows: int,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool] = always,
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) as rows finish, the shorter texts first; see `Engine.generate`."""
        if self._forward:
            yield from self._ragged(self._forward, requests, width, batch_rows, should_stop, may_begin)
            return
        waiting = Waiting(requests)
        positions = width + self._params.max_new_tokens
        forbids = any(request.forbidden for request in requests)
        while waiting and not should_stop() and may_begin():
            # On a CPU no more slots than there are rows; elsewhere bits depend on their number, so it stays the same.
            most = self._room.rows(batch_rows, positions, 0 if self._shelf is None else self._shelf.held_bytes)
            slots = self._room.filled(min(len(waiting), most), most)
            batch = None
            try:
                batch = self._batch(width, slots, forbids)
                yield from batch.run(waiting, should_stop, may_begin)
                if self._shelf is not None:
                    self._shelf.put(batch)
            except (MemoryError, RuntimeError) as error:
                if batch:
                    yield from batch.hand_out()
                    waiting.give_back(batch.give_back())
                del batch
                if not (self._shelf and is_out_of_memory(error) and self._shelf.clear()):
                    self._room.shrink(slots, width, self._params.max_new_tokens, error)

    def _batch(self, width: int, slots: int, forbids: bool) -> FixedBatch:
        if self._shelf is not None:
            if batch := self._shelf.take(slots, width, forbids):
                batch.stats = self.stats
                return batch
            self._shelf.make_room(slots, width + self._params.max_new_tokens)
        batch = FixedBatch(
            self._model, self._params, self.stats, self._ends, self._room, width, slots, self._steps, self._stops
        )
        if forbids:
            batch.heed_forbidden()
        return batch

    def _ragged(
        self,
        forward: Forward,
        requests: Sequence[Request],
        width: int,
        batch_rows: int,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool],
    ) -> Iterator[tuple[int, Completion]]:
        waiting = Waiting(requests)
        threads = torch.get_num_threads()
        asking = threading.Lock()

        def has_time() -> bool:
            with asking:
                return may_begin()

        def work(share: int, stop: Callable[[], bool]) -> Iterator[tuple[int, Completion]]:
            while waiting and not stop() and has_time():
                slots = self._room.rows(share)
                batch = RaggedBatch(forward, self._pool, self._params, self.stats, self._ends, slots, self._stops)
                try:
                    yield from batch.run(waiting, stop, has_time)
                except (MemoryError, RuntimeError) as error:
                    waiting.give_back(batch.give_back())
                    del batch
                    self._room.shrink(slots, width, self._params.max_new_tokens, error)

        while waiting and not should_stop() and may_begin():  # more than once if rows came when all had just ended
            positions = width + self._params.max_new_tokens
            rows = min(self._room.rows(batch_rows, positions, self._pool.free_bytes), len(waiting))
            workers = max(1, min(threads, rows // _ROWS_OF_A_WORKER)) if forward.is_small else 1
            job = partial(work, -(-rows // workers))
            if workers == 1:
                yield from job(should_stop)
            else:
                yield from side_by_side([job] * workers, threads // workers, should_stop)
