"""transformers: `generate` on sorted batches, the text-generation pipeline, and continuous batching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from job import TEMPERATURE, TOP_K, Job, Peer, Run
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    TextGenerationPipeline,
)

_PAGE, _BATCH_TOKENS = 64, 2048  # of continuous batching: positions in a block, and those that are computed at once


def load(name: str, directory: Path, dtype: str, threads: int) -> Peer:
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype), use_safetensors=True)
    model = model.to(device).eval()
    model.generation_config = GenerationConfig()  # no end of text, and no sampling of the model's own
    if name == "generate":
        run, setting = _generate(model), "sorted by length"
    elif name == "pipeline":
        run, setting = _pipeline(model, AutoTokenizer.from_pretrained(directory)), "sorted by length"
    else:
        run, setting = _generate_batch(model), "continuous batching"
    return Peer(run, f"transformers {transformers.__version__}, torch {torch.__version__}", f"{device}, {setting}")


def _sampling(job: Job, limit: int) -> GenerationConfig:
    """Return the settings of a batch whose longest text has `limit` tokens, at which a batch ends."""
    if job.sampled:
        return GenerationConfig(
            max_new_tokens=limit, do_sample=True, temperature=TEMPERATURE, top_k=TOP_K, pad_token_id=0
        )
    return GenerationConfig(max_new_tokens=limit, do_sample=False, pad_token_id=0)


def _longest(job: Job, rows: list[int]) -> int:
    return max(job.new_tokens[row] for row in rows)


def _generate(model: Any) -> Run:
    @torch.inference_mode()
    def run(job: Job) -> list[int]:
        lengths = [0] * len(job.prompts)
        for rows in job.batches():
            prompts = [job.prompts[row] for row in rows]
            width = max(map(len, prompts))
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
            mask = torch.tensor(
                [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device
            )
            config = _sampling(job, _longest(job, rows))
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            for row, new in zip(rows, output[:, width:].tolist(), strict=True):
                lengths[row] = min(len(new), job.new_tokens[row])
        return lengths

    return run


def _pipeline(model: Any, tokenizer: Any) -> Run:
    tokenizer.padding_side = "left"
    tokenizer.pad_token_id = 0
    pipe = TextGenerationPipeline(model=model, tokenizer=tokenizer)
    texts: dict[tuple[int, ...], str] = {}

    def text(prompt: list[int]) -> str:
        if tuple(prompt) not in texts:
            texts[tuple(prompt)] = tokenizer.decode(prompt)
            if tokenizer(texts[tuple(prompt)])["input_ids"] != prompt:
                raise ValueError("a prompt's text has other tokens than the prompt")
        return texts[tuple(prompt)]

    def run(job: Job) -> list[int]:
        lengths = [0] * len(job.prompts)
        for rows in job.batches():
            outputs = pipe(
                [text(job.prompts[row]) for row in rows], batch_size=job.batch, return_tensors=True,
                generation_config=_sampling(job, _longest(job, rows)),
            )  # fmt: skip
            for row, output in zip(rows, outputs, strict=True):
                made = len(output[0]["generated_token_ids"]) - len(job.prompts[row])
                lengths[row] = min(made, job.new_tokens[row])
        return lengths

    return run


def _generate_batch(model: Any) -> Run:
    """Do what `generate_batch` does, which has no length for each row."""

    def run(job: Job) -> list[int]:
        lengths = [0] * len(job.prompts)
        # On a CPU it would take nearly all of the machine's memory, so its cache is sized for the rows that it has.
        rows = zip(job.prompts, job.new_tokens, strict=True)
        config = ContinuousBatchingConfig(
            max_requests_per_batch=job.batch, allow_block_sharing=False, page_size=_PAGE,
            max_batch_tokens=_BATCH_TOKENS,
            num_blocks=sum(-(-(len(prompt) + most) // _PAGE) for prompt, most in rows) + 1,
        )  # fmt: skip
        with model.continuous_batching_context_manager(
            generation_config=_sampling(job, job.limit), continuous_batching_config=config
        ) as manager:
            for row, prompt in enumerate(job.prompts):
                manager.add_request(prompt, str(row), max_new_tokens=job.new_tokens[row], eos_token_id=-1)
            left = len(job.prompts)
            while left:
                result = manager.get_result(timeout=1)
                if result is None:
                    if not manager.is_running():
                        raise RuntimeError("continuous batching has ended early")
                elif result.is_finished():
                    if result.error:
                        raise RuntimeError(result.error)
                    lengths[int(result.request_id)] = len(result.generated_tokens)
                    left -= 1
        return lengths

    return run
