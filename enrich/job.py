"""The job: one run from catalog to published file."""

from __future__ import annotations

import logging
import platform
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

import enrich
from enrich import buckets
from enrich.catalog import Catalog, RoleOptions
from enrich.categories import Categories
from enrich.checkpoint import Checkpoint
from enrich.config import RunConfig
from enrich.engine.loading import ModelFiles, Tokenizer, find_model, load_model, pick_device, pick_dtype
from enrich.engine.protocol import Completion, Engine, EngineStats, Request, SamplingParams
from enrich.errors import CatalogError, Interrupted, ReconciliationError, TryAgain
from enrich.generation import GENERATED, KEPT, QUARANTINED, Generation, Outcome
from enrich.keys import KeyMaker, digest, seed_of
from enrich.output import OutputWriter
from enrich.product import Product
from enrich.progress import Progress
from enrich.prompts import Prompt, PromptBuilder, compile_template, read_template
from enrich.quality import clean_text

log = logging.getLogger("enrich")

# Rows planned before they are generated: enough that every bucket's batches are full, few enough for memory.
_WINDOW_ROWS = 32_768


@dataclass(frozen=True)
class Summary:
    """What a run did. Token counts are over all generated rows of the output, speed over this run's own."""

    rows: int
    generated: int
    reused: int
    kept: int
    quarantined: int
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    tokens_per_second: float
    padding_waste: float
    resumed_rows: int
    output: str
    run_id: str


@dataclass(frozen=True)
class _Survey:
    """One reading of the whole catalog before anything is generated: it is whole, and what there is to do."""

    rows: int
    kept: int

    @property
    def to_do(self) -> int:
        return self.rows - self.kept


