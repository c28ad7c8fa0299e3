"""Rows in flight in shapes that never change, for transformers' own model classes on any device.

A prompt is computed up to its last token in a prefill, several rows at once; the last token is the first that is
decoded, beside rows that are further on. Every decode step has the same shapes, whatever its rows, so a row's text does
not depend on its neighbours, and on a GPU the step is captured once as a CUDA graph and replayed.

Shapes: S slots, P rows of a prefill, W prompt width, L = W + new tokens, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enrich.engine import ranking, sampling
from enrich.engine.memory import Room, is_out_of_memory
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams
from enrich.engine.slots import SlotCache
from enrich.engine.stopping import StopStrings
from enrich.engine.waiting import Waiting
from enrich.errors import one_line

log = logging.getLogger("enrich")


class FixedBatch:
    """The rows in flight of one bucket, and the tensors that a decode step reads and writes in place."""

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
        self._model, self._params = model, params
        self.stats = stats
        self._ends = np.array(sorted(ends), dtype=np.int64)
        self._stops = stops
        self._steps = steps  # between two looks at what was drawn
        self._room = room
        self._width = width
        self._slots = slots
        self._length = width + params.max_new_tokens
        self._finished: list[tuple[int, Completion]] = []  # and not handed out yet
        # On a GPU a prefill's shape is fixed too, or 16-bit bits would depend on how many rows came in at once.
        self._prefill_rows = None if room.same_bits else max(1, slots // 8)
        self._rows: list[tuple[int, Request] | None] = [None] * slots
        # What each slot's row has so far, as the looks have found it: tokens, how many, how many it may have.
        self._drawn = np.zeros((slots, params.max_new_tokens + steps), dtype=np.int64)
        self._num_drawn = np.zeros(slots, dtype=np.int64)
        self._most = np.zeros(slots, dtype=np.int64)
        device = model.device
        layers = model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(layers, slots, self._length, device, room.cache_dtype)
        self._tokens = torch.zeros(slots, dtype=torch.long, device=device)  # last token of each row, not yet decoded
        self._counts = torch.zeros(slots, dtype=torch.long, device=device)  # tokens drawn
        # The random numbers of all of a row's draws: made as it comes in, they are no part of a step.
        self._uniforms = torch.zeros(slots, params.max_new_tokens, dtype=sampling.number_format(device), device=device)
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
        self._can_capture = model.device.type == "cuda"

    def heed_forbidden(self) -> None:
        """Make room for what rows must not draw."""
        vocabulary = self._model.get_output_embeddings().weight.shape[0]
        self._forbidden = torch.zeros(self._slots, vocabulary, dtype=torch.bool, device=self._tokens.device)

    def give_back(self) -> list[tuple[int, Request]]:
        """Return the rows that have not finished, as if they had never been taken."""
        rows = [row for row in self._rows if row is not None]
        self.stats.prompt_tokens -= sum(len(request.prompt_token_ids) for _, request in rows)
        return rows

    @property
    def is_idle(self) -> bool:
        """Whether it has no rows, so that it can be run again as if it were new."""
        return not self._finished and all(row is None for row in self._rows)

    def fits(self, slots: int, width: int, heeds_forbidden: bool) -> bool:
        """Say whether such rows can be run in it, with the same bits as in a new one."""
        return (self._slots, self._width) == (slots, width) and (self._forbidden is not None or not heeds_forbidden)

    @property
    def cache_bytes(self) -> int:
        """The bytes that keys and values take up."""
        return self._cache.nbytes

    @torch.inference_mode()
    def run(
        self, waiting: Waiting, should_stop: Callable[[], bool], may_begin: Callable[[], bool]
    ) -> Iterator[tuple[int, Completion]]:
        """Take rows from `waiting` until there are none left, and yield them as they finish.

        What a look has found is handed out once the device has its next steps: what is done with it takes none of the
        device's time.
        """
        while not should_stop():
            free = [slot for slot, row in enumerate(self._rows) if row is None]
            # A refill costs a pass through the model: on a CPU for its rows, on a GPU whatever their number.
            enough = len(free) == self._slots or len(free) * 8 >= self._slots or not self._prefill_rows
            if waiting and free and enough and may_begin():
                self._fill(free, waiting)
            active = sum(row is not None for row in self._rows)
            if active:
                if self._room.same_bits and not waiting and active * 2 < self._slots:
                    self._shrink(self._room.filled(active, self._slots))
                self.stats.note_slots(self._slots, active)
                for _ in range(self._steps):
                    self._step()
                self.stats.decode_positions += self._slots * self._steps
            elif not self._finished:
                return
            yield from self.hand_out()
            if active:
                self._look()
        yield from self.hand_out()

    def hand_out(self) -> Iterator[tuple[int, Completion]]:
        """Yield the rows that are done and have not been handed out."""
        finished, self._finished = self._finished, []
        yield from finished

    def _fill(self, free: list[int], waiting: Waiting) -> None:
        """Prefill the next rows into the free slots, all but the last token of each."""
        while free and waiting:
            most = self._prefill_rows or len(free)
            rows_taken = waiting.take(min(most, len(free)))
            taken = [(slot, *row) for slot, row in zip(free, rows_taken, strict=False)]
            free = free[len(taken) :]
            rows = most if self._prefill_rows else len(taken)
            ids = np.zeros((rows, self._width), dtype=np.int64)
            longest = self._params.max_new_tokens
            for row, (slot, index, request) in enumerate(taken):
                self._rows[slot] = (index, request)
                self._num_drawn[slot] = 0
                self._most[slot] = min(longest, request.max_new_tokens or longest)
                ids[row, : len(request.prompt_token_ids) - 1] = request.prompt_token_ids[:-1]
            lengths = [len(request.prompt_token_ids) for _, _, request in taken]
            about = [
                (slot, request.prompt_token_ids[-1], length - 1)
                for (slot, _, request), length in zip(taken, lengths, strict=True)
            ]
            slots, last, positions = self._on_device(torch.tensor(about)).unbind(1)
            spare = torch.full((rows - len(taken),), self._slots)  # filler rows write beyond the slots
            self._cache.prefilled = torch.cat([slots, self._on_device(spare)])
            self._model.base_model(  # without its head: a prefill needs no logits
                input_ids=self._on_device(torch.from_numpy(ids)),
                position_ids=self._prefill_positions.expand(rows, -1),
                attention_mask=self._causal_mask,
                past_key_values=self._cache,
                use_cache=True,
            )
            self._cache.prefilled = None
            self._tokens[slots], self._cache.positions[slots] = last, positions
            self._counts[slots], self._is_broken[slots] = 0, False
            # On the processor, beside the prefill that the device is at: they are two hundred small operations.
            streams = torch.tensor([[request.seed, request.attempt] for _, _, request in taken])
            draws, number_format = torch.arange(longest), self._uniforms.dtype
            uniforms = sampling.uniform(streams[:, :1], streams[:, 1:], draws, number_format)
            self._uniforms[slots] = self._on_device(uniforms)
            if self._forbidden is not None:
                mask = sampling.forbidden_mask([request for _, _, request in taken], self._forbidden.shape[1])
                self._forbidden[slots] = False if mask is None else self._on_device(mask)
            self.stats.prompt_tokens += sum(lengths)
            self.stats.prefill_positions += rows * self._width

    def _on_device(self, tensor: Tensor) -> Tensor:
        # CUDA has read what it copies once this returns, and has not been waited for, with all it was asked for before.
        return tensor.to(self._tokens.device, non_blocking=self._tokens.is_cuda)

    def _step(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        self._decode()  # which also warms up what a capture must not see
        if self._can_capture:
            self._capture()

    def _capture(self) -> None:
        """Capture the next step; where a model's can't be captured, its steps go on as they are."""
        state = (
            self._tokens, self._cache.positions, self._counts, self._generated, self._recent, self._tick,
            self._is_broken,
        )  # fmt: skip
        before = [tensor.clone() for tensor in state]
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph):
                self._decode()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._can_capture = False
            _warn_of_no_capture(one_line(error))
        else:
            self._graph = graph
        finally:
            torch.cuda.set_stream(stream)  # a capture that failed leaves its own
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)

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
        draw = self._counts.clamp(max=self._params.max_new_tokens - 1)[:, None]
        uniforms = self._uniforms.gather(1, draw).squeeze(1)
        tokens = sampling.choose(logits.float(), self._generated, uniforms, self._params, self._counts)
        self._generated.scatter_(1, self._counts.clamp(max=self._params.max_new_tokens)[:, None], tokens[:, None])
        self._recent.index_copy_(0, self._tick, tokens[None])
        self._tick.add_(1).remainder_(self._steps)
        self._tokens.copy_(tokens)
        self._counts.add_(1)
        positions.add_(1).clamp_(max=self._length - 1)

    def _look(self) -> None:
        """Read what was drawn since the last look, and free the slots of the rows that are done."""
        recent, is_broken = self._recent.T.cpu().numpy(), self._is_broken.cpu().numpy()
        active = np.array([slot for slot, row in enumerate(self._rows) if row is not None])
        if is_broken[active].any():
            raise ranking.broken()
        tokens, before, most = recent[active], self._num_drawn[active], self._most[active]
        self._drawn[active[:, None], before[:, None] + np.arange(self._steps)] = tokens
        ends = np.isin(tokens, self._ends)
        has_end = ends.any(axis=1)
        lengths = np.minimum(before + np.where(has_end, ends.argmax(axis=1), self._steps), most)
        is_stopped = has_end & (lengths < most)
        if self._stops is not None:
            for place in np.flatnonzero(self._stops.may_complete(tokens).any(axis=1)):
                drawn = self._drawn[active[place], : lengths[place]].tolist()
                if (length := self._stops.length(drawn, int(before[place]))) is not None:
                    lengths[place], is_stopped[place] = length, True
        self._num_drawn[active] = lengths
        for place in np.flatnonzero(is_stopped | (lengths == most)):
            slot = active[place]
            row = self._rows[slot]
            assert row is not None
            self._rows[slot] = None
            drawn = self._drawn[slot, : lengths[place]].tolist()
            self.stats.generated_tokens += len(drawn)
            self._finished.append((row[0], Completion(tuple(drawn), "stop" if is_stopped[place] else "length")))

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
        self._tokens, self._counts, self._uniforms = map(shrunk, (self._tokens, self._counts, self._uniforms))
        self._generated, self._is_broken = map(shrunk, (self._generated, self._is_broken))
        self._forbidden = None if self._forbidden is None else shrunk(self._forbidden)
        filler = slots - len(kept)
        self._rows = [*(self._rows[slot] for slot in kept), *[None] * filler]
        for numbers in (self._drawn, self._num_drawn, self._most):
            numbers[: len(kept)] = numbers[kept]
        self._slots = slots


@cache  # once, not for each shape
def _warn_of_no_capture(reason: str) -> None:
    log.warning("decode steps can't be captured as a CUDA graph and take longer: %s", reason)
