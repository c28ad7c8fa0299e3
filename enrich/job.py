"""The job: one run from catalog to published file."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich.ahead import one_ahead
from enrich.checkpoint import PROGRESS, Checkpoint
from enrich.config import RunConfig
from enrich.errors import ConfigError, TryAgain
from enrich.output import OutputWriter, facts_or_none, is_intact, read_facts
from enrich.output.changes import ChangesWriter
from enrich.output.drift import Profile
from enrich.output.merge import check_alike, find_shards, merged, note_path, read_note, shards_beside, write_note
from enrich.output.quarantine import QuarantineWriter, quarantine_path, read_quarantine, renumbered
from enrich.plan import Plan
from enrich.shard import ROW, Shard
from enrich.stages.foresee import foresee as foreseen
from enrich.stages.foresee import speed_kind
from enrich.stages.generate import generate
from enrich.stages.judging import judge_again
from enrich.stages.publish import publish
from enrich.stages.setup import (
    CHECKPOINT,
    JUDGING,
    LEFT_BEHIND,
    Run,
    committed,
    fingerprint,
    new_run_id,
    open_checkpoint,
    prepare,
    was_published,
)
from enrich.stages.survey import keep_survey, survey_catalog
from enrich.stages.windows import plan_windows
from enrich.staging import Stage, staged
from enrich.storage.durable import behind_links, temporary_of
from enrich.storage.lock import forget, only_run
from enrich.summary import Summary, total
from enrich.timing.progress import Progress, is_watched
from enrich.timing.speeds import note_speed, read_speed
from enrich.timing.usage import total_usage

log = logging.getLogger("enrich")


def run(
    config: RunConfig, *, show_bar: bool | None = None, should_stop: Callable[[], int] = lambda: 0, model: Any = None
) -> Summary:
    """Enrich a catalog: write a description for every product without one and publish the result.

    Texts of the run before are carried over where nothing has changed that they depend on; if that holds for the whole
    catalog, the published file is left alone. A run that was broken off goes on from its checkpoint. `should_stop` is
    asked between tokens; a number other than 0 is the signal to stop for. A bar is shown on a terminal and in a
    notebook, or as `show_bar` says. `model` is the configuration's model, if it has been loaded already.

    Raises the errors of `enrich.errors`; the file published before is then still in place.
    """
    with staged(config, should_stop) as stage:
        return run_staged(stage, show_bar=show_bar, should_stop=should_stop, model=model)


def run_staged(
    stage: Stage, *, show_bar: bool | None = None, should_stop: Callable[[], int] = lambda: 0, model: Any = None
) -> Summary:
    """Do the same on the local copies that a stage lends, for one who has more to do with them before it ends."""
    config = stage.config
    started = time.monotonic()
    with only_run(config.output_path), closing(prepare(config, should_stop)) as run:
        run.model, run.names = model, stage.names
        if (facts := _unchanged(run)) is not None:
            return _left_alone(run, facts, started)
        checkpoint = open_checkpoint(run, stage.after_commit)
        survey = survey_catalog(run, checkpoint)
        if len(survey.waiting):
            run.tokenizer  # noqa: B018 - one that does not belong to the model is refused before a checkpoint is begun
        with checkpoint:
            keep_survey(survey, checkpoint)
            resumed = checkpoint.num_done
            if resumed:
                log.info("resuming: %s rows found done in %s", f"{resumed:,}", checkpoint.directory)
            survey = judge_again(run, survey, checkpoint)
            bar, state = is_watched() if show_bar is None else show_bar, checkpoint.directory / PROGRESS
            speed = read_speed(speed_kind(run))
            with (
                Progress(
                    survey.to_do, resumed, bar=bar, state=state, slots=run.stats,
                    usual_seconds=speed.seconds_of_row if speed else None,
                ) as progress,
                closing(one_ahead(plan_windows(run, survey, checkpoint))) as windows,
            ):  # fmt: skip
                finished = all(generate(run, window, checkpoint, progress) for window in windows)
            checkpoint.commit()
            run.close()  # workers may cost by the hour
            if not finished and not config.publish_partial:
                raise TryAgain(f"time is up: {committed(checkpoint)}")
            summary = publish(run, survey, checkpoint, resumed, started, partial=not finished)
            if not finished:
                raise TryAgain(
                    f"time is up: published {config.output_path} with {summary.pending:,} of {summary.rows:,} rows"
                    " pending; the same command goes on from there",
                    summary,
                )
            generating = run.generating_seconds
            if generating:
                note_speed(speed_kind(run), run.meter.as_list(), time.monotonic() - started - generating)
            _sweep(run)
            checkpoint.remove()
    return summary


def _sweep(run: Run) -> None:
    """Remove what killed runs may have left beside the output, save for the checkpoint."""
    for directory in (run.beside_output(LEFT_BEHIND), run.beside_output(JUDGING), run.carried_path):
        shutil.rmtree(directory, ignore_errors=True)
    output = run.config.output_path
    for path in (output, quarantine_path(output)):
        temporary_of(path).unlink(missing_ok=True)


def plan(config: RunConfig, shards: int) -> list[str] | None:
    """Return the shards for `enrich run --shard`, or None if nothing has changed since the output was published."""
    if config.is_remote:
        raise ConfigError("shards work on local files only, not on remote storage")
    with only_run(config.published_path):
        run = prepare(config, lambda: 0)
        return None if _unchanged(run) is not None else [str(Shard(n + 1, shards)) for n in range(shards)]


def foresee(config: RunConfig, price_per_hour: float | None = None) -> Plan:
    """Say what a run would do and take, without its weights and without writing anything.

    Raises what the run would raise before it generates.
    """
    with staged(config, reads_only=True) as stage, only_run(stage.config.output_path), ExitStack() as stack:
        run = stack.enter_context(closing(prepare(stage.config, lambda: 0)))
        run.names = stage.names
        return foreseen(run, price_per_hour)


def _unchanged(run: Run) -> dict[str, Any] | None:
    """Return the published file's facts if it is what this run would make of this very catalog, untouched since."""
    config = run.config
    path = config.published_path
    if config.fresh or config.restart or config.previous or config.shard or not path.is_file():
        return None
    facts = facts_or_none(path)
    if facts.get("fingerprint") != fingerprint(run) or facts["summary"]["pending"]:
        return None
    try:
        return facts if is_intact(path, facts, config.output_column) else None
    except (OSError, KeyError, pa.ArrowException):
        return None  # whatever it is, it will be told when its texts are looked for


