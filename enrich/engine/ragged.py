"""Ragged batches: the rows in flight on a CPU, of unlike length, each as far as it is.

A prompt is computed up to its last token in a prefill, several rows at once; the last token is the first that is
decoded, beside rows that are further on. A row that is done leaves at once; when enough have left, new ones come in.
So nothing is computed for rows that are done, and nothing for the sake of a common length.

A row's bits do not depend on its neighbours: matrix products give the same for any multiple of a few rows, and
attention sees to it as well (`attention`). Tests hold it.

Shapes: A rows in flight, H key-value heads, G queries of each, D head size, T prompt tokens, C hidden.
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
from enrich.engine.paged import PagedCache, stepped
from enrich.engine.pool import Pool
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams, always
from enrich.engine.stopping import StopStrings
from enrich.engine.waiting import Waiting

_REFILL = 4  # new rows come in once this part of the slots is free
_PREFILL_TOKENS = 1024  # computed at once: enough for the matrix kernels, few enough for the cache of the processor
_PREFILL_SCORES = 4 << 20  # attention scores computed at once, 16 MiB


@dataclass(slots=True)
class _Row:
    index: int
    request: Request
    slot: int


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


class RaggedBatch:
    """The rows in flight of one bucket.

    What is known of the rows stands in arrays, those of the rows in flight at the beginning, in the order of `rows`;
    their keys and values stay in a slot each.
    """

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
        self._forward, self._pool, self._params, self._stats = forward, pool, params, stats
        self._ends = np.array(sorted(ends), dtype=np.int64)
        self._stops = stops
        self.rows: list[_Row] = []
        self._coming: list[tuple[int, Request]] = []
        self._free = list(range(slots))[::-1]
        self._num_slots = slots
        self._cache: PagedCache | None = None  # once it is known how long rows may become
        self._scores: Tensor | None = None  # [S, vocabulary], once all are wanted
        most = slots + forward.tile  # filler rows stand behind those in flight
        self._slots = np.zeros(most, dtype=np.int64)
        self._tokens = np.zeros(most, dtype=np.int64)  # the last of each row, not decoded yet
        self._positions = np.zeros(most, dtype=np.int64)  # where it goes
        self._drawn = np.zeros(most, dtype=np.int64)  # how many tokens each row has
        self._most = np.zeros(most, dtype=np.int64)  # how many it may have
        self._generated = np.zeros((slots, params.max_new_tokens), dtype=np.int64)
        self._uniforms = np.zeros((slots, params.max_new_tokens))
        # Where tokens must not be drawn [S, vocabulary]; None where there are none.
        self._forbidden: Tensor | None = None

    def give_back(self) -> list[tuple[int, Request]]:
        """Return the rows that have not finished, as if they had never been taken."""
        self._stats.count(prompt_tokens=-sum(len(row.request.prompt_token_ids) for row in self.rows))
        return [*self._coming, *((row.index, row.request) for row in self.rows)]

    @torch.inference_mode()
    def run(
        self,
        waiting: Waiting,
        should_stop: Callable[[], bool],
        may_begin: Callable[[], bool] = always,
    ) -> Iterator[tuple[int, Completion]]:
        """Take rows from `waiting` until there are none left, and yield them as they finish."""
        while not should_stop():
            enough = not self.rows or len(self._free) * _REFILL >= self._num_slots
            if waiting and enough and may_begin():
                self._admit(waiting, len(self._free))
            if not self.rows:
                break
            yield from self._step()
        if self._cache is not None and not self.rows:
            self._cache.give_back()
            self._cache = None

    @torch.inference_mode()
    def stream(self, request: Request) -> Iterator[int]:
        """Yield the tokens of one text as they are drawn."""
        self._admit(Waiting([request]), 1)
        told = 0
        while self.rows:
            done = list(self._step())
            tokens = done[0][1].token_ids if done else self._generated[0, : self._drawn[0]].tolist()
            yield from tokens[told:]
            told = len(tokens)

    def _admit(self, waiting: Waiting, most: int) -> None:
        """Prefill the next rows into free slots. Prompts that begin alike and are about equally long lie together."""
        self._coming = sorted(waiting.take(most), key=lambda row: _order(row[1].prompt_token_ids))
        if not self._coming:  # another thread has taken the last ones
            return
        requests = [request for _, request in self._coming]
        limits = [
            min(self._params.max_new_tokens, request.max_new_tokens or self._params.max_new_tokens)
            for request in requests
        ]
        longest = max(len(one.prompt_token_ids) - 1 + limit for one, limit in zip(requests, limits, strict=True))
        if self._cache is None:
            self._cache = PagedCache(self._forward, self._pool, self._num_slots, longest)
        self._cache.make_room(longest)
        slots = self._free[-len(requests) :][::-1]
        computed = self._prefill(self._cache, requests, slots)
        begin, end = len(self.rows), len(self.rows) + len(requests)
        lengths = [len(request.prompt_token_ids) for request in requests]
        self._slots[begin:end] = slots
        self._tokens[begin:end] = [request.prompt_token_ids[-1] for request in requests]
        self._positions[begin:end] = np.array(lengths) - 1
        self._drawn[begin:end] = 0
        self._most[begin:end] = limits
        seeds = torch.tensor([[request.seed] for request in requests])
        attempts = torch.tensor([[request.attempt] for request in requests])
        steps = torch.arange(self._params.max_new_tokens)
        self._uniforms[begin:end] = sampling.uniform(seeds, attempts, steps).numpy()
        mask = sampling.forbidden_mask(requests, self._forward.vocabulary)
        if mask is not None and self._forbidden is None:
            self._forbidden = torch.zeros(self._num_slots, self._forward.vocabulary, dtype=torch.bool)
        if self._forbidden is not None:
            self._forbidden[begin:end] = False if mask is None else mask
        self.rows += [_Row(*row, slot) for row, slot in zip(self._coming, slots, strict=True)]
        del self._free[-len(requests) :]
        self._coming = []
        self._stats.count(sum(lengths), computed + len(requests))

    def _prefill(self, cache: PagedCache, requests: Sequence[Request], slots: Sequence[int]) -> int:
        """Compute the keys and values of all prompts but their last tokens; return how many positions that fills."""
        prompts = [request.prompt_token_ids[:-1] for request in requests]
        filled, first = 0, 0
        while first < len(prompts):
            last, tokens, width = first, 0, 0
            before: tuple[int, ...] = ()
            for prompt in prompts[first:]:
                new = len(prompt) - _alike(before, prompt)
                wider = max(width, len(prompt))
                scores = (last + 1 - first) * self._forward.kv_heads * self._forward.group * wider * wider
                if last > first and (tokens + new > _PREFILL_TOKENS or scores > _PREFILL_SCORES):
                    break
                last, tokens, width, before = last + 1, tokens + new, wider, prompt
            if width:
                filled += self._prefill_together(cache, prompts[first:last], slots[first:last], stepped(width))
            first = last
        return filled

    def _prefill_together(
        self, cache: PagedCache, prompts: Sequence[tuple[int, ...]], slots: Sequence[int], width: int
    ) -> int:
        """Compute some prompts, their tokens one after the other, without padding.

        What prompts begin with in common is computed once, in the first row that has it. Attention is computed padded
        to `width`.
        """
        forward, heads, group, size = (
            self._forward,
            self._forward.kv_heads,
            self._forward.group,
            self._forward.head_size,
        )
        num, lengths = len(prompts), np.array([len(prompt) for prompt in prompts])
        cache.begin_prompts(slots, lengths.tolist(), width)
        shared = _Shared(prompts)
        filler = -len(shared.tokens) % forward.tile
        owners = torch.from_numpy(np.repeat(np.arange(num), lengths))  # [T]
        columns = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))
        entries = owners[:, None] * heads + torch.arange(heads)  # [T, H]
        places = (entries * width + columns[:, None]).view(-1)
        # Where queries stand among those of all rows, padded: [N, H, G]
        entries, own_columns = entries[shared.firsts], columns[shared.firsts]
        spots = ((entries[:, :, None] * group + torch.arange(group)) * width + own_columns[:, None, None]).view(-1)
        causal = torch.full((width, width), -torch.inf, dtype=forward.dtype).triu_(1).repeat(group, 1)
        # What lies in the padding is seen by nobody.
        padded = [self._pool.take((num * heads, n * width, size), forward.dtype) for n in (group, 1, 1)]
        queries, keys, values = padded
        computed = len(shared.tokens)
        attended = torch.zeros(computed + filler, heads * group * size, dtype=forward.dtype)
        tokens = torch.cat([shared.tokens, shared.tokens.new_zeros(filler)])
        hidden, where = forward.embed(tokens, torch.cat([own_columns, own_columns.new_zeros(filler)]))
        for layer in range(forward.layers):
            new_queries, new_keys, new_values = forward.project(layer, hidden, where)
            queries.view(-1, size).index_copy_(0, spots, new_queries[:computed].reshape(-1, size))
            for room, new in ((keys, new_keys), (values, new_values)):
                of_all = new.index_select(0, shared.of_tokens)
                room.view(-1, size).index_copy_(0, places, of_all.view(-1, size))
            cache.store(layer, keys.view(num, heads, width, size), values.view(num, heads, width, size))
            if layer == forward.layers - 1:
                break  # of the last layer nothing but these is needed
            scores = torch.baddbmm(causal, queries, keys.mT, alpha=forward.scale)
            outputs = torch.bmm(torch.softmax(scores, dim=2), values)
            attended[:computed] = outputs.view(-1, size).index_select(0, spots).view(computed, -1)
            hidden = forward.advance(layer, hidden, attended)
        self._pool.give_back(*padded)
        return len(owners) + filler

    def _step(self) -> Iterator[tuple[int, Completion]]:
        """Draw the next token of every row."""
        forward, active = self._forward, len(self.rows)
        assert self._cache is not None
        filled = active + -active % forward.tile
        self._tokens[active:filled], self._positions[active:filled] = 0, 0
        hidden, where = forward.embed(
            torch.from_numpy(self._tokens[:filled]), torch.from_numpy(self._positions[:filled])
        )
        self._cache.begin_step(self._slots[:active], self._positions[:active])
        hidden = forward.decode(hidden, where, self._cache.lines, self._cache.seen)
        tokens = self._choose(forward.finish(hidden))
        self._stats.count(decode_positions=filled)
        for index, completion in self._accept(tokens):
            self._stats.count(generated_tokens=len(completion.token_ids))
            yield index, completion
        self._stats.note_slots(filled, len(self.rows))

    def _choose(self, states: Tensor) -> np.ndarray:
        """Return the next token of every row [A], by the states behind the last layer [A and filler, C]."""
        active, head = len(self.rows), self._forward.head
        drawn = self._drawn[:active]
        restraint = sampling.Restraint(
            self._params,
            torch.from_numpy(self._generated[:active, : drawn.max()]),
            torch.from_numpy(drawn),
            None if self._forbidden is None else self._forbidden[:active],
        )
        uniforms = torch.from_numpy(self._uniforms[np.arange(active), drawn])
        k = sampling.considered(self._params, self._forward.vocabulary)
        if head.can_find(k):
            return sampling.pick(*head.highest(states[:active], restraint, k), uniforms, self._params).numpy()
        if self._scores is None:
            self._scores = self._pool.take((self._num_slots, self._forward.vocabulary), torch.float32)
        logits = restraint.on_(self._scores[:active].copy_(head(states)[:active]))
        return sampling.draw(logits, uniforms, self._params).numpy()

    def _accept(self, tokens: np.ndarray) -> Iterator[tuple[int, Completion]]:
        """Take the tokens drawn [A]; yield the rows that are done, and let them go."""
        active = len(tokens)
        self._generated[np.arange(active), self._drawn[:active]] = tokens
        self._tokens[:active] = tokens
        self._drawn[:active] += 1
        self._positions[:active] += 1
        ended = np.isin(tokens, self._ends)
        complete = np.zeros_like(ended)
        if self._stops is not None:
            for place in np.flatnonzero(self._stops.may_complete(tokens) & ~ended):
                complete[place] = self._stops.complete(self._generated[place, : self._drawn[place]].tolist())
        done = np.flatnonzero(ended | complete | (self._most[:active] <= self._drawn[:active]))
        for place in done[::-1].tolist():  # from the end, so that the row that moves is one that goes on
            row, at_end, stopped = self.rows[place], bool(ended[place]), bool(ended[place] or complete[place])
            ids = self._generated[place, : self._drawn[place] - at_end].tolist()
            self._drop(place)
            yield row.index, Completion(tuple(ids), "stop" if stopped else "length")

    def _drop(self, place: int) -> None:
        """Let a row go; the last one takes its place."""
        assert self._cache is not None
        slot = self.rows[place].slot
        self._free.append(slot)
        self._cache.release(slot)
        last = self.rows.pop()
        end = len(self.rows)
        if place == end:
            return
        self.rows[place] = last
        for numbers in (
            self._slots, self._tokens, self._positions, self._drawn, self._most, self._generated, self._uniforms,
        ):  # fmt: skip
            numbers[place] = numbers[end]
        if self._forbidden is not None:
            self._forbidden[place] = self._forbidden[end]


def _order(prompt: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return stepped(len(prompt)), prompt


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two prompts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
