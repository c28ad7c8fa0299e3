"""The continuous engine: a fixed number of slots, each refilled with the next row as soon as its own is done.

A prompt is computed up to its last token in a prefill, several rows at once; the last token is the first that is
decoded, beside rows that are further on. Every decode step has the same shapes, whatever its rows, so a row's text does
not depend on its neighbours, and on a GPU the step is captured once as a CUDA graph and replayed.

Shapes: S slots, P rows of a prefill, W prompt width, L = W + new tokens, V vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from enrich.engine import ranking, sampling
from enrich.engine.crew import side_by_side
from enrich.engine.forward import Forward, forward_of
from enrich.engine.loading import take_over
from enrich.engine.memory import Room
from enrich.engine.pool import Pool
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams, always
from enrich.engine.ragged import RaggedBatch
from enrich.engine.slots import SlotCache
from enrich.engine.stopping import StopStrings
from enrich.engine.waiting import Waiting

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
    ) -> None:
        self.stats = stats
        self._stops = stops
        self._model = model
        self._params = params
        self._ends = set(take_over(model, end_token_id))
        self._steps = _GPU_CHECK_EVERY if model.device.type == "cuda" else 1
        self._forward = forward_of(model)
        if self._forward:
            self._forward.head.prepare(sampling.considered(params, self._forward.vocabulary))
        self._room = Room(model, deterministic, has_own_pass=self._forward is not None)
        self._pool = Pool()
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
        forbids = any(request.forbidden for request in requests)
        while waiting and not should_stop() and may_begin():
            # On a CPU no more slots than there are rows; elsewhere bits depend on their number, so it stays the same.
            most = self._room.rows(batch_rows, width + self._params.max_new_tokens)
            slots = self._room.filled(min(len(waiting), most), most)
            batch = None
            try:
                batch = _Batch(
                    self._model, self._params, self.stats, self._ends, self._room, width, slots, self._steps,
                    self._stops,
                )  # fmt: skip
                if forbids:
                    batch.heed_forbidden()
                yield from batch.run(waiting, should_stop, may_begin)
            except (MemoryError, RuntimeError) as error:
                if batch:
                    waiting.give_back(batch.give_back())
                del batch
                self._room.shrink(slots, width, self._params.max_new_tokens, error)

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


class _Batch:
    """The rows in flight, and the tensors that a decode step reads and writes in place."""

    def __init__(
        self,
        model: Any,
        params: SamplingParams,
        stats: EngineStats,
        ends: set[int],
        room: Room,
        width: int,
        slots: int,
        steps: int,
        stops: StopStrings | None,
    ) -> None:
        self._model, self._params, self._stats, self._ends = model, params, stats, ends
        self._stops = stops
        self._steps = steps  # between two looks at what was drawn
        self._room = room
        self._width = width
        self._slots = slots
        self._length = width + params.max_new_tokens
        # On a GPU a prefill's shape is fixed too, or 16-bit bits would depend on how many rows came in at once.
        self._prefill_rows = None if room.same_bits else max(1, slots // 8)
        self._rows: list[tuple[int, Request] | None] = [None] * slots
        self._drawn: list[list[int]] = [[] for _ in range(slots)]  # tokens that each slot's row has so far
        device = model.device
        layers = model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(layers, slots, self._length, device)
        self._tokens = torch.zeros(slots, dtype=torch.long, device=device)  # last token of each row, not yet decoded
        self._counts = torch.zeros(slots, dtype=torch.long, device=device)  # tokens drawn
        self._seeds = torch.zeros(slots, dtype=torch.long, device=device)
        self._attempts = torch.zeros(slots, dtype=torch.long, device=device)
        self._is_broken = torch.zeros(slots, dtype=torch.bool, device=device)  # had scores that are no numbers
        self._recent = torch.zeros(steps, slots, dtype=torch.long, device=device)  # drawn since the last look
        self._tick = torch.zeros(1, dtype=torch.long, device=device)  # where the next step writes to it
        # One column more than there are tokens, for rows that are done and decode on until that is noticed.
        self._generated = torch.zeros(slots, params.max_new_tokens + 1, dtype=torch.long, device=device)
        self._columns = torch.arange(self._length, device=device)
        self._lowest = torch.finfo(model.dtype).min
        causal = torch.full((width, width), self._lowest, dtype=model.dtype, device=device).triu(1)
        self._causal_mask = causal[None, None]
        self._prefill_positions = torch.arange(width, device=device)[None]
        self._forbidden: Tensor | None = None  # [S, V], once there is something to heed
        self._graph: Any = None

    def heed_forbidden(self) -> None:
        """Make room for what rows must not draw."""
        vocabulary = self._model.get_output_embeddings().weight.shape[0]
        self._forbidden = torch.zeros(self._slots, vocabulary, dtype=torch.bool, device=self._tokens.device)

    def give_back(self) -> list[tuple[int, Request]]:
        """Return the rows that have not finished, as if they had never been taken."""
        rows = [row for row in self._rows if row is not None]
        self._stats.prompt_tokens -= sum(len(request.prompt_token_ids) for _, request in rows)
        return rows

    @torch.inference_mode()
    def run(
        self, waiting: Waiting, should_stop: Callable[[], bool], may_begin: Callable[[], bool]
    ) -> Iterator[tuple[int, Completion]]:
        """Take rows from `waiting` until there are none left, and yield them as they finish."""
        while not should_stop():
            free = [slot for slot, row in enumerate(self._rows) if row is None]
            # A refill costs a pass through the model: on a CPU for its rows, on a GPU whatever their number.
            enough = len(free) == self._slots or len(free) * 8 >= self._slots or not self._prefill_rows
            if waiting and free and enough and may_begin():
                self._fill(free, waiting)
            active = sum(row is not None for row in self._rows)
            if not active:
                return
            if self._room.same_bits and not waiting and active * 2 < self._slots:
                self._shrink(self._room.filled(active, self._slots))
            self._stats.note_slots(self._slots, active)
            for _ in range(self._steps):
                self._step()
            self._stats.decode_positions += self._slots * self._steps
            yield from self._finished()

    def _fill(self, free: list[int], waiting: Waiting) -> None:
        """Prefill the next rows into the free slots, all but the last token of each."""
        while free and waiting:
            most = self._prefill_rows or len(free)
            rows_taken = waiting.take(min(most, len(free)))
            taken = [(slot, *row) for slot, row in zip(free, rows_taken, strict=False)]
            free = free[len(taken) :]
            for slot, index, request in taken:
                self._rows[slot] = (index, request)
                self._drawn[slot] = []
            rows = most if self._prefill_rows else len(taken)
            ids = torch.zeros(rows, self._width, dtype=torch.long)
            for row, (_, _, request) in enumerate(taken):
                ids[row, : len(request.prompt_token_ids) - 1] = torch.tensor(request.prompt_token_ids[:-1])
            device = self._tokens.device
            slots = torch.tensor([slot for slot, _, _ in taken])
            spare = torch.full((rows - len(taken),), self._slots)  # filler rows write beyond the slots
            self._cache.prefilled = torch.cat([slots, spare]).to(device)
            self._model.base_model(  # without its head: a prefill needs no logits
                input_ids=ids.to(device),
                position_ids=self._prefill_positions.expand(rows, -1),
                attention_mask=self._causal_mask,
                past_key_values=self._cache,
                use_cache=True,
            )
            self._cache.prefilled = None
            slots = slots.to(device)
            lengths = [len(request.prompt_token_ids) for _, _, request in taken]
            self._put(self._tokens, slots, [request.prompt_token_ids[-1] for _, _, request in taken])
            self._put(self._cache.positions, slots, [length - 1 for length in lengths])
            self._put(self._counts, slots, [0] * len(taken))
            self._put(self._is_broken, slots, [False] * len(taken))
            if self._forbidden is not None:
                mask = sampling.forbidden_mask([request for _, _, request in taken], self._forbidden.shape[1])
                self._forbidden[slots] = False if mask is None else mask.to(device)
            self._put(self._seeds, slots, [request.seed for _, _, request in taken])
            self._put(self._attempts, slots, [request.attempt for _, _, request in taken])
            self._stats.prompt_tokens += sum(lengths)
            self._stats.prefill_positions += rows * self._width

    @staticmethod
    def _put(target: Tensor, slots: Tensor, values: list[int] | list[bool]) -> None:
        target[slots] = torch.tensor(values, device=target.device)

    def _step(self) -> None:
        if self._tokens.device.type != "cuda":
            self._decode()
        elif self._graph is None:
            self._graph = self._capture()
        else:
            self._graph.replay()

    def _capture(self) -> Any:
        """Run a step, which also warms up what a capture must not see, and capture the next one."""
        self._decode()
        state = (
            self._tokens, self._cache.positions, self._counts, self._generated, self._recent, self._tick,
            self._is_broken,
        )  # fmt: skip
        before = [tensor.clone() for tensor in state]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._decode()
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        return graph

    def _decode(self) -> None:
        """Draw the next token of every slot, in place: nothing here waits for the device."""
        positions = self._cache.positions
        seen = self._columns <= positions[:, None]  # [S, L]
        mask = torch.where(seen, 0.0, self._lowest).to(self._model.dtype)[:, None, None]
        logits = self._model(
            input_ids=self._tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        if self._forbidden is not None:
            logits = logits.masked_fill(self._forbidden, -torch.inf)
        if logits.device.type != "cpu":  # where drawing from them raises
            self._is_broken.logical_or_(sampling.no_numbers(logits))
        uniforms = sampling.uniform(self._seeds, self._attempts, self._counts)
        tokens = sampling.choose(logits.float(), self._generated, uniforms, self._params, self._counts)
        self._generated.scatter_(1, self._counts.clamp(max=self._params.max_new_tokens)[:, None], tokens[:, None])
        self._recent.index_copy_(0, self._tick, tokens[None])
        self._tick.add_(1).remainder_(self._steps)
        self._tokens.copy_(tokens)
        self._counts.add_(1)
        positions.add_(1).clamp_(max=self._length - 1)

    def _finished(self) -> Iterator[tuple[int, Completion]]:
        """Read what was drawn since the last look; yield the rows that are done and free their slots."""
        recent, is_broken = self._recent.T.tolist(), self._is_broken.tolist()
        for slot, row in enumerate(self._rows):
            if row is None:
                continue
            if is_broken[slot]:
                raise ranking.broken()
            index, request = row
            most = min(self._params.max_new_tokens, request.max_new_tokens or self._params.max_new_tokens)
            drawn = self._drawn[slot]
            end = next((number for number, token in enumerate(recent[slot]) if token in self._ends), None)
            before = len(drawn)
            drawn += recent[slot][:end]
            stopped = end is not None and len(drawn) < most
            if self._stops is not None and (length := self._stops.length(drawn[:most], before)) is not None:
                del drawn[length:]
                stopped = True
            if not stopped and len(drawn) < most:
                continue
            self._rows[slot] = None
            del drawn[most:]
            self._stats.generated_tokens += len(drawn)
            yield index, Completion(tuple(drawn), "stop" if stopped else "length")

    def _shrink(self, slots: int) -> None:
        """Go on with fewer slots, if they are fewer, once most are free and no row waits."""
        if slots >= self._slots:
            return
        kept = [slot for slot, row in enumerate(self._rows) if row is not None]
        index = torch.tensor(kept)
        self._cache.keep(index, slots)

        def shrunk(tensor: Tensor) -> Tensor:
            smaller = tensor.new_zeros(slots, *tensor.shape[1:])
            smaller[: len(kept)] = tensor[index]
            return smaller

        self._recent = self._recent.new_zeros(self._steps, slots)
        self._tokens, self._counts, self._seeds = map(shrunk, (self._tokens, self._counts, self._seeds))
        self._attempts, self._generated = map(shrunk, (self._attempts, self._generated))
        self._is_broken = shrunk(self._is_broken)
        self._forbidden = None if self._forbidden is None else shrunk(self._forbidden)
        filler = slots - len(kept)
        self._rows = [*(self._rows[slot] for slot in kept), *[None] * filler]
        self._drawn = [*(self._drawn[slot] for slot in kept), *([] for _ in range(filler))]
        self._slots = slots