def _left_alone(run: Run, facts: dict[str, Any], started: float) -> Summary:
    before = Summary(**facts["summary"])
    log.info("unchanged: %s is what this run would make", run.config.output_path)
    checkpoint = run.beside_output(CHECKPOINT)
    # If the run that has published was killed since, nobody has been told that its changes are there: they stay.
    if run.config.changes and not was_published(run, Checkpoint.run_id_of(checkpoint)):
        ChangesWriter.write_none(Path(run.config.changes), run.published_schema, run.config.output_column)
    _sweep(run)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return replace(
        before,
        generated=0,
        retried=0,
        reused=before.generated + before.reused,
        prompt_tokens=0,
        generated_tokens=0,
        tokens_per_second=0.0,
        padding_waste=0.0,
        resumed_rows=0,
        unchanged=True,
        drift=0.0,
        seconds=round(time.monotonic() - started, 3),
        output=run.names(str(run.config.output_path)),
    )


def merge(output: Path, changes: Path | None = None) -> Summary:
    """Join the shards that lie beside an output, publish it and remove them.

    Raises TryAgain if one is still being written, ReconciliationError if one is missing, if a row is there twice, or if
    they are not of one catalog, model and set of options; the file published before is then still in place.
    """
    started = time.monotonic()
    output = behind_links(output)
    with only_run(output), ExitStack() as stack:
        if (published := _merged_before(output)) is not None:
            return published
        shards = find_shards(output)
        for path in shards.values():
            stack.enter_context(only_run(path))
        facts = {path: read_facts(path) for path in shards.values()}
        check_alike(facts)
        first = next(iter(facts.values()))
        column, id_column = first["config"]["output_column"], first["roles"]["id"]
        schema = pq.read_schema(next(iter(shards.values())))
        schema = schema.remove(schema.get_field_index(ROW))
        source = schema.remove(schema.get_field_index("generation"))
        rows = sum(fact["summary"]["rows"] for fact in facts.values())
        with (
            OutputWriter(output, source, column) as writer,
            ChangesWriter(changes, output, source, id_column, column) as changes_writer,
            QuarantineWriter(output, output) as quarantine_writer,
        ):
            quarantined: list[dict[str, Any]] = []
            for table in merged(list(shards.values())):
                batches = table.to_batches()
                for batch in batches:
                    changes_writer.write(batch)
                writer.append(batches)
            summary = total(
                [fact["summary"] for fact in facts.values()],
                output=str(output),
                seconds=round(time.monotonic() - started, 3),
                run_id=new_run_id(),
            )
            profiles = [(Profile.read(fact), fact["summary"]["rows"]) for fact in facts.values()]
            profile = Profile.mean([(part, count) for part, count in profiles if part is not None])
            for path in shards.values():
                lines = list(read_quarantine(quarantine_path(path)))
                places = pq.read_table(path, columns=[ROW])[ROW].to_pylist() if lines else []
                quarantined += renumbered(lines, places)
            whole = {"summary": asdict(summary), "shard": None, "profile": profile.as_dict()}
            writer.finish(rows, first | whole | {"buckets": total_usage(facts.values())})
            changes_writer.publish()
            quarantine_writer.write_lines(quarantined)
            quarantine_writer.publish()
            if writer.is_as_published():
                summary = replace(summary, unchanged=True)
            stands = facts_or_none(output).get("summary", {}).get("run_id") if summary.unchanged else summary.run_id
            write_note(output, stands, [fact["summary"]["run_id"] for fact in facts.values()])
            if not summary.unchanged:
                writer.publish()
        _remove(shards.values())
        note_path(output).unlink()
    return summary


def _merged_before(output: Path) -> Summary | None:
    """Remove the shards that a merge has published that was then killed; return its summary if there are no others."""
    run_id, merged_ids = read_note(output)
    facts = facts_or_none(output)
    if run_id is None or facts.get("summary", {}).get("run_id") != run_id:
        return None
    with ExitStack() as stack:
        found = list(shards_beside(output).values())
        done = [path for path in found if facts_or_none(path).get("summary", {}).get("run_id") in merged_ids]
        for path in done:
            stack.enter_context(only_run(path))
        _remove(done)
    note_path(output).unlink()
    return Summary(**facts["summary"]) if len(done) == len(found) else None


def _remove(shards: Iterable[Path]) -> None:
    for path in shards:
        quarantine_path(path).unlink(missing_ok=True)
        forget(path)
        path.unlink()
