"""CTranslate2, batch by batch; a row that has what it asked for leaves its batch."""

from __future__ import annotations

from pathlib import Path

import ctranslate2
from job import TEMPERATURE, TOP_K, Job, Peer
from tokenizers import Tokenizer


def load(_: str, directory: Path, dtype: str, threads: int) -> Peer:
    converted = directory.with_name(f"{directory.name}.ctranslate2")
    if not converted.is_dir():
        raise FileNotFoundError(f"{converted}: not converted")
    kind = {"float32": "float32", "bfloat16": "int8"}.get(dtype, dtype)  # int8 stands beside 16 bits
    generator = ctranslate2.Generator(str(converted), device="cpu", compute_type=kind, intra_threads=threads)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    names = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]

    def run(job: Job) -> list[int]:
        lengths = [0] * len(job.prompts)
        drawing = {"sampling_topk": TOP_K, "sampling_temperature": TEMPERATURE} if job.sampled else {"sampling_topk": 1}
        for rows in job.batches():
            asked = [job.new_tokens[row] for row in rows]
            longest, ragged = max(asked), len(set(asked)) > 1

            # Steps count from the end of the batch's shortest prompt.
            shortest = min(len(job.prompts[row]) for row in rows)
            last = [len(job.prompts[row]) - shortest + job.new_tokens[row] - 1 for row in rows]

            def enough(step: ctranslate2.GenerationStepResult, last: list[int] = last) -> bool:
                return step.step >= last[step.batch_id]

            results = generator.generate_batch(
                [[names[token] for token in job.prompts[row]] for row in rows],
                max_length=longest, min_length=longest, include_prompt_in_result=False,
                callback=enough if ragged else None, **drawing,
            )  # fmt: skip
            for row, result in zip(rows, results, strict=True):
                lengths[row] = len(result.sequences_ids[0])
        return lengths

    return Peer(run, f"ctranslate2 {ctranslate2.__version__}", f"weights {generator.compute_type}")
