"""What the continuous engine must do on a GPU, as plain functions, so that a machine without pytest can check it too.

On a CPU the same is asked of the path that a GPU takes: slots of one fixed number, prefills of one fixed shape with
filler rows, several steps between two looks at what they drew, one captured step that is replayed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any
from unittest import mock

import torch
from engine_rows import WIDTH, make_requests, run
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from enrich.engine import continuous, fixed, sampling
from enrich.engine.continuous import ContinuousEngine
from enrich.engine.fixed import FixedBatch
from enrich.engine.loading import fuse_activations
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams
from enrich.engine.reference import ReferenceEngine
from enrich.engine.shelf import Shelf

SAMPLED = SamplingParams(max_new_tokens=24, temperature=0.9)
GREEDY = SamplingParams(max_new_tokens=24, temperature=0, repetition_penalty=1.0)
FREE = SamplingParams(max_new_tokens=24, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
ENDS = list(range(0, 400, 25))
TIE = 1e-3
"""Scores that lie nearer to each other than this may be taken one for the other: other kernels round otherwise."""
TOLERANCE = 0.04
"""How far a 16-bit score may be from float32's, as a share of the largest score of its row."""


def gpt2() -> Any:
    torch.manual_seed(1)
    shape = GPT2Config(vocab_size=400, n_positions=96, n_embd=64, n_layer=3, n_head=4, eos_token_id=0, bos_token_id=0)
    return enlarged(GPT2LMHeadModel(shape))


def llama() -> Any:
    """Rotary positions and grouped heads."""
    torch.manual_seed(2)
    shape = LlamaConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=96, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    return enlarged(LlamaForCausalLM(shape))


def of_kind(kind: str, hidden: int = 64, inner: int = 128, end: int = 0) -> Any:
    """A model of any of transformers' kinds, two layers of four heads."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 400, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 2,
        "head_dim": hidden // 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96,
        "n_positions": 96, "n_embd": hidden, "n_layer": 2, "n_head": 4, "rotary_dim": 16, "ffn_dim": inner,
        "word_embed_proj_dim": hidden, "sliding_window": None, "eos_token_id": end, "bos_token_id": end,
        "pad_token_id": None,
    }  # fmt: skip
    return enlarged(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)))


def enlarged(model: Any) -> Any:
    """Return the model with weights larger than freshly made ones, whose scores hardly differ."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    model.set_attn_implementation("eager")
    return model.eval()


MODELS: dict[str, Callable[[], Any]] = {"gpt2": gpt2, "llama": llama}


class AsOnGpu(ContinuousEngine):
    """The engine as it works on a GPU, wherever it is."""

    def __init__(
        self,
        model: Any,
        params: SamplingParams,
        stats: EngineStats | None = None,
        ends: list[int] | None = ENDS,
        deterministic: bool = False,
    ) -> None:
        model.generation_config.eos_token_id = ends
        super().__init__(model, None, params, stats or EngineStats(), deterministic=deterministic)
        self._steps = continuous._GPU_CHECK_EVERY
        self._room.same_bits = False
        self._forward = None
        fuse_activations(model)
        self._shelf = Shelf(self._room)


def reference(model: Any, params: SamplingParams, requests: list[Request], rows: int) -> list[Completion]:
    model.generation_config.eos_token_id = ENDS
    return run(ReferenceEngine(model, None, params, EngineStats()), requests, rows)


def check_float32_tokens(model: Any) -> None:
    """500 ragged prompts, greedy: the tokens are the reference's, but where two scores are as good as the same."""
    exact = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    draw = random.Random(5)
    requests = [replace(request, max_new_tokens=draw.randint(1, 24)) for request in make_requests(500, seed=9)]
    expected = reference(model, GREEDY, requests, 64)
    found = run(AsOnGpu(model, GREEDY), requests, 64)
    torch.backends.cuda.matmul.allow_tf32 = exact
    others = [row for row, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other]
    for row in others:
        gap = gap_at_first_difference(model, requests[row], found[row], expected[row])
        assert gap < TIE, f"row {row}: another token, whose score is {gap} lower"
    assert len(others) <= len(requests) // 50, f"{len(others)} of {len(requests)} rows have other tokens"
    assert len({completion.token_ids for completion in expected}) > 400


@torch.inference_mode()
def gap_at_first_difference(model: Any, request: Request, found: Completion, expected: Completion) -> float:
    ours, theirs = ([*completion.token_ids, None] for completion in (found, expected))
    place = next(number for number, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other)
    ids = torch.tensor([[*request.prompt_token_ids, *found.token_ids[:place]]], device=model.device)
    highest = model(input_ids=ids).logits[0, -1].float().topk(2).values
    return float(highest[0] - highest[1])


