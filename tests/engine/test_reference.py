from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from engine_rows import WIDTH, make_requests, run
from transformers import AutoModelForCausalLM

from enrich.engine.files import find_model
from enrich.engine.loading import load_model
from enrich.engine.protocol import Completion, EngineStats, Request, SamplingParams
from enrich.engine.reference import ReferenceEngine
from enrich.engine.tokenizer import Tokenizer
from enrich.errors import TryAgain

SAMPLED = SamplingParams(max_new_tokens=24, temperature=0.9)
GREEDY = SamplingParams(max_new_tokens=24, temperature=0, repetition_penalty=1.0)


def make_engine(directory: Path, params: SamplingParams, dtype: str = "float32") -> ReferenceEngine:
    files = find_model(str(directory))
    return ReferenceEngine(load_model(files, "cpu", dtype), Tokenizer(files).end_token_id, params, EngineStats())


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def model(request: pytest.FixtureRequest) -> Path:
    directory: Path = request.getfixturevalue(request.param)
    return directory


@pytest.mark.slow
def test_left_padded_batches_equal_single_unpadded_greedy_generation(model: Path) -> None:
    requests = make_requests(20)
    completions = run(make_engine(model, GREEDY), requests, 8)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for request, completion in zip(requests, completions, strict=True):
        ids = list(request.prompt_token_ids)
        for _ in range(GREEDY.max_new_tokens):  # no cache, no padding, no generate
            ids.append(int(plain(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 0:
                break
        new = ids[len(request.prompt_token_ids) :]
        expected = Completion(tuple(new[:-1]), "stop") if new[-1] == 0 else Completion(tuple(new), "length")
        assert completion == expected


@pytest.mark.slow
def test_batch_size_and_order_do_not_change_a_row(model: Path) -> None:
    requests = make_requests(70)
    whole = run(make_engine(model, SAMPLED), requests, 64)
    assert whole == run(make_engine(model, SAMPLED), requests, 1)
    assert whole == run(make_engine(model, SAMPLED), requests, 7)
    order = random.Random(4).sample(range(70), 70)
    shuffled = run(make_engine(model, SAMPLED), [requests[index] for index in order], 16)
    assert [whole[index] for index in order] == shuffled
    assert len({completion.token_ids for completion in whole}) == 70


def test_order_does_not_change_a_row_in_bfloat16(tiny_gpt2: Path) -> None:
    requests = make_requests(19)
    there = run(make_engine(tiny_gpt2, SAMPLED, "bfloat16"), requests, 8)
    back = run(make_engine(tiny_gpt2, SAMPLED, "bfloat16"), requests[::-1], 8)
    assert there == back[::-1]


def test_another_attempt_is_another_text(tiny_gpt2: Path) -> None:
    first = make_requests(4)
    second = [Request(request.prompt_token_ids, request.seed, attempt=2) for request in first]
    engine = make_engine(tiny_gpt2, SAMPLED)
    assert all(a != b for a, b in zip(run(engine, first, 4), run(engine, second, 4), strict=True))


def test_both_finish_reasons_occur_and_the_end_token_is_cut(tiny_gpt2: Path) -> None:
    params = SamplingParams(max_new_tokens=48, temperature=1.5, top_k=0, top_p=1.0, repetition_penalty=1.0)
    completions = run(make_engine(tiny_gpt2, params), make_requests(64), 64)
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        assert 0 not in completion.token_ids
        assert (len(completion.token_ids) == 48) == (completion.finish_reason == "length")


def test_out_of_memory_halves_the_batch_and_does_the_rows_again(
    tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = make_requests(70)
    expected = run(make_engine(tiny_gpt2, SAMPLED), requests, 64)
    engine = make_engine(tiny_gpt2, SAMPLED)
    generate, sizes = engine._model.generate, []

    def limited(input_ids: torch.Tensor, **rest: object) -> torch.Tensor:
        sizes.append(len(input_ids))
        if len(input_ids) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(input_ids=input_ids, **rest)

    monkeypatch.setattr(engine._model, "generate", limited)
    assert run(engine, requests, 64) == expected
    assert sizes == [64, 32, 16, 16, 16, 16, 16]  # the safe size is remembered


def test_out_of_memory_with_the_smallest_batch_says_what_to_do(
    tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tiny_gpt2, SAMPLED)

    def never(**_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(engine._model, "generate", never)
    with pytest.raises(TryAgain, match="--max-new-tokens"):
        run(engine, make_requests(40), 32)


def test_other_errors_are_not_taken_for_memory(tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(tiny_gpt2, SAMPLED)
    monkeypatch.setattr(engine._model, "generate", lambda **_: (_ for _ in ()).throw(RuntimeError("shape mismatch")))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(engine, make_requests(4), 4)


def test_a_stop_breaks_off_between_tokens_without_half_rows(tiny_gpt2: Path) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 40

    engine = make_engine(tiny_gpt2, SamplingParams(max_new_tokens=30, temperature=1.0))
    found = dict(engine.generate(make_requests(64), WIDTH, 16, should_stop))
    assert sorted(found) == list(range(16))
    assert asked < 60


def test_a_model_s_own_sampling_defaults_do_not_join_in(tiny_gpt2: Path) -> None:
    engine = make_engine(tiny_gpt2, SAMPLED)
    files = find_model(str(tiny_gpt2))
    model = load_model(files, "cpu", "float32")
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.min_new_tokens = 20
    other = ReferenceEngine(model, 0, SAMPLED, EngineStats())
    assert run(engine, make_requests(8), 8) == run(other, make_requests(8), 8)


def test_stats_add_up(tiny_gpt2: Path) -> None:
    engine = make_engine(tiny_gpt2, SAMPLED)
    requests = make_requests(20)
    completions = run(engine, requests, 16)
    assert engine.stats.prompt_tokens == sum(len(request.prompt_token_ids) for request in requests)
    assert engine.stats.prefill_positions == 32 * WIDTH  # 16 rows, then 4 filled up to 16
    assert engine.stats.generated_tokens == sum(len(completion.token_ids) for completion in completions)
    assert 0 <= engine.stats.padding_waste < 1
    assert 0 <= engine.stats.decode_waste < 1
