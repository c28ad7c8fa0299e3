"""Setting up: what the stages of a run share, opened and checked before anything is generated."""

from __future__ import annotations

import logging
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import enrich
from enrich.catalog import Catalog, RoleOptions
from enrich.catalog.sharded import ShardOfCatalog
from enrich.categories import Categories, Category
from enrich.checkpoint import Checkpoint
from enrich.config import RunConfig
from enrich.engine.files import ModelFiles, find_model
from enrich.engine.loading import load_model, pick_device, pick_dtype
from enrich.engine.protocol import Completion, Engine, EngineStats, SamplingParams
from enrich.engine.stopping import cut_at
from enrich.engine.tokenizer import Tokenizer
from enrich.errors import CatalogError, ConfigError, Interrupted
from enrich.grounding import Grounding
from enrich.keys import digest
from enrich.listing import Listing, most_characters
from enrich.names import Names
from enrich.output import facts_or_none, output_schema
from enrich.product import Product
from enrich.prompts import Prompt, Wording, compile_template, read_template
from enrich.quality import Rulebook
from enrich.rulebooks import rulebooks
from enrich.stages.judging_crew import Draft, JudgingCrew
from enrich.timing.clock import Deadline
from enrich.timing.usage import Meter
from enrich.wishes import WISHES_FILE
from enrich.wordings import wordings

if TYPE_CHECKING:
    from enrich.engine.cluster import Cluster

log = logging.getLogger("enrich")

CHECKPOINT = ".checkpoint"
LEFT_BEHIND = ".checkpoint.old"  # parts of checkpoints whose catalog has changed since
JUDGING = ".judging"  # rows being put into order


