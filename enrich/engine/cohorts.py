"""Cohorts: the rows in flight on a CPU, in float32, grouped by when they came in.

The rows of a cohort are prefilled together and decoded in step, so they are about equally long, and attention looks at
no more positions than its cohort has filled. Everything but attention and the choice of tokens is computed for all
cohorts at once. A row that is done leaves at once and the last of its cohort moves to its place; when enough have
left, a new cohort comes in. So nothing is computed for rows that are done.

A row's bits do not depend on its neighbours: matrix products give the same for any multiple of 16 rows, and masked
positions behind the filled ones, in steps of 16, add exact zeros at the end of sums. Tests hold both.

Shapes: M rows of a cohort, H key-value heads, G queries of each, D head size, L positions, T prompt tokens, C hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from enrich.engine import sampling
from enrich.engine.forward import Forward
from enrich.engine.memory import TILE_ROWS
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams, always
from enrich.engine.stopping import StopStrings
from enrich.engine.waiting import Waiting

_LENGTH_STEP = 16  # positions by which the length that attention looks at grows
_LEAST_LENGTH = 32  # shorter sums are computed by another kernel
_COHORT_ROWS = 32  # the most: rows of unlike length, sorted, are better apart
_REFILL = 4  # new rows come in once this part of the slots is free
_PREFILL_TOKENS = 1024  # computed at once: enough for the matrix kernels, few enough for the cache of the processor
_PREFILL_SCORES = 4 << 20  # attention scores computed at once, 16 MiB


@dataclass(slots=True)
class _Row:
    index: int
    request: Request
    most: int  # tokens


class _Cohort:
    """Rows that came in together: their keys and values, and what they have drawn."""

    def __init__(self, forward: Forward, rows: list[_Row], params: SamplingParams) -> None:
        self._forward = forward
        self.rows = rows
        self._heads, self._size = forward.kv_heads, forward.head_size
        lengths = [len(row.request.prompt_token_ids) for row in rows]
        longest = _stepped(max(lengths) - 1 + max(row.most for row in rows))
        self._cache = self._new_cache(longest)
        self._mask = torch.full((len(rows), self._heads, longest), -torch.inf)
        for place, length in enumerate(lengths):
            self._mask[place, :, : length - 1] = 0
        self.drawn = 0  # tokens that each row has
        self.tokens = np.array([row.request.prompt_token_ids[-1] for row in rows])  # of each row the last, not decoded
        self.positions = np.array(lengths) - 1  # where it goes
        self.generated = np.zeros((len(rows), params.max_new_tokens), dtype=np.int64)
        self._most = np.array([row.most for row in rows])
        seeds = torch.tensor([[row.request.seed] for row in rows])
        attempts = torch.tensor([[row.request.attempt] for row in rows])
        self._forbidden = sampling.forbidden_mask([row.request for row in rows], forward.vocabulary)
        self._uniforms = sampling.uniform(seeds, attempts, torch.arange(params.max_new_tokens)).numpy()
        self._filled = _stepped(max(lengths))
        self._look()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def uniforms(self) -> np.ndarray:
        """The numbers that the next tokens are drawn with [M]."""
        return self._uniforms[: len(self), self.drawn]

    @property
    def forbidden(self) -> Tensor | None:
        """Where tokens must not be drawn [M, vocabulary]; None if there are none."""
        return None if self._forbidden is None else self._forbidden[: len(self)]

    def _new_cache(self, length: int) -> Tensor:
        # numpy leaves zeros to the kernel: memory is only taken for the positions that are reached.
        shape = (self._forward.layers, 2, len(self), self._heads, length, self._size)
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))

    def _look(self) -> None:
        """Lay out the views that a step uses, after the rows or the filled length have changed."""
        entries, length = len(self) * self._heads, self._cache.shape[4]
        self._bias = self._mask.view(-1, 1, length)[:entries, :, : self._filled]
        self._flat_mask = self._mask.view(-1)
        self._starts = torch.arange(entries) * length
        self._views = []
        for keys, values in self._cache.view(self._forward.layers, 2, -1, length, self._size):
            lines = keys.view(-1, self._size), values.view(-1, self._size)
            self._views.append((*lines, keys[:entries, : self._filled].mT, values[:entries, : self._filled]))

    def prefill(self) -> int:
        """Compute the keys and values of all prompts but their last tokens; return how many positions that took."""
        computed, first = 0, 0
        order = range(len(self))
        while first < len(self):
            last, tokens, width = first, 0, 0
            for place in order[first:]:
                length = int(self.positions[place])
                wider = max(width, length)
                rows = last + 1 - first
                scores = rows * self._heads * self._forward.group * wider * wider
                if last > first and (tokens + length > _PREFILL_TOKENS or scores > _PREFILL_SCORES):
                    break
                last, tokens, width = place + 1, tokens + length, wider
            if tokens:
                computed += self._prefill(first, last, _stepped(width))
            first = last
        return computed

    def _prefill(self, first: int, last: int, width: int) -> int:
        """Compute the prompts from `first` to `last`, their tokens one after the other, without padding."""
        forward, heads, group = self._forward, self._heads, self._forward.group
        lengths = self.positions[first:last]
        total = int(lengths.sum())
        ids = [token for row in self.rows[first:last] for token in row.request.prompt_token_ids[:-1]]
        filler = -total % TILE_ROWS
        owners = torch.from_numpy(np.repeat(np.arange(last - first), lengths))  # [T]
        columns = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))
        entries = owners[:, None] * heads + torch.arange(heads)  # [T, H]
        places = ((first * heads + entries) * self._cache.shape[4] + columns[:, None]).view(-1)
        # Where queries stand among those of all rows, padded: [T, H, G]
        spots = ((entries[:, :, None] * group + torch.arange(group)) * width + columns[:, None, None]).view(-1)
        causal = torch.full((width, width), -torch.inf).triu_(1).repeat(group, 1)
        rows = slice(first * heads, last * heads)
        padded = torch.zeros((last - first) * heads * group * width, self._size)
        attended = torch.zeros(total + filler, heads * group * self._size)
        hidden = forward.embed(torch.tensor(ids + [0] * filler), torch.cat([columns, columns.new_zeros(filler)]))
        for layer, (key_lines, value_lines, keys, values) in enumerate(self._views):
            new_queries, new_keys, new_values = forward.project(layer, hidden)
            key_lines.index_copy_(0, places, new_keys[:total].reshape(-1, self._size))
            value_lines.index_copy_(0, places, new_values[:total].reshape(-1, self._size))
            if layer == forward.layers - 1:
                break  # of the last layer nothing but these is needed
            padded.index_copy_(0, spots, new_queries[:total].reshape(-1, self._size))
            queries = padded.view(-1, group * width, self._size)
            scores = torch.baddbmm(causal, queries, keys[rows, :, :width], alpha=forward.scale)
            outputs = torch.bmm(torch.softmax(scores, dim=2), values[rows, :width])
            attended[:total] = outputs.view(-1, self._size).index_select(0, spots).view(total, -1)
            hidden = forward.advance(layer, hidden, attended)
        return total + filler

    def begin_step(self) -> None:
        """Make room for the keys and values of the tokens that are now decoded."""
        reached = int(self.positions.max()) + 1
        if reached > self._filled:
            self._filled = _stepped(reached)
            self._look()
        self._places = self._starts + torch.from_numpy(self.positions).repeat_interleave(self._heads)
        self._flat_mask.index_fill_(0, self._places, 0.0)

    def attend(self, layer: int, queries: Tensor, new_keys: Tensor, new_values: Tensor) -> Tensor:
        """Return what one token of each row sees: [M, H·G·D]."""
        key_lines, value_lines, keys, values = self._views[layer]
        key_lines.index_copy_(0, self._places, new_keys.reshape(-1, self._size))
        value_lines.index_copy_(0, self._places, new_values.reshape(-1, self._size))
        queries = queries.reshape(-1, self._forward.group, self._size)
        scores = torch.baddbmm(self._bias, queries, keys, alpha=self._forward.scale)
        return torch.bmm(torch.softmax(scores, dim=2), values).view(len(self), -1)

    def accept(
        self, tokens: np.ndarray, ends: np.ndarray, stops: StopStrings | None
    ) -> Iterator[tuple[int, Completion]]:
        """Take the tokens drawn [M]; yield the rows that are done, and let them go."""
        self.generated[: len(self), self.drawn] = tokens
        self.drawn += 1
        self.tokens = tokens.copy()
        self.positions += 1
        ended = np.isin(tokens, ends)
        complete = np.zeros_like(ended)
        if stops is not None:
            for place in np.flatnonzero(stops.may_complete(tokens) & ~ended):
                complete[place] = stops.complete(self.generated[place, : self.drawn].tolist())
        done = np.flatnonzero(ended | complete | (self._most <= self.drawn))
        for place in done[::-1]:  # from the end, so that the row that moves is one that goes on
            row, at_end, stopped = self.rows[place], bool(ended[place]), bool(ended[place] or complete[place])
            ids = self.generated[place, : self.drawn - at_end].tolist()
            self._drop(int(place))
            yield row.index, Completion(tuple(ids), "stop" if stopped else "length")
        if len(done) and self.rows:
            if 2 * len(self) <= self._cache.shape[2]:
                self._give_room()
            self._look()

    def _give_room(self) -> None:
        """Let go of the memory of rows that have left."""
        cache = self._new_cache(self._cache.shape[4])
        cache[..., : self._filled, :] = self._cache[:, :, : len(self), :, : self._filled]
        self._cache, self._mask = cache, self._mask[: len(self)].clone()

    def _drop(self, place: int) -> None:
        last = len(self) - 1
        if place != last:
            self._cache[:, :, place, :, : self._filled] = self._cache[:, :, last, :, : self._filled]
            self._mask[place] = self._mask[last]
            if self._forbidden is not None:
                self._forbidden[place] = self._forbidden[last]
            self.rows[place] = self.rows[last]
            for values in (self.tokens, self.positions, self._most, self.generated, self._uniforms):
                values[place] = values[last]
        self.rows.pop()
        self.tokens, self.positions, self._most = self.tokens[:last], self.positions[:last], self._most[:last]


class CohortBatch:
    """All rows in flight of one bucket."""

    def __init__(
        self,
        forward: Forward,
        params: SamplingParams,
        stats: EngineStats,
        ends: set[int],
        slots: int,
        stops: StopStrings | None = None,
    ) -> None:
        self._forward, self._params, self._stats, self._slots = forward, params, stats, slots
        self._ends = np.array(sorted(ends), dtype=np.int64)
        self._stops = stops
        self._cohorts: list[_Cohort] = []
        self._coming: list[_Row] = []

    def give_back(self) -> list[tuple[int, Request]]:
        """Return the rows that have not finished, as if they had never been taken."""
        rows = [*self._coming, *(row for cohort in self._cohorts for row in cohort.rows)]
        taken = (row.request.prompt_token_ids for cohort in self._cohorts for row in cohort.rows)
        self._stats.count(prompt_tokens=-sum(map(len, taken)))
        return [(row.index, row.request) for row in rows]

    @torch.inference_mode()
    def run(
        self,
        waiting: Waiting,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool] = always,
    ) -> Iterator[tuple[int, Completion]]:
        """Take rows from `waiting` until there are none left, and yield them as they finish."""
        while not should_stop():
            active = sum(map(len, self._cohorts))
            enough = not active or (self._slots - active) * _REFILL >= self._slots
            if waiting and enough and may_begin():
                self._admit(waiting, self._slots - active)
            if not self._cohorts:
                return
            yield from self._step()

    def _admit(self, waiting: Waiting, most: int) -> None:
        limit = self._params.max_new_tokens
        # Sorted, so that the rows of a cohort are about equally long.
        for index, request in sorted(waiting.take(most), key=lambda row: len(row[1].prompt_token_ids)):
            self._coming.append(_Row(index, request, min(limit, request.max_new_tokens or limit)))
        while self._coming:
            cohort = _Cohort(self._forward, self._coming[:_COHORT_ROWS], self._params)
            computed = cohort.prefill() + len(cohort)
            self._stats.count(int(cohort.positions.sum()) + len(cohort), computed)
            self._cohorts.append(cohort)
            del self._coming[: len(cohort)]

    def _step(self) -> Iterator[tuple[int, Completion]]:
        """Draw the next token of every row."""
        forward, cohorts = self._forward, self._cohorts
        bounds = np.cumsum([0, *map(len, cohorts)]).tolist()
        parts = list(zip(cohorts, bounds, bounds[1:], strict=False))
        active, filler = bounds[-1], -bounds[-1] % TILE_ROWS
        none = np.zeros(filler, dtype=np.int64)
        hidden = forward.embed(
            torch.from_numpy(np.concatenate([*(cohort.tokens for cohort in cohorts), none])),
            torch.from_numpy(np.concatenate([*(cohort.positions for cohort in cohorts), none])),
        )
        attended = hidden.new_zeros(active + filler, forward.kv_heads * forward.group * forward.head_size)
        for cohort in cohorts:
            cohort.begin_step()
        for layer in range(forward.layers):
            queries, keys, values = forward.project(layer, hidden)
            for cohort, begin, end in parts:
                attended[begin:end] = cohort.attend(layer, queries[begin:end], keys[begin:end], values[begin:end])
            hidden = forward.advance(layer, hidden, attended)
        logits = forward.logits(hidden)[:active]
        for cohort, begin, end in parts:
            if cohort.forbidden is not None:
                logits[begin:end].masked_fill_(cohort.forbidden, -torch.inf)
            generated = torch.from_numpy(cohort.generated[: len(cohort), : cohort.drawn])
            sampling.ban_repeats_(logits[begin:end], generated, self._params.no_repeat_ngram)
            sampling.penalize_(logits[begin:end], generated, self._params.repetition_penalty)
        uniforms = torch.from_numpy(np.concatenate([cohort.uniforms for cohort in cohorts]))
        tokens = sampling.draw(logits, uniforms, self._params).numpy()
        self._stats.count(decode_positions=active + filler)
        for cohort, begin, end in parts:
            for index, completion in cohort.accept(tokens[begin:end], self._ends, self._stops):
                self._stats.count(generated_tokens=len(completion.token_ids))
                yield index, completion
        self._cohorts = [cohort for cohort in cohorts if cohort.rows]
        self._stats.note_slots(active + filler, sum(map(len, self._cohorts)))


def _stepped(length: int) -> int:
    return max(_LEAST_LENGTH, -(-length // _LENGTH_STEP) * _LENGTH_STEP)
