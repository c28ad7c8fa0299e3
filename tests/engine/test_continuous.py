from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from device_checks import of_kind
from engine_rows import WIDTH, make_requests, run
from screens import SCREENS, screen_all
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from enrich.engine import sampling
from enrich.engine.continuous import KINDS, ContinuousEngine, can_run
from enrich.engine.files import find_model
from enrich.engine.forward import forward_of
from enrich.engine.gpt2 import Gpt2Forward
from enrich.engine.head import Head
from enrich.engine.loading import load_model
from enrich.engine.pool import Pool
from enrich.engine.protocol import Completion, Engine, EngineStats, Request, SamplingParams
from enrich.engine.ragged import RaggedBatch
from enrich.engine.reference import ReferenceEngine
from enrich.engine.rotary import RotaryForward
from enrich.engine.stopping import StopStrings, cut_at
from enrich.engine.tokenizer import Tokenizer
from enrich.engine.waiting import Waiting
from enrich.errors import TryAgain

pytestmark = pytest.mark.slow  # `test_paged`, `test_reference` and `test_job` are quick

SAMPLED = SamplingParams(max_new_tokens=24, temperature=0.9)
GREEDY = SamplingParams(max_new_tokens=24, temperature=0, repetition_penalty=1.0)
END = 0
ENDS = list(range(0, 400, 25))  # of random models many tokens must end a text, or none ever would


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=400, n_positions=96, n_embd=64, n_layer=3, n_head=4, eos_token_id=END, bos_token_id=END)
    )


def llama() -> LlamaForCausalLM:
    torch.manual_seed(2)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=96, eos_token_id=END, bos_token_id=END,
        )
    )  # fmt: skip


def neox() -> GPTNeoXForCausalLM:
    """One for which there is no forward pass of our own."""
    torch.manual_seed(3)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=96, eos_token_id=END, bos_token_id=END,
        )
    )  # fmt: skip


@pytest.fixture(params=[gpt2, llama, neox])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    made: torch.nn.Module = request.param()
    for parameter in made.parameters():  # larger than freshly made ones, whose logits hardly differ
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    made.set_attn_implementation("eager")
    return made.eval()


def make_engine(
    kind: type, model: torch.nn.Module, params: SamplingParams, stats: EngineStats | None = None, **options: Any
) -> Engine:
    model.generation_config.eos_token_id = ENDS
    engine: Engine = kind(model, END, params, stats or EngineStats(), **options)
    return engine


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, replace(SAMPLED, min_p=0.05, no_repeat_ngram=2)])
def test_the_tokens_are_those_of_the_reference_engine(model: torch.nn.Module, params: SamplingParams) -> None:
    requests = make_requests(120)
    expected = run(make_engine(ReferenceEngine, model, params), requests, 16)
    assert run(make_engine(ContinuousEngine, model, params), requests, 16) == expected
    assert {completion.finish_reason for completion in expected} == {"stop", "length"}


@pytest.mark.parametrize("make", [gpt2, llama])
@torch.inference_mode()
def test_an_engine_that_owns_its_model_has_each_matrix_once(make: Callable[[], Any]) -> None:
    model, requests, ids = make().eval(), make_requests(40), torch.arange(1, 25).view(2, 12)
    scores, head = model(input_ids=ids).logits, model.lm_head.weight
    texts = run(make_engine(ContinuousEngine, model, SAMPLED), requests, 16)
    assert torch.equal(model(input_ids=ids).logits, scores)  # it was somebody else's
    assert run(make_engine(ContinuousEngine, model, SAMPLED, owns_model=True), requests, 16) == texts
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    left = [one for one in model.parameters() if one.dim() > 1 and one is not head and id(one) not in embeddings]
    assert len(left) == 3 * (4 if make is gpt2 else 7)
    assert {one.untyped_storage().nbytes() for one in left} == {4}
    assert head.untyped_storage().nbytes() == head.nbytes


def test_no_tokens_stand_twice_in_a_row_where_that_is_not_wanted(model: torch.nn.Module) -> None:
    params = replace(GREEDY, max_new_tokens=48, no_repeat_ngram=2)
    for one in run(make_engine(ContinuousEngine, model, params), make_requests(60), 32):
        pairs = list(pairwise(one.token_ids))
        assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("kind", [ReferenceEngine, ContinuousEngine])