@dataclass
class Run:
    """What the stages of a run share. `config` has the model's wishes in it."""

    config: RunConfig
    catalog: Catalog | ShardOfCatalog
    files: ModelFiles
    categories: Categories
    params: SamplingParams
    should_stop: Callable[[], int]
    deadline: Deadline
    stats: EngineStats = field(default_factory=EngineStats)
    generating_seconds: float = 0.0
    meter: Meter = field(default_factory=Meter)
    model: Any = None  # with its weights, where it is lent to the run by who has loaded it
    names: Names = field(default_factory=Names)

    @cached_property
    def device(self) -> str:
        """`cpu`, `cuda` or `mps`."""
        wanted = self.config.device
        return self.cluster.device(wanted) if self.config.ray else pick_device(wanted)

    @cached_property
    def dtype(self) -> str:
        """The weights' number format, as torch names it."""
        wanted = "float32" if self.config.deterministic else self.config.dtype
        return self.cluster.dtype(wanted, self.device) if self.config.ray else pick_dtype(wanted, self.device)

    @cached_property
    def wordings(self) -> dict[Category, Wording]:
        """How the products of each category are put to the model."""
        return wordings(self.categories, chat=bool(self.config.chat))

    def wording(self, product: Product) -> Wording:
        """Return how a product is put to the model."""
        return self.wordings[self.categories.of(product)]

    @cached_property
    def rulebooks(self) -> dict[Category, Rulebook]:
        """The categories' rules, the run's own settings over them. Raises ConfigError if one can't be."""
        most = most_characters(self.config.channels or ())
        settings = {"max_characters": str(most)} if most else {}
        return rulebooks(self.categories, settings | self.config.rule_settings(), strict_facts=self.config.strict_facts)

    def rulebook(self, product: Product) -> Rulebook:
        """Return the rules for a product."""
        return self.rulebooks[self.categories.of(product)]

    @cached_property
    def judges(self) -> JudgingCrew[Any]:
        """Who cleans and judges what the model writes."""
        return JudgingCrew({category.name: book for category, book in self.rulebooks.items()})

    @cached_property
    def grounding(self) -> Grounding | None:
        """What texts must not have, if they are to be held to that while they are generated."""
        return Grounding(self.tokenizer.token_texts()) if self.config.grounded else None

    @cached_property
    def listing(self) -> Listing:
        """The columns that are added for shops and channels."""
        config = self.config
        return Listing(seo=config.seo, channels=config.channels or (), overwrite=config.overwrite)

    @property
    def rules_digest(self) -> str:
        """Hash what becomes of the models' texts: every category's rules, and how often a text is tried."""
        books = sorted((category.name, book.digest) for category, book in self.rulebooks.items())
        return digest([str(self.config.max_attempts), *(part for book in books for part in book)])

    @property
    def form(self) -> dict[str, Any]:
        """How a text is made of prompt and completion, if it is not the completion alone; for keys."""
        form = {"continues_prompt": self.continues_prompt, "grounded": self.config.grounded}
        return {name: True for name, holds in form.items() if holds}

    @property
    def continues_prompt(self) -> bool:
        """Whether a text begins with its prompt."""
        return bool(self.files.wishes.continues_prompt) and not self.config.chat

    def draft(self, prompt: Prompt, completion: Completion) -> Draft:
        """Return what the model has written, not cleaned yet."""
        beginning = ""
        if self.continues_prompt:
            beginning, text = prompt.text, self.tokenizer.decode_after(prompt.token_ids, completion.token_ids)
        else:
            text = self.tokenizer.decode(completion.token_ids)
        text = beginning + cut_at(text, self.params.stop)
        category = self.categories.of(prompt.product)
        return Draft(text, completion.finish_reason == "length", beginning, prompt.product, category.name)

    def beside_output(self, suffix: str) -> Path:
        """Return the output's path with something put behind its name."""
        return self.config.output_path.with_name(self.config.output_path.name + suffix)

    @property
    def carried_path(self) -> Path:
        """Where rows are put into order while publishing."""
        return self.config.output_path.with_name(f".{self.config.output_path.name}.carried")

    @property
    def previous_path(self) -> Path:
        """Where the texts of the run before are."""
        return Path(self.config.previous) if self.config.previous else self.config.published_path

    @cached_property
    def published_schema(self) -> pa.Schema:
        """The catalog's columns and those of the listing. Raises CatalogError if one can't be filled."""
        try:
            return self.listing.extend(self.catalog.schema)
        except CatalogError as error:
            raise CatalogError(f"{self.config.catalog}: {error}") from error

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
        """The model's tokenizer, loaded when the first prompt needs it."""
        return Tokenizer(self.files, chat=bool(self.config.chat))

    @cached_property
    def cluster(self) -> Cluster:
        """Ray, for a run with workers: started or joined when it is first needed."""
        from enrich.engine.cluster import Cluster  # most runs need neither it nor torch yet

        return Cluster(self.config.ray, self.config.workers)

    def close(self) -> None:
        """Let go of the workers and of those who judge, if there are any."""
        if (judges := self.__dict__.pop("judges", None)) is not None:
            judges.close()
        if (cluster := self.__dict__.pop("cluster", None)) is not None:
            cluster.close()

    @cached_property
    def engine(self) -> Engine:
        """Return the engine, its weights loaded when the first row needs them."""
        from enrich.engine.choice import make_engine
        from enrich.engine.worker import Setup

        if self.config.uses_workers:
            return self.cluster.engine(
                Setup(
                    version=enrich.__version__,
                    model=self.files.found_at,
                    digest=self.files.revision,
                    device=self.device,
                    dtype=self.dtype,
                    params=self.params,
                    chat=bool(self.config.chat),
                    deterministic=self.config.deterministic,
                ),
                self.stats,
                self.should_stop,
            )
        model = self.model
        if model is None:
            log.info("loading %s (%s) on %s in %s", self.files.name, self.files.revision[:12], self.device, self.dtype)
            model = load_model(self.files, self.device, self.dtype)
        return make_engine(
            model,
            self.tokenizer,
            self.params,
            self.stats,
            deterministic=self.config.deterministic,
            owns_model=self.model is None,
        )


def prepare(config: RunConfig, should_stop: Callable[[], int]) -> Run:
    """Open what the run needs, cheapest checks first; no weights yet."""
    if config.uses_workers and find_spec("ray") is None:
        raise ConfigError(f"{'--ray' if config.ray else '--workers'} needs Ray: pip install 'enrich[ray]'")
    template = read_template(Path(config.template)) if config.template else None
    told = RoleOptions(
        config.id_column, config.title_column, config.category_column, config.description_column, config.attributes
    )
    whole = Catalog(
        Path(config.catalog), told, delimiter=config.delimiter, encoding=config.encoding, limit=config.limit
    )
    config = _under_the_catalog_s_name(whole, config)
    _check_columns(whole, config)
    shard = config.which_shard()
    catalog = ShardOfCatalog(whole, shard) if shard else whole
    if config.changes and catalog.roles.id is None:
        raise ConfigError("--changes needs a column of product ids; name it with --id-column")
    for note in catalog.notes:
        log.warning("%s", note)
    log.info("%s: %s", config.catalog, catalog.roles.summary())
    if catalog.roles.description is None and config.description_column is None:
        every = "%s: no column of descriptions was found, every row gets one; if there is one, use --description-column"
        log.info(every, config.catalog)
    files = find_model(config.model, config.revision)
    config = config.completed(files.wished)
    if config.chat and not files.has_chat_template:
        raise ConfigError(f"--chat: model {files.name} has no chat template; leave it out")
    params = SamplingParams(**config.sampling())
    if config.device not in ("auto", "cpu") and not config.ray:
        pick_device(config.device)  # it may be missing, which is to be told even if nothing turns out to be changed
    deadline = Deadline(config.seconds_left())
    if template is not None and files.template is not None:
        log.warning("%s", _not_its_own(config.template or "", files))
    elif template is None and files.template is not None:
        template = files.template
        compile_template(template, f"of model {files.name}")
    categories = Categories(template, Path(config.categories) if config.categories else None)
    run = Run(config, catalog, files, categories, params, should_stop, deadline)
    run.rulebooks  # noqa: B018 - a setting that can't be is to be told before anything is read
    # Here it is told, too, if a column can't be filled.
    if twins := _alike(output_schema(run.published_schema, config.output_column).names):
        log.warning("%s: columns that differ in capitals alone are one to SQL: %s", config.catalog, ", ".join(twins))
    return run