@dataclass
class _Run:
    """What the stages of a run share."""

    config: RunConfig
    catalog: Catalog
    files: ModelFiles
    device: str
    dtype: str
    categories: Categories
    params: SamplingParams
    should_stop: Callable[[], int]
    stats: EngineStats = field(default_factory=EngineStats)
    generating_seconds: float = 0.0

    @property
    def longest_prompt(self) -> int:
        """How many tokens a prompt may have if all new ones are to fit behind it."""
        return self.files.context - self.params.max_new_tokens

    @property
    def tokens_per_second(self) -> float:
        """Tokens of texts that were generated, over the time spent on that, model loading left out."""
        return self.stats.generated_tokens / self.generating_seconds if self.generating_seconds else 0.0

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.files)

    @cached_property
    def engine(self) -> Engine:
        """Return the engine, its weights loaded when the first row needs them."""
        from enrich.engine.reference import ReferenceEngine

        log.info("loading %s (%s) on %s in %s", self.files.name, self.files.revision[:12], self.device, self.dtype)
        model = load_model(self.files, self.device, self.dtype)
        return ReferenceEngine(model, self.tokenizer.end_token_id, self.params, self.stats)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that waits for its text."""

    ordinal: int
    key: str
    prompt: Prompt


def run(config: RunConfig, *, show_bar: bool = False, should_stop: Callable[[], int] = lambda: 0) -> Summary:
    """Enrich a catalog: write a description for every product without one and publish the result.

    A run that was broken off goes on from its checkpoint. `should_stop` is asked between tokens; a number other than 0
    is the signal to stop for.

    Raises the errors of `enrich.errors`; the file published before is then still in place.
    """
    started = time.monotonic()
    with _only_run(config.output_path):
        run = _prepare(config, should_stop)
        survey = _survey(run)
        with _open_checkpoint(run) as checkpoint:
            resumed = checkpoint.num_done
            if resumed:
                log.info("resuming: %s rows found done in %s", f"{resumed:,}", checkpoint.directory)
            with Progress(survey.to_do, resumed, bar=show_bar) as progress:
                for window in _plan(run, checkpoint):
                    _generate(run, window, checkpoint, progress)
            checkpoint.commit()
            summary = _publish(run, survey, checkpoint, resumed, started)
            checkpoint.remove()
    return summary


@contextmanager
def _only_run(output: Path) -> Iterator[None]:
    if not output.parent.is_dir():
        raise CatalogError(f"{output}: there is no directory {output.parent}")
    lock_file = output.with_name(f".{output.name}.lock")
    lock_file.touch()  # a directory that can't be written to is an error of its own, not a lock that is held
    lock = filelock.FileLock(lock_file, timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout as error:
        raise TryAgain(f"another run is writing {output} (lock {lock.lock_file}); try again when it is done") from error


def _prepare(config: RunConfig, should_stop: Callable[[], int]) -> _Run:
    """Open what the run needs, cheapest checks first; no weights yet."""
    template = read_template(Path(config.template)) if config.template else None
    told = RoleOptions(
        config.id_column, config.title_column, config.category_column, config.description_column, config.attributes
    )
    catalog = Catalog(
        Path(config.catalog), told, delimiter=config.delimiter, encoding=config.encoding, limit=config.limit
    )
    _check_columns(catalog, config)
    for note in catalog.notes:
        log.warning("%s", note)
    log.info("%s: %s", config.catalog, catalog.roles.summary())
    files = find_model(config.model, config.revision)
    device = pick_device(config.device)
    params = SamplingParams(
        config.max_new_tokens, config.temperature, config.top_k, config.top_p, config.repetition_penalty
    )
    return _Run(
        config, catalog, files, device, pick_dtype(config.dtype, device), Categories(template), params, should_stop
    )


def _check_columns(catalog: Catalog, config: RunConfig) -> None:
    if "generation" in catalog.schema.names:
        raise CatalogError(
            f"{catalog.path}: has a column 'generation', which the output needs for itself; rename it. (Is it an"
            " enriched file? Run the catalog it was made from.)"
        )
    column = config.output_column
    if column in catalog.schema.names and column != catalog.roles.description and not config.overwrite:
        raise CatalogError(
            f"{catalog.path}: has a column {column!r} beside the existing descriptions in"
            f" {catalog.roles.description!r}; name another with --output-column, or --overwrite it"
        )


def _open_checkpoint(run: _Run) -> Checkpoint:
    config = run.config
    options = config.text_options() | {"template": digest(run.categories.sources())}
    fingerprint = {
        "enrich version": enrich.__version__,
        "catalog content": run.catalog.identity,
        "model files": run.files.revision,
        "dtype": run.dtype,
        **options,
    }
    output = config.output_path
    checkpoint = Checkpoint.open(
        output.with_name(output.name + ".checkpoint"),
        fingerprint,
        run_id=_new_run_id(),
        restart=config.restart,
        commit_rows=config.commit_rows,
        commit_seconds=config.commit_seconds,
    )
    for note in checkpoint.notes:
        log.warning("%s", note)
    return checkpoint


def _survey(run: _Run) -> _Survey:
    rows = kept = 0
    for batch, products in run.catalog.batches():
        _stop_if_asked(run, "nothing was generated yet")
        rows += len(batch)
        kept += sum(_is_kept(product, run.config) for product in products)
    log.info("%s rows: %s to do, %s keep their description", f"{rows:,}", f"{rows - kept:,}", f"{kept:,}")
    return _Survey(rows, kept)


def _is_kept(product: Product, config: RunConfig) -> bool:
    return bool(product.description) and not config.overwrite


def _plan(run: _Run, checkpoint: Checkpoint) -> Iterator[list[_Row]]:
    """Render, tokenize and key the rows to do, in catalog order; yield those not done yet, a window at a time."""
    templates = {category: compile_template(category.template, category.name) for category in run.categories}
    builder = PromptBuilder(
        choose_template=lambda product: templates[run.categories.of(product)],
        encode=run.tokenizer.encode,
        max_tokens=run.longest_prompt,
    )
    keys = KeyMaker(run.files.revision, asdict(run.params), run.config.seed)
    window: list[_Row] = []
    for _, products in run.catalog.batches():
        _stop_if_asked(run, _committed(checkpoint))
        wanted = [product for product in products if not _is_kept(product, run.config)]
        for product in wanted:
            if not product.title and not checkpoint.is_done(product.ordinal):
                checkpoint.add(_quarantined(product, "no_title", checkpoint.run_id))
        titled = [run.categories.of(product).arrange(product) for product in wanted if product.title]
        for prompt in builder.build(titled):
            # Keys count equal rows, so the ones already done are counted too.
            key = keys.key(prompt.product.id, prompt.text)
            if checkpoint.is_done(prompt.product.ordinal):
                continue
            if prompt.token_ids:
                window.append(_Row(prompt.product.ordinal, key, prompt))
            else:
                checkpoint.add(_quarantined(prompt.product, "prompt_too_long", checkpoint.run_id))
        if len(window) >= _WINDOW_ROWS:
            yield window
            window = []
    if window:
        yield window


def _quarantined(product: Product, reason: str, run_id: str) -> Outcome:
    # An old description is better than none, even where it was to be replaced.
    return Outcome(
        product.ordinal, product.description or None, Generation(QUARANTINED, flags=(reason,), run_id=run_id)
    )


def _generate(run: _Run, window: Sequence[_Row], checkpoint: Checkpoint, progress: Progress) -> None:
    """Generate the window's rows bucket by bucket, clean each text and hand it to the checkpoint."""
    config, engine = run.config, run.engine
    started = time.monotonic()
    for bucket in buckets.group((len(row.prompt.token_ids) for row in window), run.longest_prompt):
        rows = [window[index] for index in bucket.items]
        requests = [Request(row.prompt.token_ids, seed_of(row.key)) for row in rows]
        batch_rows = buckets.batch_rows(bucket.edge, run.params.max_new_tokens, config.batch_size, config.batch_tokens)
        for index, completion in engine.generate(requests, bucket.edge, batch_rows, lambda: run.should_stop() != 0):
            checkpoint.add(_outcome(run, rows[index], requests[index], completion, bucket.edge, checkpoint.run_id))
            progress.advance(len(completion.token_ids))
        _stop_if_asked(run, _committed(checkpoint))
    run.generating_seconds += time.monotonic() - started