def check_sixteen_bit_scores(model: Any, engine: type[ContinuousEngine] = AsOnGpu) -> float:
    """Told which tokens to draw, the engine's bfloat16 scores are near those of float32; returns how near."""
    draw = random.Random(7)
    requests = make_requests(40, seed=3)
    forced = torch.tensor([[draw.randrange(1, 400) for _ in range(FREE.max_new_tokens)] for _ in requests])
    expected = forced_scores(model, requests, forced)
    with eager_steps(), forcing(requests, forced) as seen:
        run(engine_of(engine, model.to(torch.bfloat16), FREE), requests, 16)
    model.float()
    assert len(seen) == forced.numel()
    worst = 0.0
    for (row, step), scores in seen.items():
        wanted = expected[row][step]
        worst = max(worst, float((scores - wanted).abs().max() / wanted.abs().max()))
    assert worst <= TOLERANCE, f"a score is {worst:.4f} of its row's largest away"
    return worst


def engine_of(kind: type[ContinuousEngine], model: Any, params: SamplingParams) -> ContinuousEngine:
    if kind is AsOnGpu:
        return AsOnGpu(model, params, ends=None)
    model.generation_config.eos_token_id = None
    return kind(model, None, params, EngineStats())


@torch.inference_mode()
def forced_scores(model: Any, requests: Sequence[Request], forced: torch.Tensor) -> list[torch.Tensor]:
    """Return the model's scores [steps, V] of each row, whose prompt goes on with the forced tokens."""
    scores = []
    for request, tokens in zip(requests, forced.tolist(), strict=True):
        ids = torch.tensor([[*request.prompt_token_ids, *tokens]], device=model.device)
        scores.append(model(input_ids=ids).logits[0, len(request.prompt_token_ids) - 1 : -1].float().cpu())
    return scores


@contextmanager
def forcing(requests: Sequence[Request], forced: torch.Tensor) -> Iterator[dict[tuple[int, int], torch.Tensor]]:
    """Have these tokens drawn, and yield the scores that they would have been drawn from, by row and step.

    A row and its step are known by the random number that the token is drawn with.
    """
    seeds, attempts = (torch.tensor([[getattr(request, name)] for request in requests]) for name in ("seed", "attempt"))
    numbers = sampling.uniform(seeds, attempts, torch.arange(forced.shape[1]))
    places = {number: (row, step) for row, line in enumerate(numbers.tolist()) for step, number in enumerate(line)}
    seen: dict[tuple[int, int], torch.Tensor] = {}

    def draw(logits: torch.Tensor, uniforms: torch.Tensor, *_: object) -> torch.Tensor:
        tokens = torch.ones(len(logits), dtype=torch.long)
        for index, number in enumerate(uniforms.tolist()):
            if number in places:
                row, step = places[number]
                seen.setdefault((row, step), logits[index].float().cpu().clone())
                tokens[index] = forced[row, step]
        return tokens.to(logits.device)

    with mock.patch.object(sampling, "draw", draw):
        yield seen


def eager_steps(step: Callable[[Any], None] | None = None) -> Any:
    """Have each step computed, or what is given instead, none replayed."""
    return mock.patch.object(FixedBatch, "_step", step or FixedBatch._decode)