def _not_its_own(template: str, files: ModelFiles) -> str:
    """Return what to tell of a template beside a model that was trained on another."""
    own = files.directory / WISHES_FILE
    where = f"; that is in {own}" if own.is_file() else ""
    return (
        f"--template {template}: model {files.name} was made for a template of its own{where}. Asked in another way it"
        " may write nonsense: read some texts first (--limit 20)"
    )


def _under_the_catalog_s_name(catalog: Catalog, config: RunConfig) -> RunConfig:
    """Let the texts go into the catalog's own column of descriptions if its name differs in capitals alone.

    SQL knows `Description` and `description` for one: beside each other, one of them could not be reached.
    """
    own, column = catalog.roles.description, config.output_column
    if own and own != column and own.lower() == column.lower() and column not in catalog.schema.names:
        return replace(config, output_column=own)
    return config


def _alike(names: Sequence[str]) -> list[str]:
    """Return the names that differ from another one in capitals alone."""
    counts = Counter(name.lower() for name in names)
    return [name for name in names if counts[name.lower()] > 1]


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


def fingerprint(run: Run) -> dict[str, Any]:
    """Return what the texts depend on, save for the number format, which is not known before torch is loaded."""
    systems = [wording.system for wording in run.wordings.values()] if run.config.chat else []
    options = run.config.text_options() | run.form
    options |= {"template": digest([*run.categories.sources(), *systems]), "rules": run.rules_digest}
    for folded in ("categories", "max_attempts", "strict_facts"):  # in one of the two digests
        del options[folded]
    return {
        "enrich version": enrich.__version__,
        "catalog content": run.catalog.identity,
        "model files": run.files.revision,
        **options,
    }


def open_checkpoint(run: Run, after_commit: Callable[[Checkpoint, Path | None], None] | None = None) -> Checkpoint:
    """Open the run's checkpoint, or begin one.

    One that was begun with another catalog or other rules is set aside: what it holds is found by key. Raises
    CheckpointMismatch if it was begun with other options.
    """
    config = run.config
    bound_to = fingerprint(run) | {"dtype": run.dtype}
    directory, left_behind = run.beside_output(CHECKPOINT), run.beside_output(LEFT_BEHIND)
    if config.restart:
        shutil.rmtree(left_behind, ignore_errors=True)
    elif changed := Checkpoint.set_aside(directory, bound_to, but=("catalog content", "rules"), aside=left_behind):
        what = " and the ".join(name.removesuffix(" content") for name in changed)
        log.info("the %s changed since the run in %s was broken off; its texts are reused", what, directory)
    checkpoint = Checkpoint.open(
        directory,
        bound_to,
        run_id=new_run_id(),
        restart=config.restart,
        commit_rows=config.commit_rows,
        commit_seconds=config.commit_seconds,
        after_commit=after_commit,
    )
    for note in checkpoint.notes:
        log.warning("%s", note)
    return checkpoint


def was_published(run: Run, run_id: str | None) -> bool:
    """Say whether a run has published all its rows, though it has not come to its end."""
    before = facts_or_none(run.config.published_path).get("summary", {})
    return run_id is not None and before.get("run_id") == run_id and not before.get("pending")


def stop_if_asked(run: Run, state: str) -> None:
    """Raise Interrupted, with a word on the state of things, if the run was asked to stop."""
    signal_number = run.should_stop()
    if signal_number:
        raise Interrupted(signal_number, f"stopped by {signal.Signals(signal_number).name}: {state}")


def committed(checkpoint: Checkpoint) -> str:
    """Say how many rows are safe."""
    return f"{checkpoint.num_done:,} rows are done and committed; the same command goes on from there"


def new_run_id() -> str:
    """Make an id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