@pytest.mark.parametrize("name", ["tiny_gpt2", "tiny_llama"])
def test_a_text_ends_with_the_token_that_completes_a_stop_string(
    name: str, kind: type, request: pytest.FixtureRequest
) -> None:
    files = find_model(str(request.getfixturevalue(name)))
    model, tokenizer = load_model(files, "cpu", "float32"), Tokenizer(files)
    params = replace(SAMPLED, temperature=1.2, top_k=0, stop=("er", "\n"))

    def write(stops: StopStrings | None) -> list[Completion]:
        return run(kind(model, tokenizer.end_token_id, params, EngineStats(), stops), make_requests(80), 32)

    plain, stopped = write(None), write(StopStrings.of(tokenizer, params))
    found = 0
    for whole, one in zip(plain, stopped, strict=True):
        text = tokenizer.decode(one.token_ids)
        assert whole.token_ids[: len(one.token_ids)] == one.token_ids
        assert cut_at(text, params.stop) == cut_at(tokenizer.decode(whole.token_ids), params.stop)
        if "er" in text or "\n" in text:
            found += 1
            assert one.finish_reason == "stop"
            before = tokenizer.decode(one.token_ids[:-1])
            assert "er" not in before and "\n" not in before
        else:
            assert one == whole
    assert 5 < found < 75


@pytest.mark.parametrize("kind", [ReferenceEngine, ContinuousEngine])
def test_rows_that_come_while_others_finish_are_generated_too(kind: type, model: torch.nn.Module) -> None:
    first = make_requests(100)
    requests = list(first)
    found = {}
    for index, completion in make_engine(kind, model, SAMPLED).generate(requests, WIDTH, 64, lambda: False):
        found[index] = completion
        one = requests[index]
        if one.attempt < 3 and one.seed % 3:
            requests.append(replace(one, attempt=one.attempt + 1))
    assert len(found) == len(requests) > 200
    at_once = run(make_engine(kind, model, SAMPLED), requests, 64)
    assert [found[index] for index in range(len(requests))] == at_once


def test_five_hundred_ragged_prompts_have_the_reference_s_tokens(model: torch.nn.Module) -> None:
    rng = random.Random(5)
    requests = [replace(request, max_new_tokens=rng.randint(1, 24)) for request in make_requests(500, seed=9)]
    expected = run(make_engine(ReferenceEngine, model, GREEDY), requests, 128)
    assert run(make_engine(ContinuousEngine, model, GREEDY), requests, 128) == expected
    assert len({completion.token_ids for completion in expected}) > 400


