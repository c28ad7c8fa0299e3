"""Break every stage on purpose, one line at a time, and see that its tests notice.

Works on copies of the tree, one for each break that is tried at the same time. The tests that have noticed a break run
again with nothing broken: one that fails then has noticed nothing, and its break is tried again without it. Prints each
break with the test that has noticed it; exits with 1 if one goes unnoticed or does not fit the code.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parent.parent
COPIED = ("enrich", "tests", "jobs", "sample_catalogs", "docs", "benchmarks")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt")


@dataclass(frozen=True)
class Mutation:
    """One break: `before` stands once in the file and becomes `after`; `tests` should fail."""

    what: str
    file: str
    before: str
    after: str
    tests: str


MUTATIONS = (
    Mutation(
        "catalog: a quote left open at the end of a CSV swallows rows",
        "catalog/formats.py", '_END_MARK = "\\0"', '_END_MARK = ""', "tests/catalog",
    ),
    Mutation(
        "catalog: a placeholder counts as a title",
        "catalog/products.py", '"" if is_placeholder_title(text) else text for', "text for", "tests/catalog",
    ),
    Mutation(
        "survey: rows of variants are taken for products",
        "stages/surveyor.py", "marks[row] |= VARIANT", "marks[row] |= 0", "tests/test_survey.py",
    ),
    Mutation(
        "survey: descriptions that people wrote are written over",
        "stages/surveyor.py", "(marks & DESCRIBED > 0) & (not overwrite)", "(marks & DESCRIBED > 0) & False",
        "tests/test_survey.py tests/test_job.py",
    ),
    Mutation(
        "keys: the id is not in the key",
        "keys.py", "_framed(_bytes_of(product_id)) + ", "", "tests/test_keys.py",
    ),
    Mutation(
        "keys: equal rows share a key",
        "keys.py", '(_framed(b"%d" % number) if number else first)', "first", "tests/test_keys.py",
    ),
    Mutation(
        "prompts: the first attributes are left out, not the last",
        "prompts.py", "attributes=product.attributes[:n]", "attributes=product.attributes[count - n :]",
        "tests/test_prompts.py",
    ),
    Mutation(
        "windows: rows without a title are forgotten",
        "stages/windows.py", 'window.settled.append(_unusable(product, "no_title", checkpoint.run_id))', "pass",
        "tests/test_job.py",
    ),
    Mutation(
        "tokenizer: line ends are lost",
        "engine/word_memory.py", "return [part for line in lines for part in (line, \"\\n\")][:-1]", "return lines",
        "tests/engine/test_word_memory.py",
    ),
    Mutation(
        "reuse: a text that a person edited counts as the model's",
        "reuse.py", "is_edited &= has_text & usable", "is_edited[:] = False", "tests/test_reuse.py",
    ),
    Mutation(
        "reuse: texts of another version are trusted",
        "reuse.py", 'ours = facts["versions"]["enrich"] == version', "ours = True", "tests/test_reuse.py",
    ),
    Mutation(
        "judging: texts that today's rules refuse stay",
        "stages/judging.py", "if not verdict.accepted:", "if False:", "tests/test_job.py tests/test_retries.py",
    ),
    Mutation(
        "buckets: an edge is too small for its longest prompt",
        "buckets.py", "_EDGES[bisect_left(_EDGES, length)]", "_EDGES[bisect_left(_EDGES, length - 1)]",
        "tests/test_buckets.py",
    ),
    Mutation(
        "engine: a token's position is off by one",
        "engine/ragged.py", "= np.array(lengths) - 1", "= np.array(lengths)",
        "tests/engine/test_continuous.py",
    ),
    Mutation(
        "engine: the draw does not depend on the step",
        "engine/sampling.py", "philox((zeros + step, attempts", "philox((zeros + step * 0, attempts",
        "tests/engine/test_sampling.py",
    ),
    Mutation(
        "engine: top-k keeps one token too many",
        "engine/sampling.py", "min(params.top_k or vocabulary", "min(1 + params.top_k or vocabulary",
        "tests/engine/test_sampling.py",
    ),
    Mutation(
        "engine: what rounding took from the weights is left out of what scores are at most",
        "engine/screen.py", " + self._lost * lengths.amax()", "", "tests/engine/test_head.py",
    ),
    Mutation(
        "engine: tokens that may be the highest are not looked at",
        "engine/head.py", "reaching(at_most, np.maximum(", "reaching(at_most, 1.1 * np.maximum(",
        "tests/engine/test_head.py",
    ),
    Mutation(
        "engine: keys of a step are put in place with those of filler rows",
        "engine/gpt2.py", "attend(queries[:rows], keys[:rows],", "attend(queries[:rows], keys[-rows:],",
        "tests/engine/test_scripted.py tests/engine/test_continuous.py",
    ),
    Mutation(
        "engine: a stop string stays in the text",
        "engine/stopping.py", "return text[: min(places)] if places else text", "return text",
        "tests/engine tests/test_job.py",
    ),
    Mutation(
        "engine: rows that are done as memory runs out are lost",
        "engine/continuous.py", "yield from batch.hand_out()", "pass", "tests/engine/test_cuda.py",
    ),
    Mutation(
        "engine: a batch with rows in flight is kept for another bucket",
        "engine/shelf.py", "if batch.is_idle:", "if True:", "tests/engine/test_cuda.py",
    ),
    Mutation(
        "engine: a batch is kept for rows that it can't forbid tokens",
        "engine/fixed.py", " and (self._forbidden is not None or not heeds_forbidden)", "", "tests/engine/test_cuda.py",
    ),
    Mutation(
        "checkpoint: the file of each part stays open",
        "checkpoint.py", "self._list(part)", "self._list(part); os.open(path, 0)", "tests/integration/test_soak.py",
    ),
    Mutation(
        "engine: a run's model keeps the matrices that are laid out anew",
        "stages/setup.py", "owns_model=self.model is None", "owns_model=False", "tests/test_job.py",
    ),
    Mutation(
        "engine: a model that was lent loses its matrices",
        "stages/setup.py", "owns_model=self.model is None", "owns_model=True", "tests/test_job.py",
    ),
    Mutation(
        "engine: a step that can't be captured ends the run",
        "engine/fixed.py", "if is_out_of_memory(error):", "if error:", "tests/engine/test_cuda.py",
    ),
    Mutation(
        "engine: batches that are kept do not make room",
        "engine/shelf.py", "while self._batches and not", "while False and not", "tests/engine/test_cuda.py",
    ),
    Mutation(
        "engine: the device waits for what is done with finished rows",
        "engine/fixed.py", "    self._look()\n", "    self._look(); yield from self.hand_out()\n",
        "tests/engine/test_cuda.py",
    ),
    Mutation(
        "engine: float32 attention of a bfloat16 model sees what is masked",
        "engine/wide_attention.py", "scores += attention_mask", "scores += 0 * attention_mask",
        "tests/engine/test_wide_attention.py",
    ),
    Mutation(
        "engine: a row in a slot draws by the numbers of the row before it",
        "engine/fixed.py", "self._uniforms[slots] = ", "_ = ", "tests/engine/test_cuda.py",
    ),
    Mutation(
        "quality: a text that has failed for good is published",
        "stages/generate.py", "published = text if accepted else product.description or None", "published = text",
        "tests/test_retries.py tests/test_job.py",
    ),
    Mutation(
        "quality: what was being judged when a run is stopped is lost",
        "stages/generate.py", "    finally:\n        settle(wait=True)", "    finally:\n        pass",
        "tests/test_judging_crew.py",
    ),
    Mutation(
        "quality: the engine ends before the last verdicts are there",
        "stages/generate.py", "settle(wait=not left)", "settle(wait=False)",
        "tests/test_judging_crew.py tests/test_retries.py",
    ),
    Mutation(
        "quality: verdicts lose how severe they are on their way from another process",
        "stages/judging_crew.py", "Failure(rule, Severity(severity), reason)", "Failure(rule, Severity.FLAG, reason)",
        "tests/test_judging_crew.py",
    ),
    Mutation(
        "quality: one attempt more than is allowed",
        "stages/generate.py", "len(self.tries) >= max_attempts", "len(self.tries) > max_attempts",
        "tests/test_retries.py",
    ),
    Mutation(
        "quality: the worst attempt is taken for the best",
        "quality/verdict.py", "sorted(Severity, reverse=True) if level", "sorted(Severity) if level",
        "tests/quality tests/test_retries.py",
    ),
    Mutation(
        "quality: banned words pass",
        "quality/rules.py", "if reason is not None:", "if reason is not None and rule.name != \"banned_word\":",
        "tests/quality",
    ),
    Mutation(
        "quality: a sentence that was not finished stays",
        "quality/cleaning.py", "while pieces and _UNFINISHED.search(pieces[-1]):", "while False:", "tests/quality",
    ),
    Mutation(
        "checkpoint: a damaged part is believed",
        "checkpoint.py", "if not path.is_file() or _hash(path) != part.blake2b:", "if not path.is_file():",
        "tests/test_checkpoint.py",
    ),
    Mutation(
        "checkpoint: rows are committed twice",
        "checkpoint.py", "self._pending.clear()", "pass", "tests/test_checkpoint.py",
    ),
    Mutation(
        "checkpoint: other options go on with it",
        "checkpoint.py", "_compare(directory, header[\"fingerprint\"], fingerprint)", "pass",
        "tests/test_checkpoint.py",
    ),
    Mutation(
        "publish: a missing row goes unnoticed",
        "stages/publish.py", "if (missing := np.flatnonzero(chosen < 0)).size:",
        "chosen[chosen < 0] = kept\n    if (missing := np.flatnonzero(chosen < 0)).size:",
        "tests/test_job.py tests/output/test_output.py",
    ),
    Mutation(
        "publish: too many quarantined rows are no reason to withhold",
        "stages/publish.py", "if unusable > config.most_quarantined(rows):", "if False:",
        "tests/integration/test_nights.py",
    ),
    Mutation(
        "publish: drift is no reason to withhold",
        "stages/publish.py", "drift > config.max_drift:", "drift < 0:", "tests/integration/test_nights.py",
    ),
    Mutation(
        "output: one that someone has changed counts as intact",
        "output/__init__.py", 'return digest.hexdigest() == facts.get("texts")', "return True",
        "tests/output/test_output.py tests/test_reuse.py",
    ),
    Mutation(
        "changes: what is new is not told",
        "output/changes.py", "        if others:", "        if False:",
        "tests/test_reuse.py tests/integration/test_nights.py",
    ),
    Mutation(
        "merge: a row that is missing goes unnoticed",
        "output/merge.py", "if row != expected:", "if False:", "tests/output/test_merge.py",
    ),
    Mutation(
        "lock: two runs write one output",
        "storage/lock.py", "lock.acquire()", "pass",
        "tests/test_job.py tests/test_cli.py tests/integration/test_exit_codes.py",
    ),
    Mutation(
        "clock: the end of the time is not seen",
        "timing/clock.py", "return self._end is None or now", "return True or now", "tests/timing/test_clock.py",
    ),
    Mutation(
        "errors: a usage error ends with another exit code",
        "errors.py", "    exit_code = 2", "    exit_code = 1", "tests/test_cli.py",
    ),
)  # fmt: skip


def copied(target: Path) -> Path:
    """Copy what tests need."""
    skipped = shutil.ignore_patterns("__pycache__", "*.enriched.parquet*", ".*")
    for name in COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=skipped)
    for name in FILES:
        shutil.copy(ROOT / name, target / name)
    return target


def tested(tree: Path, tests: Sequence[str], *options: str) -> tuple[int, str]:
    """Run tests in a tree; return the exit code and what pytest has said."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def failed_in(said: str) -> list[str]:
    """Return the tests of which pytest has said that they failed."""
    return re.findall(r"^FAILED (.+?)(?: - .*)?$", said, re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What became of a break: the test that has noticed it, if any, and what there is to say."""

    mutation: Mutation
    noticed_by: str | None
    said: str

    def __str__(self) -> str:
        return f"{self.mutation.what}\n    {self.said}"


def verdict_on(mutation: Mutation, tree: Path, failing: Collection[str]) -> Verdict:
    """Break a tree, run the tests until one fails that is not `failing` anyway, and mend the tree."""
    file = tree / "enrich" / mutation.file
    source = file.read_text(encoding="utf-8")
    if (times := source.count(mutation.before)) != 1:
        return Verdict(mutation, None, f"stands {times} times in {mutation.file}")
    file.write_text(source.replace(mutation.before, mutation.after), encoding="utf-8")
    started = time.monotonic()
    code, said = tested(tree, mutation.tests.split(), "-x", *(f"--deselect={test}" for test in sorted(failing)))
    file.write_text(source, encoding="utf-8")
    seconds = time.monotonic() - started
    if failed := failed_in(said):
        return Verdict(mutation, failed[0], f"noticed, {seconds:.0f} s, by {failed[0]}")
    return Verdict(mutation, None, f"UNNOTICED, {seconds:.0f} s" if code == 0 else f"not run: {said.splitlines()[-1]}")


def verdicts_on(mutations: Collection[Mutation], trees: Collection[Path]) -> Iterator[Verdict]:
    """Yield what becomes of each break, as many at once as there are trees, in the order in which they end."""
    failing: set[str] = set()
    idle: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        idle.put(tree)

    def tried(mutation: Mutation) -> Verdict:
        tree = idle.get()
        try:
            return verdict_on(mutation, tree, failing)
        finally:
            idle.put(tree)

    with ThreadPoolExecutor(len(trees)) as executor:
        while mutations:
            noticed = []
            for ended in as_completed([executor.submit(tried, mutation) for mutation in mutations]):
                if (verdict := ended.result()).noticed_by:
                    noticed.append(verdict)
                    print(f"({verdict.said})", flush=True)
                else:
                    yield verdict
            tests = sorted({verdict.noticed_by for verdict in noticed})
            found = set(failed_in(tested(next(iter(trees)), tests)[1])) if tests else set()
            yield from (verdict for verdict in noticed if verdict.noticed_by not in found)
            mutations = [verdict.mutation for verdict in noticed if verdict.noticed_by in found]
            failing |= found
    for test in sorted(failing):
        print(f"fails with nothing broken: {test}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="breaks whose description has this in it")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="breaks that are tried at once")
    arguments = parser.parse_args()
    mutations = [mutation for mutation in MUTATIONS if arguments.only in mutation.what]
    count = 0
    with tempfile.TemporaryDirectory() as temporary:
        trees = [copied(Path(temporary) / str(number)) for number in range(arguments.at_once)]
        for verdict in verdicts_on(mutations, trees):
            count += verdict.noticed_by is not None
            print(verdict, flush=True)
    print(f"{len(mutations)} breaks, {count} noticed")
    return 0 if count == len(mutations) else 1


if __name__ == "__main__":
    raise SystemExit(main())
