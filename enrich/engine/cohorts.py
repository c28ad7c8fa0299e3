"""Cohorts: the rows in flight on a CPU, grouped by when they came in.

The rows of a cohort are prefilled together and decoded in step, so they are about equally long, and attention looks at
no more positions than its cohort has filled. Everything but attention and the choice of tokens is computed for all
cohorts at once. A row that is done leaves at once and the last of its cohort moves to its place; when enough have
left, a new cohort comes in. So nothing is computed for rows that are done.

Attention of one token is two weighted sums: of the lines of its values, weighted by their shares, and, keys being
stored with a block of positions in a line, of such lines weighted by the numbers of its query. torch has a kernel for
weighted sums of lines, `embedding_bag`, made for reading large tables: it goes through keys and values several times as
fast as matrix products do.

A row's bits do not depend on its neighbours: matrix products give the same for any multiple of a few rows, each sum of
lines is one loop, and masked positions behind the filled ones, in whole blocks, add exact zeros at the end of sums.
Tests hold all three.

Shapes: M rows of a cohort, H key-value heads, G queries of each, D head size, L positions, B those of a block, T prompt
tokens, C hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from enrich.engine import sampling
from enrich.engine.forward import Forward
from enrich.engine.pool import Pool
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams, always
from enrich.engine.stopping import StopStrings
from enrich.engine.waiting import Waiting

_WORDS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
_BLOCK = 32  # positions: a line of keys
_COHORT_ROWS = 64  # the most
_LEAST_COHORT = 16  # rows that are computed together though they are of unlike length
_REFILL = 4  # new rows come in once this part of the slots is free
_PREFILL_TOKENS = 1024  # computed at once: enough for the matrix kernels, few enough for the cache of the processor
_PREFILL_SCORES = 4 << 20  # attention scores computed at once, 16 MiB


@dataclass(slots=True)
class _Row:
    index: int
    request: Request
    most: int  # tokens


class _Lines:
    """Where `embedding_bag` finds the lines of each sum: those of entry after entry, M·H of them.

    Keys are [M, H, L / B, D, B] and values [M, H, L, D], of which the first `filled` positions are looked at.
    """

    def __init__(self, entries: int, group: int, size: int, length: int, filled: int) -> None:
        self._group, self._filled = group, filled
        blocks = filled // _BLOCK
        self._keys_of_an_entry, self._values_of_an_entry = group * blocks * size, group * filled
        entry = torch.arange(entries, dtype=torch.int32)[:, None, None]
        keys = entry * (length // _BLOCK * size) + torch.arange(blocks * size, dtype=torch.int32)
        self._keys = keys.expand(-1, group, -1).reshape(-1)
        values = entry * length + torch.arange(filled, dtype=torch.int32)
        self._values = values.expand(-1, group, -1).reshape(-1)
        self._key_sums = torch.arange(entries * group * blocks, dtype=torch.int32) * size
        self._value_sums = torch.arange(entries * group, dtype=torch.int32) * filled

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the products of queries [entries·G, D] with the filled keys: [entries·G, filled]."""
        queried = len(queries)
        blocks = self._filled // _BLOCK
        lines = self._keys[: queried // self._group * self._keys_of_an_entry]
        weights = queries[:, None].expand(-1, blocks, -1).reshape(-1)
        return _sums(keys.view(-1, _BLOCK), lines, self._key_sums[: queried * blocks], weights).view(queried, -1)

    def gather(self, shares: Tensor, values: Tensor) -> Tensor:
        """Return the sums of the filled values, weighted by shares [entries·G, filled]: [entries·G, D]."""
        queried = len(shares)
        lines = self._values[: queried // self._group * self._values_of_an_entry]
        return _sums(values.view(-1, values.shape[-1]), lines, self._value_sums[:queried], shares.view(-1))


def _sums(lines: Tensor, indices: Tensor, begins: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of lines: those at `indices` from each begin up to the next."""
    return torch.embedding_bag(lines, indices, begins, False, 0, False, weights)[0]


class _Shared:
    """The tokens of several prompts, each of those that prompts begin with in common only once: N of T tokens.

    What a model makes of a token follows from it and those before it.
    """

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        known: dict[tuple[int, int], int] = {}  # by the number of the token before and the token
        numbers: list[int] = []
        firsts: list[int] = []
        tokens: list[int] = []
        for prompt in prompts:
            number = -1
            for token in prompt:
                before = number
                number = known.setdefault((before, token), len(tokens))
                if number == len(tokens):
                    firsts.append(len(numbers))
                    tokens.append(token)
                numbers.append(number)
        self.tokens = torch.tensor(tokens)  # [N]
        self.firsts = torch.tensor(firsts)  # where each first stands among all [N]
        self.of_tokens = torch.tensor(numbers)  # which of the N each of all tokens is [T]


class _Cohort:
    """Rows that came in together: their keys and values, and what they have drawn."""

    def __init__(self, forward: Forward, pool: Pool, rows: list[_Row], params: SamplingParams) -> None:
        self._forward, self._pool = forward, pool
        self.rows = rows
        self._heads, self._size = forward.kv_heads, forward.head_size
        lengths = [len(row.request.prompt_token_ids) for row in rows]
        self._longest = _stepped(max(lengths) - 1 + max(row.most for row in rows))
        self._keys, self._values = self._new_cache()
        self._mask = torch.full((len(rows), self._longest), -torch.inf, dtype=forward.dtype)
        for place, length in enumerate(lengths):
            self._mask[place, : length - 1] = 0
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

    def _new_cache(self) -> tuple[Tensor, Tensor]:
        """Return room for keys [layers, M, H, L / B, D, B] and values [layers, M, H, L, D]."""
        entries = (self._forward.layers, len(self), self._heads)
        keys = self._pool.take((*entries, self._longest // _BLOCK, self._size, _BLOCK), self._forward.dtype)
        return keys, self._pool.take((*entries, self._longest, self._size), self._forward.dtype)

    def _look(self) -> None:
        """Lay out what a step uses, after the filled length or the room has changed."""
        entries = self._keys.shape[1] * self._heads
        self._lines = _Lines(entries, self._forward.group, self._size, self._longest, self._filled)
        starts = torch.arange(entries)
        size = torch.arange(self._size)
        self._key_starts = (starts * self._longest * self._size)[:, None] + size * _BLOCK
        self._value_starts = starts * self._longest
        words = _WORDS[self._keys.dtype]  # numbers of 16 bits are scattered a hundred times as fast as words
        self._views = [
            (keys.view(-1).view(words), keys, values.view(-1, self._size), values)
            for keys, values in zip(self._keys, self._values, strict=True)
        ]

    def prefill(self) -> int:
        """Compute the keys and values of all prompts but their last tokens; return how many positions that fills."""
        filled, first = 0, 0
        while first < len(self):
            last, tokens, width = first, 0, 0
            before: tuple[int, ...] = ()
            for place in range(first, len(self)):
                prompt = self.rows[place].request.prompt_token_ids
                new = int(self.positions[place]) - _alike(before, prompt)
                wider = max(width, int(self.positions[place]))
                scores = (last + 1 - first) * self._heads * self._forward.group * wider * wider
                if last > first and (tokens + new > _PREFILL_TOKENS or scores > _PREFILL_SCORES):
                    break
                last, tokens, width, before = place + 1, tokens + new, wider, prompt
            if width:
                filled += self._prefill(first, last, _stepped(width))
            first = last
        return filled

    def _prefill(self, first: int, last: int, width: int) -> int:
        """Compute the prompts from `first` to `last`, their tokens one after the other, without padding.

        What prompts begin with in common is computed once, in the first row that has it. Attention is computed in
        float32, padded to `width`.
        """
        forward, heads, group, size = self._forward, self._heads, self._forward.group, self._size
        num, lengths = last - first, self.positions[first:last]
        prompts = [row.request.prompt_token_ids[:-1] for row in self.rows[first:last]]
        shared = _Shared(prompts)
        filler = -len(shared.tokens) % forward.tile
        owners = torch.from_numpy(np.repeat(np.arange(num), lengths))  # [T]
        columns = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))
        entries = owners[:, None] * heads + torch.arange(heads)  # [T, H]
        places = (entries * width + columns[:, None]).view(-1)
        # Where queries stand among those of all rows, padded: [N, H, G]
        entries, own_columns = entries[shared.firsts], columns[shared.firsts]
        spots = ((entries[:, :, None] * group + torch.arange(group)) * width + own_columns[:, None, None]).view(-1)
        causal = torch.full((width, width), -torch.inf).triu_(1).repeat(group, 1)
        # What lies in the padding is seen by nobody.
        padded = [self._pool.take((num * heads, n * width, size), torch.float32) for n in (group, 1, 1)]
        queries, keys, values = padded
        computed = len(shared.tokens)
        attended = torch.zeros(computed + filler, heads * group * size, dtype=forward.dtype)
        tokens = torch.cat([shared.tokens, shared.tokens.new_zeros(filler)])
        hidden, where = forward.embed(tokens, torch.cat([own_columns, own_columns.new_zeros(filler)]))
        for layer in range(forward.layers):
            new_queries, new_keys, new_values = forward.project(layer, hidden, where)
            queries.view(-1, size).index_copy_(0, spots, new_queries[:computed].reshape(-1, size).float())
            for room, new in ((keys, new_keys), (values, new_values)):
                of_all = new.index_select(0, shared.of_tokens)
                room.view(-1, size).index_copy_(0, places, of_all.view(-1, size).float())
            blocks = keys.to(forward.dtype).view(num, heads, -1, _BLOCK, size).mT
            self._keys[layer, first:last, :, : width // _BLOCK] = blocks
            self._values[layer, first:last, :, :width] = values.view(num, heads, width, size)
            if layer == forward.layers - 1:
                break  # of the last layer nothing but these is needed
            scores = torch.baddbmm(causal, queries, keys.mT, alpha=forward.scale)
            outputs = torch.bmm(torch.softmax(scores, dim=2), values)
            attended[:computed] = outputs.view(-1, size).index_select(0, spots).view(computed, -1)
            hidden = forward.advance(layer, hidden, attended)
        self._pool.give_back(*padded)
        return len(owners) + filler

    def begin_step(self) -> None:
        """Make room for the keys and values of the tokens that are now decoded."""
        reached = int(self.positions.max()) + 1
        if reached > self._filled:
            self._filled = _stepped(reached)
            self._look()
        positions = torch.from_numpy(self.positions)
        self._mask.view(-1).index_fill_(0, torch.arange(len(self)) * self._longest + positions, 0.0)
        entries, of_entries = len(self) * self._heads, positions.repeat_interleave(self._heads)
        in_blocks = of_entries // _BLOCK * (self._size * _BLOCK) + of_entries % _BLOCK
        self._key_places = (self._key_starts[:entries] + in_blocks[:, None]).view(-1)
        self._value_places = self._value_starts[:entries] + of_entries

    def attend(self, layer: int, queries: Tensor, new_keys: Tensor, new_values: Tensor) -> Tensor:
        """Return what one token of each row sees: [M, H·G·D]."""
        key_numbers, keys, value_lines, values = self._views[layer]
        key_numbers.scatter_(0, self._key_places, new_keys.reshape(-1).view(key_numbers.dtype))
        value_lines.index_copy_(0, self._value_places, new_values.reshape(-1, self._size))
        scores = self._lines.score(queries.reshape(-1, self._size), keys).view(len(self), -1, self._filled)
        mask = self._mask[: len(self), None, : self._filled]
        shares = torch.softmax(torch.add(mask, scores, alpha=self._forward.scale), dim=2)
        return self._lines.gather(shares.view(-1, self._filled), values).view(len(self), -1)

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
        if self.rows and 2 * len(self) <= self._keys.shape[1]:
            self._give_room()

    def _give_room(self) -> None:
        """Let go of the memory of rows that have left."""
        old_keys, old_values = self._keys, self._values
        self._keys, self._values = self._new_cache()
        blocks = self._filled // _BLOCK
        self._keys[:, :, :, :blocks] = old_keys[:, : len(self), :, :blocks]
        self._values[:, :, :, : self._filled] = old_values[:, : len(self), :, : self._filled]
        self._mask = self._mask[: len(self)].clone()
        self._pool.give_back(old_keys, old_values)
        self._look()

    def leave(self) -> None:
        """Give back the memory, once all rows are done."""
        self._pool.give_back(self._keys, self._values)

    def _drop(self, place: int) -> None:
        last = len(self) - 1
        if place != last:
            blocks = self._filled // _BLOCK
            self._keys[:, place, :, :blocks] = self._keys[:, last, :, :blocks]
            self._values[:, place, :, : self._filled] = self._values[:, last, :, : self._filled]
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
        pool: Pool,
        params: SamplingParams,
        stats: EngineStats,
        ends: set[int],
        slots: int,
        stops: StopStrings | None = None,
    ) -> None:
        self._forward, self._pool, self._params, self._stats, self._slots = forward, pool, params, stats, slots
        self._scores = pool.take((slots, forward.vocabulary), torch.float32)
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

    @torch.inference_mode()
    def stream(self, request: Request) -> Iterator[int]:
        """Yield the tokens of one text as they are drawn."""
        self._admit(Waiting([request]), 1)
        cohort, told = self._cohorts[0], 0
        while self._cohorts:
            done = list(self._step())
            tokens = done[0][1].token_ids if done else cohort.generated[0, : cohort.drawn].tolist()
            yield from tokens[told:]
            told = len(tokens)

    def _admit(self, waiting: Waiting, most: int) -> None:
        limit = self._params.max_new_tokens
        # The rows of a cohort are about equally long, and those that begin alike lie together.
        for index, request in sorted(waiting.take(most), key=lambda row: _order(row[1].prompt_token_ids)):
            self._coming.append(_Row(index, request, min(limit, request.max_new_tokens or limit)))
        while self._coming:
            cohort = _Cohort(self._forward, self._pool, self._coming[: self._alike()], self._params)
            computed = cohort.prefill() + len(cohort)
            self._stats.count(int(cohort.positions.sum()) + len(cohort), computed)
            self._cohorts.append(cohort)
            del self._coming[: len(cohort)]

    def _alike(self) -> int:
        """Return how many of the coming rows are about equally long: at the first block's end a cohort ends."""
        first = _stepped(len(self._coming[0].request.prompt_token_ids))
        lengths = (len(row.request.prompt_token_ids) for row in self._coming)
        alike = sum(1 for _ in takewhile(lambda length: _stepped(length) == first, lengths))
        return min(max(alike, _LEAST_COHORT), _COHORT_ROWS)

    def _step(self) -> Iterator[tuple[int, Completion]]:
        """Draw the next token of every row."""
        forward, cohorts = self._forward, self._cohorts
        bounds = np.cumsum([0, *map(len, cohorts)]).tolist()
        parts = list(zip(cohorts, bounds, bounds[1:], strict=False))
        active, filler = bounds[-1], -bounds[-1] % forward.tile
        none = np.zeros(filler, dtype=np.int64)
        hidden, where = forward.embed(
            torch.from_numpy(np.concatenate([*(cohort.tokens for cohort in cohorts), none])),
            torch.from_numpy(np.concatenate([*(cohort.positions for cohort in cohorts), none])),
        )
        attended = hidden.new_zeros(active + filler, forward.kv_heads * forward.group * forward.head_size)
        for cohort in cohorts:
            cohort.begin_step()
        for layer in range(forward.layers):
            queries, keys, values = forward.project(layer, hidden, where)
            for cohort, begin, end in parts:
                attended[begin:end] = cohort.attend(layer, queries[begin:end], keys[begin:end], values[begin:end])
            hidden = forward.advance(layer, hidden, attended)
        logits = self._scores[:active].copy_(forward.logits(hidden)[:active])
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
        for cohort in cohorts:
            if not cohort.rows:
                cohort.leave()
        self._stats.note_slots(active + filler, sum(map(len, self._cohorts)))


def _order(prompt: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return _stepped(len(prompt)), prompt


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two prompts begin with in common, the last of the second not counted."""
    pairs = zip(one[:-1], other[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _stepped(length: int) -> int:
    return max(1, -(-length // _BLOCK)) * _BLOCK