@SCREENS
@pytest.mark.parametrize("model", [gpt2, llama], indirect=True)
@pytest.mark.parametrize("params", [GREEDY, SAMPLED, replace(SAMPLED, temperature=0, no_repeat_ngram=2)])
def test_tokens_of_screened_scores_are_the_reference_s_for_any_slots(
    model: torch.nn.Module, params: SamplingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(6)
    requests = [
        replace(request, forbidden=tuple(rng.sample(range(400), 150))) if number % 3 == 0 else request
        for number, request in enumerate(make_requests(150, seed=9))
    ]
    expected = run(make_engine(ReferenceEngine, model, params), requests, 128)
    screen_all(monkeypatch)
    looked = spied_on(monkeypatch)
    engine = make_engine(ContinuousEngine, model, params)
    for slots in (8, 32, 128):
        assert run(engine, requests, slots) == expected
    assert looked


@SCREENS
@pytest.mark.parametrize("model", [gpt2, llama], indirect=True)
def test_tokens_of_screened_sixteen_bit_scores_do_not_depend_on_the_order(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests(150)
    screen_all(monkeypatch)
    looked = spied_on(monkeypatch)
    engine = make_engine(ContinuousEngine, model.to(torch.bfloat16), replace(SAMPLED, temperature=0))
    expected = run(engine, requests, 128)
    assert run(engine, requests[::-1], 128)[::-1] == expected
    assert looked


def spied_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each look for the highest scores will add their number."""
    looked: list[int] = []
    highest = Head.highest

    def looking(self: Head, states: torch.Tensor, restraint: Any, k: int) -> Any:
        looked.append(k)
        return highest(self, states, restraint, k)

    monkeypatch.setattr(Head, "highest", looking)
    return looked


def gpt2_of(hidden: int) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=2000, n_positions=128, n_embd=hidden, n_layer=2, n_head=4))


def llama_of(hidden: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2000, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=2,
            num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=128,
        )
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("make", "hidden"), [(gpt2_of, 256), (gpt2_of, 320), (llama_of, 192)])
def test_kernels_of_a_real_model_s_size_give_a_row_the_same_bits_in_any_company(
    make: Callable[[int], torch.nn.Module], hidden: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    forward = forward_of(make(hidden).to(dtype).eval())
    assert forward
    requests = [
        Request(tuple(random.Random(seed).choices(range(1, 2000), k=seed % 40 + 1)), seed) for seed in range(150)
    ]
    seen: list[dict[int, list[bytes]]] = []
    draw = sampling.draw
    before = torch.get_num_threads()
    for slots, order, threads in ((8, 1, 2), (32, -1, 1), (128, 1, 2)):
        torch.set_num_threads(threads)
        bits: dict[int, list[bytes]] = {}
        batch = RaggedBatch(forward, Pool(), replace(SAMPLED, max_new_tokens=20), EngineStats(), {0}, slots)

        def spy(logits: torch.Tensor, *rest: object, batch: RaggedBatch = batch, bits: Any = bits) -> torch.Tensor:
            for row, scores in zip(batch.rows, logits, strict=True):
                bits.setdefault(row.request.seed, []).append(scores.numpy().tobytes())
            return draw(logits, *rest)

        monkeypatch.setattr(sampling, "draw", spy)
        for _ in batch.run(Waiting(requests[::order]), lambda: False):
            pass
        seen.append(bits)
    torch.set_num_threads(before)
    assert len(seen[0]) == 150
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_what_prompts_begin_with_in_common_is_computed_once(
    make: Callable[[], torch.nn.Module], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make().to(dtype).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    head, rest = tuple(range(1, 23)), make_requests(60, seed=4)
    requests = [replace(one, prompt_token_ids=head + one.prompt_token_ids[: WIDTH - 22]) for one in rest]
    alone = [run(make_engine(ContinuousEngine, model, SAMPLED), [one], 16)[0] for one in requests]
    computed: list[int] = []
    for kind in (Gpt2Forward, RotaryForward):

        def embed(self: Any, tokens: torch.Tensor, positions: torch.Tensor, real: Any = kind.embed) -> Any:
            computed.append(len(tokens))
            return real(self, tokens, positions)

        monkeypatch.setattr(kind, "embed", embed)
    stats = EngineStats()
    assert run(make_engine(ContinuousEngine, model, SAMPLED, stats), requests, 64) == alone
    prefilled = sum(computed) - stats.decode_positions
    assert prefilled < 0.5 * (stats.prompt_tokens - len(requests))
    assert stats.prompt_tokens == sum(len(one.prompt_token_ids) for one in requests)


def test_rows_that_another_thread_has_taken_are_no_error() -> None:
    forward = forward_of(gpt2().eval())
    assert forward
    requests = make_requests(3)

    class Raced(Waiting):
        """Says that there are rows when another thread has just taken them."""

        def __bool__(self) -> bool:
            return True

    batch = RaggedBatch(forward, Pool(), SAMPLED, EngineStats(), {0}, 16)
    assert sorted(index for index, _ in batch.run(Raced(requests), lambda: False)) == [0, 1, 2]
    assert list(batch.run(Raced([]), lambda: False)) == []


def test_a_thread_more_changes_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = make_requests(150)
    tokens = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        tokens.append(run(make_engine(ContinuousEngine, gpt2().eval(), SAMPLED, stats := EngineStats()), requests, 128))
        assert stats.prompt_tokens == sum(len(request.prompt_token_ids) for request in requests)
    assert tokens[0] == tokens[1]


def test_neither_slots_nor_order_nor_neighbours_change_a_row(model: torch.nn.Module) -> None:
    requests = make_requests(70)
    engine = make_engine(ContinuousEngine, model, SAMPLED)
    expected = run(engine, requests, 8)
    assert run(engine, requests, 32) == expected
    assert run(engine, requests, 128) == expected
    order = random.Random(3).sample(range(70), 70)
    shuffled = run(engine, [requests[index] for index in order], 32)
    assert [shuffled[order.index(index)] for index in range(70)] == expected
    assert [run(engine, [request], 32)[0] for request in requests[:5]] == expected[:5]


def test_sixteen_bit_rows_do_not_depend_on_their_order(model: torch.nn.Module) -> None:
    requests = make_requests(50)
    engine = make_engine(ContinuousEngine, model.to(torch.bfloat16), SAMPLED)
    expected = run(engine, requests, 16)
    assert run(engine, requests[::-1], 16)[::-1] == expected


def test_another_attempt_draws_other_tokens(model: torch.nn.Module) -> None:
    requests = make_requests(20)
    engine = make_engine(ContinuousEngine, model, SAMPLED)
    again = run(engine, [replace(request, attempt=2) for request in requests], 16)
    assert sum(one == other for one, other in zip(run(engine, requests, 16), again, strict=True)) < 3


def test_slots_are_refilled_while_others_go_on(model: torch.nn.Module) -> None:
    stats, base = EngineStats(), EngineStats()
    requests = make_requests(200)
    run(make_engine(ContinuousEngine, model, SAMPLED, stats), requests, 16)
    run(make_engine(ReferenceEngine, model, SAMPLED, base), requests, 16)
    assert stats.generated_tokens == base.generated_tokens
    assert stats.prompt_tokens == base.prompt_tokens
    assert stats.decode_waste < 0.75 * base.decode_waste


def test_a_stop_leaves_the_rows_in_flight_out(model: torch.nn.Module) -> None:
    requests = make_requests(40)
    engine = make_engine(ContinuousEngine, model, SAMPLED)
    expected = run(engine, requests, 16)
    looks = iter(range(12))
    found = dict(engine.generate(requests, WIDTH, 16, lambda: next(looks, None) is None))
    assert 0 < len(found) < len(requests)
    assert all(completion == expected[index] for index, completion in found.items())


def before_every_pass(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, look: Callable[[int], None]) -> None:
    """Have `look` called with the number of rows before the model decodes, or prefills, so many."""
    forward = model.forward

    def of_transformers(*args: object, **kwargs: object) -> object:
        look(len(kwargs["input_ids"]))  # type: ignore[arg-type]
        return forward(*args, **kwargs)

    def of_ours(finish: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def looked_at(self: object, hidden: torch.Tensor) -> torch.Tensor:
            look(len(hidden))
            return finish(self, hidden)

        return looked_at

    monkeypatch.setattr(model, "forward", of_transformers)
    for kind in (Gpt2Forward, RotaryForward):
        monkeypatch.setattr(kind, "finish", of_ours(kind.finish))


def test_memory_that_runs_out_halves_the_slots_and_redoes_only_rows_in_flight(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests(90)
    expected = run(make_engine(ContinuousEngine, model, SAMPLED), requests, 64)
    widths: list[int] = []
    refused: list[int] = []

    def scarce(rows: int) -> None:
        widths.append(rows)
        if rows > 16 and len(widths) > 8:
            refused.append(rows)
            raise torch.OutOfMemoryError("CUDA out of memory")

    before_every_pass(model, monkeypatch, scarce)
    stats = EngineStats()
    assert run(make_engine(ContinuousEngine, model, SAMPLED, stats), requests, 64) == expected
    assert max(widths[:8]) > 16
    assert 1 <= len(refused) <= 2  # from 64 rows to 32 to 16, or from what is left of them
    assert len(widths) > 20
    assert stats.prompt_tokens == sum(len(request.prompt_token_ids) for request in requests)


def test_memory_for_not_even_one_tile_is_told(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise MemoryError("not enough memory: you tried to allocate")

    before_every_pass(model, monkeypatch, full)
    with pytest.raises(TryAgain, match="out of memory on cpu with 16 rows of 32 \\+ 24 tokens"):
        run(make_engine(ContinuousEngine, model, SAMPLED), make_requests(40), 64)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_model_writes_the_reference_s_tokens(kind: str) -> None:
    model = of_kind(kind, end=END)
    assert can_run(model)
    requests = make_requests(24)
    expected = run(make_engine(ReferenceEngine, model, replace(GREEDY, max_new_tokens=12)), requests, 16)
    assert run(make_engine(ContinuousEngine, model, replace(GREEDY, max_new_tokens=12)), requests, 16) == expected
    assert len({completion.token_ids for completion in expected}) > 15


def test_a_model_that_forgets_is_left_to_the_reference_engine() -> None:
    config = AutoConfig.for_model(
        "mistral", vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, sliding_window=8
    )
    assert not can_run(AutoModelForCausalLM.from_config(config))


def test_what_a_row_forbids_is_never_drawn_and_all_engines_agree(model) -> None:
    """Some rows forbid what they would draw; the others' tokens stay as they are."""
    requests = make_requests(20)
    plain = run(make_engine(ContinuousEngine, model, SAMPLED), requests, 16)
    drawn = [set(completion.token_ids) for completion in plain]
    grounded = [
        replace(request, forbidden=tuple(sorted(drawn[n] - set(ENDS)))) if n % 2 else request
        for n, request in enumerate(requests)
    ]
    found = run(make_engine(ContinuousEngine, model, SAMPLED), grounded, 16)
    assert found == run(make_engine(ReferenceEngine, model, SAMPLED), grounded, 16)
    assert [one for n, one in enumerate(found) if n % 2 == 0] == [one for n, one in enumerate(plain) if n % 2 == 0]
    for completion, request in zip(found, grounded, strict=True):
        assert not set(completion.token_ids) & set(request.forbidden)
    assert sum(bool(completion.token_ids) for completion in found[1::2]) > 3