def check_memory_that_runs_out(model: Any) -> None:
    """The slots are halved until they fit, and rows that were in flight come out as if nothing had happened."""
    requests = make_requests(90)
    expected = run(AsOnGpu(model, SAMPLED), requests, 16)
    forward, tried = model.forward, []

    def scarce(*args: Any, **kwargs: Any) -> Any:
        tried.append(len(kwargs["input_ids"]))
        if tried[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    stats = EngineStats()
    with mock.patch.object(model, "forward", scarce):
        found = run(AsOnGpu(model, SAMPLED, stats), requests, 64)
    assert found == expected
    assert list(dict.fromkeys(tried)) == [64, 32, 16]
    assert stats.prompt_tokens == sum(len(request.prompt_token_ids) for request in requests)


def check_memory_that_runs_out_late(model: Any) -> None:
    """Rows that were done by then, but not handed out, come out; those in flight are computed again, once."""
    requests = make_requests(90)
    expected = run(AsOnGpu(model, SAMPLED), requests, 32)
    decode = FixedBatch._decode
    failed: list[bool] = []

    def scarce(batch: Any) -> None:
        if batch._finished and not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        decode(batch)

    stats = EngineStats()
    with eager_steps(scarce):
        found = all_of(AsOnGpu(model, SAMPLED, stats), requests, WIDTH, 32)
    assert failed
    others = [index for index, completion in found.items() if completion != expected[index]]
    assert len(others) <= len(requests) // 50  # of 16 rows at once a GPU makes other bits than of 32
    assert stats.prompt_tokens == sum(len(request.prompt_token_ids) for request in requests)
    assert stats.generated_tokens == sum(len(completion.token_ids) for completion in found.values())


class _Replayed:
    """Stands for a CUDA graph where there is none: what it captured is called again."""

    batch: Any = None

    def replay(self) -> None:
        self.batch._decode()


@contextmanager
def stand_ins(fails: bool = False) -> Iterator[None]:
    """Have steps captured on a CPU too, by a stand-in that computes while it captures, which must not show."""

    @contextmanager
    def graph(_: Any) -> Iterator[None]:
        yield
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")

    made = FixedBatch.__init__

    def made_for_a_gpu(batch: Any, *args: Any) -> None:
        made(batch, *args)
        batch._can_capture = True

    cuda = mock.patch.multiple(
        torch.cuda, CUDAGraph=_Replayed, graph=graph, current_stream=mock.Mock(), set_stream=mock.Mock()
    )
    with cuda, mock.patch.object(FixedBatch, "__init__", made_for_a_gpu):
        yield


def check_replays_across_refills(model: Any) -> None:
    """One captured step serves all rows that come into its slots, and draws what computed steps draw."""
    requests = make_requests(200)
    with eager_steps():
        expected = run(AsOnGpu(model, SAMPLED), requests, 16)
    with counted_captures() as captures:
        found = run(AsOnGpu(model, SAMPLED), requests, 16)
    assert len(captures) == 1
    assert found == expected


@contextmanager
def counted_captures() -> Iterator[list[Any]]:
    """Have steps captured and replayed, and yield the batches whose steps are."""
    captures = []
    capture = FixedBatch._capture

    def counted(batch: Any) -> None:
        captures.append(batch)
        capture(batch)
        if isinstance(batch._graph, _Replayed):
            batch._graph.batch = batch

    graphs = nullcontext() if torch.cuda.is_available() else stand_ins()
    with graphs, mock.patch.object(FixedBatch, "_capture", counted):
        yield captures


def check_steps_that_cannot_be_captured(model: Any) -> None:
    """Where a step waits for the device, which no capture may, steps go on without, and draw the same."""
    requests = make_requests(60)
    with eager_steps():
        expected = run(AsOnGpu(model, SAMPLED), requests, 16)
    decode, told = FixedBatch._decode, []

    def waits(batch: Any) -> None:
        decode(batch)
        batch._counts.sum().item()

    fixed._warn_of_no_capture.cache_clear()
    graphs = nullcontext() if torch.cuda.is_available() else stand_ins(fails=True)
    warns = mock.patch.object(logging.getLogger("enrich"), "warning", lambda *args: told.append(args))
    with graphs, warns, mock.patch.object(FixedBatch, "_decode", waits):
        engine = AsOnGpu(model, SAMPLED)
        found = run(engine, requests, 16)
        all_of(engine, requests, WIDTH + 8)
    assert found == expected
    assert len(told) == 1, told


def check_batches_kept_for_later_buckets(model: Any) -> None:
    """A bucket of a shape that there was before takes its batch, captured step and all, and has the same texts."""
    some, others = make_requests(40), make_requests(40, seed=8)
    narrow = [request for request in others if len(request.prompt_token_ids) <= WIDTH // 2]
    forbidding = [replace(request, forbidden=(request.seed % 400,)) for request in some]
    plans = [(some, WIDTH), (narrow, WIDTH // 2), (others, WIDTH), (forbidding, WIDTH), (some, WIDTH), (others, WIDTH)]
    with eager_steps():
        expected = [all_of(AsOnGpu(model, SAMPLED), requests, width) for requests, width in plans]
    engine = AsOnGpu(model, SAMPLED)
    with counted_captures() as captures:
        found = [all_of(engine, requests, width) for requests, width in plans]
        assert found == expected
        assert len(captures) == 3  # two widths, and once more where tokens are forbidden
        engine.stats = stats = EngineStats()  # as who measures does
        all_of(engine, some, WIDTH)
        assert stats.prompt_tokens == sum(len(request.prompt_token_ids) for request in some)
        assert stats.generated_tokens == sum(len(completion.token_ids) for completion in expected[0].values())
        looks = iter(range(2))
        list(engine.generate(some, WIDTH, 16, lambda: next(looks, None) is None))
        assert all_of(engine, others, WIDTH) == expected[2]
        before = len(captures)
        with mock.patch.object(engine._room, "has_room", lambda *_: False):
            all_of(engine, narrow, WIDTH // 4 * 3)
            assert engine._shelf is not None and len(engine._shelf) == 1  # all others had to go
        assert len(captures) == before + 1


def all_of(engine: ContinuousEngine, requests: Sequence[Request], width: int, slots: int = 16) -> dict[int, Completion]:
    found = list(engine.generate(requests, width, slots, lambda: False))
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    return dict(found)


def check_rows_are_handed_out_while_the_next_steps_are_computed(model: Any) -> None:
    """What is done with a finished row takes none of the device's time: it has its next steps by then."""
    requests = make_requests(60)
    step, look, events = FixedBatch._decode, FixedBatch._look, []

    def noted_step(batch: Any) -> None:
        events.append("step")
        step(batch)

    def noted_look(batch: Any) -> None:
        look(batch)
        events.append("look" if any(batch._rows) else "last look")

    with eager_steps(noted_step), mock.patch.object(FixedBatch, "_look", noted_look):
        for _ in AsOnGpu(model, SAMPLED).generate(requests, WIDTH, 16, lambda: False):
            events.append("row")
    assert events.count("row") == len(requests)
    after = [later for event, later in pairwise(events) if event == "look"]
    assert len(after) > 10 and set(after) == {"step"}


def check_filler_and_neighbours(model: Any) -> None:
    """A prefill of fewer rows than its shape has, and a slot whose row is done, leave the others' tokens alone."""
    requests = make_requests(33)
    expected = run(AsOnGpu(model, SAMPLED), requests, 16)
    for number in (1, 2, 17, 33):
        assert run(AsOnGpu(model, SAMPLED), requests[:number], 16) == expected[:number]
    shapes = []
    body = model.base_model.forward

    def noted(*args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape))
        return body(*args, **kwargs)

    with mock.patch.object(model.base_model, "forward", noted), eager_steps():
        assert run(AsOnGpu(model, SAMPLED), requests, 16) == expected
    assert {shape for shape in shapes if shape[1] > 1} == {(2, WIDTH)}
    assert {shape for shape in shapes if shape[1] == 1} <= {(16, 1)}


def check_sixteen_bit_order(model: Any) -> None:
    """For a number of slots, another order of the rows changes no text in bfloat16."""
    requests = make_requests(120)
    order = random.Random(1).sample(range(len(requests)), len(requests))
    model.to(torch.bfloat16)
    there = run(AsOnGpu(model, SAMPLED), requests, 16)
    back = run(AsOnGpu(model, SAMPLED), [requests[row] for row in order], 16)
    model.float()
    same = sum(back[place] == there[row] for place, row in enumerate(order))
    assert same == len(requests), f"{len(requests) - same} of {len(requests)} rows have another text in another order"


def check_looks_between_steps(model: Any) -> None:
    """Tokens drawn after a row's end, before anyone looked, are not in its text; a stop leaves rows in flight out."""
    requests = [replace(request, max_new_tokens=1 + number % 7) for number, request in enumerate(make_requests(60))]
    expected = reference(model, SAMPLED, requests, 16)
    assert run(AsOnGpu(model, SAMPLED), requests, 16) == expected
    assert {completion.finish_reason for completion in expected} == {"stop", "length"}
    looks = iter(range(4))
    found = dict(AsOnGpu(model, SAMPLED).generate(requests, WIDTH, 16, lambda: next(looks, None) is None))
    assert 0 < len(found) < len(requests)
    assert all(completion == expected[row] for row, completion in found.items())


def check_deterministic(model: Any) -> None:
    """In the deterministic mode a row is computed beside as many others whatever --batch-size, and its bits stay."""
    requests, widths = make_requests(100, seed=13), set()
    forward = model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        widths.add(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    with eager_steps(), mock.patch.object(model, "forward", watched):
        found = [run(AsOnGpu(model, SAMPLED, deterministic=True), requests, rows) for rows in (8, 32, 128)]
    assert found[0] == found[1] == found[2]
    assert len(widths) == 1, f"{sorted(widths)} rows at once"


CHECKS: dict[str, Callable[[Any], object]] = {
    "float32 tokens": check_float32_tokens,
    "bfloat16 scores": check_sixteen_bit_scores,
    "out of memory": check_memory_that_runs_out,
    "out of memory late": check_memory_that_runs_out_late,
    "replays across refills": check_replays_across_refills,
    "steps that can't be captured": check_steps_that_cannot_be_captured,
    "batches kept for later buckets": check_batches_kept_for_later_buckets,
    "rows handed out beside steps": check_rows_are_handed_out_while_the_next_steps_are_computed,
    "filler and neighbours": check_filler_and_neighbours,
    "bfloat16 order": check_sixteen_bit_order,
    "looks between steps": check_looks_between_steps,
    "deterministic": check_deterministic,
}