def _outcome(run: _Run, row: _Row, request: Request, completion: Completion, edge: int, run_id: str) -> Outcome:
    product = row.prompt.product
    cleaned = clean_text(run.tokenizer.decode(completion.token_ids))
    flags = (*cleaned.flags, *(("attributes_dropped",) if row.prompt.dropped else ()))
    generation = Generation(
        status=GENERATED if cleaned.text else QUARANTINED,
        key=row.key,
        model=run.files.name,
        model_revision=run.files.revision,
        prompt_tokens=len(request.prompt_token_ids),
        generated_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
        seed=request.seed,
        attempt=request.attempt,
        bucket=edge,
        flags=flags,
        generated_at=datetime.now(UTC),
        run_id=run_id,
    )
    return Outcome(product.ordinal, cleaned.text or product.description or None, generation)


def _publish(run: _Run, survey: _Survey, checkpoint: Checkpoint, resumed: int, started: float) -> Summary:
    """Join the source's rows with their outcomes, in order, prove that none is missing or double, and publish."""
    config = run.config
    counts: Counter[str] = Counter()
    prompt_tokens = generated_tokens = joined = 0
    ordinals = _ranges(run.catalog)
    with OutputWriter(config.output_path, run.catalog.schema, config.output_column) as writer:
        for (batch, products), outcomes in zip(run.catalog.batches(), checkpoint.outcomes(ordinals), strict=True):
            _stop_if_asked(run, _committed(checkpoint))
            texts, generations = [], []
            for product in products:
                outcome = outcomes.get(product.ordinal)
                if outcome is None and not _is_kept(product, config):
                    raise ReconciliationError(
                        f"{config.output_path} was withheld: row {product.ordinal + 1} of the catalog has no outcome"
                    )
                texts.append(outcome.text if outcome else product.description)
                generations.append(outcome.generation if outcome else Generation(KEPT, run_id=checkpoint.run_id))
            writer.write(batch, texts, generations)
            joined += len(outcomes)
            counts.update(generation.status for generation in generations)
            prompt_tokens += sum(generation.prompt_tokens or 0 for generation in generations)
            generated_tokens += sum(generation.generated_tokens or 0 for generation in generations)
        if joined != checkpoint.num_listed or counts.total() != survey.rows:
            raise ReconciliationError(
                f"{config.output_path} was withheld: {survey.rows} rows in, {counts.total()} out;"
                f" {checkpoint.num_listed} outcomes, {joined} of them joined"
            )
        summary = Summary(
            rows=survey.rows,
            generated=counts[GENERATED],
            reused=0,
            kept=counts[KEPT],
            quarantined=counts[QUARANTINED],
            prompt_tokens=prompt_tokens,
            generated_tokens=generated_tokens,
            seconds=round(time.monotonic() - started, 3),
            tokens_per_second=round(run.tokens_per_second, 1),
            padding_waste=round(run.stats.padding_waste, 4),
            resumed_rows=resumed,
            output=str(config.output_path),
            run_id=checkpoint.run_id,
        )
        writer.publish(survey.rows, _facts(run, summary))
    return summary


def _facts(run: _Run, summary: Summary) -> dict[str, Any]:
    """Return what is true of the whole run, for the output's metadata."""
    versions = {name: metadata.version(name) for name in ("polars", "pyarrow", "torch", "transformers")}
    return {
        "summary": asdict(summary),
        "config": run.config.as_dict(),
        "roles": asdict(run.catalog.roles),
        "catalog": {"content": run.catalog.identity, "columns": len(run.catalog.schema)},
        "model": {"name": run.files.name, "revision": run.files.revision, "context": run.files.context},
        "device": run.device,
        "dtype": run.dtype,
        "decode_waste": round(run.stats.decode_waste, 4),
        "versions": {"enrich": enrich.__version__, "python": platform.python_version(), **versions},
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _ranges(catalog: Catalog) -> Iterator[tuple[int, int]]:
    first = 0
    for batch, _ in catalog.batches():
        yield first, first + len(batch)
        first += len(batch)


def _stop_if_asked(run: _Run, state: str) -> None:
    signal_number = run.should_stop()
    if signal_number:
        raise Interrupted(signal_number, f"stopped by {signal.Signals(signal_number).name}: {state}")


def _committed(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.num_done:,} rows are done and committed; the same command goes on from there"


def _new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
