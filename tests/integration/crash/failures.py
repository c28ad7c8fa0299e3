"""Failures: disks that are full or read-only, damaged checkpoints, engines that fail, memory, clocks, two runs at once.

    python tests/integration/crash/failures.py       # `make fault-test`: all of it, at 300 rows

Each case ends in recovery or in an error of one line with its exit code; then the same command, without the fault, must
come to what an uninterrupted run publishes. Prints each case and how it ended.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Ended, Night, Nights, Server, State, kinds_of_points, random_of, seed_of_tests, table
from points import Plan

CHECKPOINT = "out.parquet.checkpoint"


class Bench:
    """What cases are tried on: nights, and a seed for what is drawn."""

    def __init__(self, nights: Nights, seed: int) -> None:
        self.nights = nights
        self.seed = seed

    def fails(self, night: Night, out: Path, code: int, says: str, *more: str, **options: Any) -> Ended:
        """Run a night that is to end with this code and a line that says so; last night's file must stay."""
        ended = self.nights.run(out, [*night.arguments, *more], **options)
        assert ended.code == code, f"exit code {ended.code} in place of {code}: {ended.log}"
        assert says in ended.log, f"{says!r} is not in: {ended.log}"
        if code >= 0:
            last = ended.log.splitlines()[-1]
            assert last.startswith("enrich: "), ended.log
            assert ("Traceback" in ended.log) == (code == 1 and "unexpected" in last), ended.log
            left = {path.name for path in out.iterdir() if path.name.endswith(".tmp")}
            assert not left, f"left behind: {left}"
        assert table(out / "out.parquet").equals(night.last)
        return ended

    def recovers(self, night: Night, out: Path, *more: str, changes_too: bool = True) -> Ended:
        """Run the same night, without a fault, to its end."""
        ended = self.nights.run(out, [*night.arguments, *more])
        assert ended.code == 0, ended.log
        State.read(out).check(night.expected, changes_too=changes_too)
        return ended

    def resumes(self, night: Night, out: Path, least: int = 1) -> None:
        """Do the same, and see that rows done before the fault were not done again."""
        log = self.recovers(night, out).log
        assert "rows found done" in log, log
        assert facts_of(out)["resumed_rows"] >= least


def facts_of(out: Path) -> dict[str, Any]:
    from harness import facts

    summary: dict[str, Any] = facts(out / "out.parquet")["summary"]
    return summary


@dataclass(frozen=True)
class Case:
    """Something that goes wrong. `run` returns how it ended, in words; `is_short` if it belongs to the short form."""

    name: str
    run: Callable[[Bench], str]
    is_short: bool = True


CASES: list[Case] = []


def case(name: str, *, short: bool = True, **options: Any) -> Callable[[Callable[..., str]], Callable[..., str]]:
    def listed(function: Callable[..., str]) -> Callable[..., str]:
        CASES.append(Case(name, lambda bench: function(bench, **options), short))
        return function

    return listed


# Disks


@contextmanager
def disk(bench: Bench, size: str = "24m") -> Iterator[Path | None]:
    """Lend a small file system of its own; None where none can be mounted."""
    place = Path(tempfile.mkdtemp(prefix="disk-", dir=bench.nights.server.scratch))
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True
        ).returncode
    )
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


@case("disk full while a part is written", where=r"begin .*part-000003", on="anew")
@case("disk full while a part is synced", where=r"fsync .*part-000003", on="anew", short=False)
@case("disk full while the manifest is begun", where=r"open .*manifest\.tmp", on="anew", short=False)
@case("disk full while the manifest is written", short=False, where=r"open .*manifest\.jsonl", on="anew")
@case("disk full while the manifest is synced", where=r"fsync .*manifest\.jsonl", on="anew", short=False)
@case("disk full while the output is begun", where=r"begin \.out\.parquet\.tmp", short=False)
@case("disk full while the output is written", where=r"close \.out\.parquet\.tmp")
@case("disk full while the output is synced", where=r"fsync \.out\.parquet\.tmp", short=False)
@case("disk full while the quarantine file is begun", where=r"open .*quarantine", short=False)
@case("disk full while the quarantine file is written", short=False, where=r"fsync .*quarantine")
@case("disk full while the changes are begun", where=r"begin .*changes", short=False)
@case("disk full while the changes are written", short=False, where=r"close .*changes")
def disk_full(bench: Bench, where: str, on: str = "changed") -> str:
    """Twice: on a file system that is filled to the last byte just then, and told so by whatever needs room."""
    night: Night = getattr(bench.nights, on)
    with night.place() as out:
        bench.fails(night, out, 75, "No space left on device", plan=Plan(match=where, action="full"))
        bench.recovers(night, out)
    with disk(bench) as place:
        if place is None:
            return "exit code 75; rerun complete (told by the operations; no disk could be mounted)"
        with night.place(place) as out:
            ended = bench.nights.run(out, night.arguments, plan=Plan(match=where, action="fill"))
            assert ended.code in (0, 75), ended.log  # 0 if what was left to write found room in pages that were there
            assert "Traceback" not in ended.log, ended.log
            if ended.code == 75:
                assert "No space left on device" in ended.log.splitlines()[-1], ended.log
                assert table(out / "out.parquet").equals(night.last)
            for path in out.parent.glob("ballast-*"):
                path.unlink()
            bench.recovers(night, out, changes_too=ended.code != 0)  # after a run that ended well there are none since
            return f"exit code 75; on a disk that is really full {ended.code}; rerun complete"


@case("disk full at each change of files", short=False, every=True, action="full", codes={0, 75})
@case("disk full at some changes of files", every=False, action="full", codes={0, 75})
@case("input/output error at each change of files", short=False, every=True, action="error", codes={0, 1})
@case("input/output error at some changes of files", every=False, action="error", codes={0, 1})
def failing_at(bench: Bench, every: bool, action: str, codes: set[int]) -> str:
    night = bench.nights.changed
    numbers = [point["point"] for point in night.points]
    if not every:
        numbers = random_of(bench.seed, action).sample(kinds_of_points(night), 2)
    ended_with: Counter[int] = Counter()
    for number in numbers:
        point = night.points[number - 1]
        with night.place() as out:
            ended = bench.nights.run(out, night.arguments, plan=Plan(at=number, action=action, number=errno.EIO))
            try:
                assert ended.code in codes, f"exit code {ended.code}: {ended.log}"
                assert "Traceback" not in ended.log, ended.log
                found = table(out / "out.parquet")
                assert found.equals(night.last) or found.equals(night.expected.published), "the output is neither"
                again = bench.nights.run(out, night.arguments)
                assert again.code == 0, again.log
                # After a run that ended well there are no changes since.
                State.read(out).check(night.expected, changes_too=ended.code != 0)
            except AssertionError as error:
                error.add_note(f"{action} at {point}; it said: {ended.log}")
                raise
            ended_with[ended.code] += 1
    told = ", ".join(f"exit code {code} {count} times" for code, count in sorted(ended_with.items()))
    return f"{len(numbers)} places: {told}; reruns complete"


@case("a directory that can't be written to")
def read_only(bench: Bench) -> str:
    night = bench.nights.anew
    with disk(bench) as place, night.place(place) as out:
        try:
            if place is not None:
                subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            else:
                out.chmod(0o555)
            plan = Plan(at=1, action="error", number=errno.EROFS) if place is None and os.getuid() == 0 else None
            before = {path.name: path.read_bytes() for path in out.iterdir()}
            ended = bench.fails(night, out, 2, "out.parquet", plan=plan)
            assert len(ended.log.splitlines()) == 1
            assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        finally:
            if place is not None:
                subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
            out.chmod(0o755)
        bench.recovers(night, out)
    return "exit code 2, nothing touched; once it can be written, complete"


@case("the output is a link to another file system", short=False)
def linked_output(bench: Bench) -> str:
    night = bench.nights.anew
    with disk(bench) as place, night.place() as out:
        elsewhere = (place or out.parent / "elsewhere") / "published.parquet"
        elsewhere.parent.mkdir(exist_ok=True)
        root = str(elsewhere.parent)
        shutil.move(out / "out.parquet", elsewhere)
        (out / "out.parquet").symlink_to(elsewhere)
        ended = bench.nights.run(out, night.arguments, plan=Plan(match="part-000002", root=root))
        assert ended.code == -signal.SIGKILL
        ended = bench.nights.run(out, night.arguments, plan=Plan(match=r"replace \S*\.parquet$", root=root))
        assert ended.code == -signal.SIGKILL or table(out / "out.parquet").equals(night.expected.published)
        assert table(elsewhere).equals(night.last)
        ended = bench.nights.run(out, night.arguments)
        assert ended.code == 0, ended.log
        assert table(out / "out.parquet").equals(night.expected.published)
        assert table(elsewhere).equals(night.expected.published)
        assert (out / "out.parquet").is_symlink()
        strange = {path.name for path in out.iterdir()} - night.expected.files
        assert not strange, strange
    return "published whole behind the link"


# Checkpoints


def broken_off(bench: Bench, night: Night, out: Path) -> Path:
    """Kill a run when three parts are listed; return its checkpoint."""
    ended = bench.nights.run(out, night.arguments, plan=Plan(match="begin .*part-000004"))
    assert ended.code == -signal.SIGKILL, ended.log
    return out / CHECKPOINT


def _truncate(part: Path, _: Bench) -> None:
    os.truncate(part, part.stat().st_size - 100)


def _flip(part: Path, bench: Bench) -> None:
    content = bytearray(part.read_bytes())
    content[random_of(bench.seed, "flip").randrange(len(content))] ^= 1
    part.write_bytes(content)


def _remove(part: Path, _: Bench) -> None:
    part.unlink()


def _exchange(part: Path, bench: Bench) -> None:
    """Put a part of another night's run in its place."""
    night = bench.nights.changed
    with night.place() as out:
        ended = bench.nights.run(out, night.arguments, plan=Plan(match="begin .*part-000002"))
        assert ended.code == -signal.SIGKILL, ended.log
        shutil.copy(out / CHECKPOINT / "part-000001.parquet", part)


@case("a part truncated", short=False, damage=_truncate)
@case("a part with a bit flipped", damage=_flip)
@case("a part gone", short=False, damage=_remove)
@case("a part of another run in the place of one", short=False, damage=_exchange)
def damaged_part(bench: Bench, damage: Callable[[Path, Bench], None]) -> str:
    night = bench.nights.anew
    with night.place() as out:
        damage(broken_off(bench, night, out) / "part-000002.parquet", bench)
        log = bench.recovers(night, out).log
        assert "is damaged or gone; its" in log, log
        assert "rows found done" in log, log
    return "a warning; its rows done again, the others' kept; complete"


@case("a part listed twice", short=False)
def listed_twice(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        manifest = broken_off(bench, night, out) / "manifest.jsonl"
        manifest.write_bytes(manifest.read_bytes() + manifest.read_bytes().splitlines(keepends=True)[1])
        bench.resumes(night, out)
    return "counted once; complete"


@case("the manifest's last line cut short", short=False, tail=b'{"part": {"name": "part-0000')
@case("garbage behind the manifest", tail=b"\x00\xff\xfe\n\n{}\n", short=False)
def torn_manifest(bench: Bench, tail: bytes) -> str:
    night = bench.nights.anew
    with night.place() as out:
        manifest = broken_off(bench, night, out) / "manifest.jsonl"
        manifest.write_bytes(manifest.read_bytes() + tail)
        bench.resumes(night, out)
    return "the listed rows kept; complete"


def _newer(content: bytes) -> bytes:
    header, *parts = content.splitlines(keepends=True)
    return b"".join([json.dumps(json.loads(header) | {"format": 99}).encode() + b"\n", *parts])


@case("an empty manifest", short=False, change=lambda _: b"")
@case("a manifest of garbage", short=False, change=lambda _: bytes(range(256)))
@case(
    "a manifest that is JSON but no manifest",
    short=False,
    change=lambda _: b'{"format": 2, "run_id": 5, "fingerprint": [1]}\n',
)
@case("a manifest of a newer version", change=_newer)
def no_manifest(bench: Bench, change: Callable[[bytes], bytes]) -> str:
    night = bench.nights.anew
    with night.place() as out:
        manifest = broken_off(bench, night, out) / "manifest.jsonl"
        manifest.write_bytes(change(manifest.read_bytes()))
        ended = bench.fails(night, out, 2, "--restart")
        assert "manifest.jsonl" in ended.log.splitlines()[-1]
        bench.recovers(night, out, "--restart")
    return "exit code 2, names --restart; with that, complete"


# Engines, memory, clocks


@case("an engine that throws", fault="throws", options={"step": 30}, code=1, says="device lost")
@case(
    "an engine that returns too few rows",
    short=False,
    fault="loses_rows",
    options={"from_row": 9},
    code=4,
    says="has no outcome",
)
@case(
    "scores that are not numbers", fault="gives_no_numbers", options={"step": 30, "value": math.nan}, code=2, says="NaN"
)
@case(
    "scores without end",
    short=False,
    fault="gives_no_numbers",
    options={"step": 30, "value": math.inf},
    code=2,
    says="NaN",
)
@case(
    "out of memory again and again", short=False,
    fault="out_of_memory", options={"step": 30, "kind": "allocator", "times": 1 << 60}, code=75, says="out of memory",
)  # fmt: skip
@case(
    "out of memory while publishing", short=False,
    fault="out_of_memory_while", options={"what": "publishing"}, code=75, says="out of memory",
)  # fmt: skip
def failing_engine(bench: Bench, fault: str, options: dict[str, Any], code: int, says: str) -> str:
    night = bench.nights.anew
    with night.place() as out:
        bench.fails(night, out, code, says, fault=fault, fault_options=options)
        bench.resumes(night, out)
    return f"exit code {code}; what was done is kept; rerun complete"


@case("out of memory while the model is loaded", short=False)
def no_room_for_the_model(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        bench.fails(night, out, 75, "out of memory", fault="out_of_memory_while", fault_options={"what": "loading"})
        bench.recovers(night, out)
    return "exit code 75; rerun complete"


@case("out of memory at the second batch, as a GPU tells it", short=False, kind="device")
@case("out of memory at the second batch, as Python tells it", short=False, kind="python")
@case("out of memory at the second batch, as torch's allocator tells it", kind="allocator")
def out_of_memory(bench: Bench, kind: str) -> str:
    night = bench.nights.anew
    with night.place() as out:
        options = {"step": 20, "kind": kind}
        ended = bench.nights.run(out, night.arguments, fault="out_of_memory", fault_options=options)
        assert ended.code == 0, ended.log
        State.read(out).check(night.expected)
    return "half as many rows at once; the same run complete"


@case("a model whose weights are not numbers")
def broken_weights(bench: Bench) -> str:
    import torch
    from safetensors.torch import load_file, save_file

    night = bench.nights.anew
    with night.place() as out:
        place = night.arguments.index("--model") + 1
        broken = out.parent / "broken"
        shutil.copytree(night.arguments[place], broken)
        weights = load_file(broken / "model.safetensors")
        weights["transformer.ln_f.weight"] = torch.full_like(weights["transformer.ln_f.weight"], math.nan)
        save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
        bench.fails(night, out, 2, "NaN", "--model", str(broken))
        bench.recovers(night, out, "--restart")  # rows without a title are done, and bound to the broken model
    return "exit code 2; with the right model and --restart, complete"


@case("an engine that hangs, and SIGTERM twice", short=False)
def hangs(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        signals = [(3.0 + 2 * night.seconds, signal.SIGTERM), (1.3, signal.SIGTERM)]
        bench.fails(
            night, out, -signal.SIGTERM, "once more to stop at once",
            fault="hangs", signals=signals,
        )  # fmt: skip
        bench.resumes(night, out, least=3)
    return "ends at the second signal; rerun complete"


@case("an engine that hangs, and --max-time")
def hangs_past_its_time(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        options = {"stuck_seconds": 1.0}
        bench.fails(
            night, out, 75, "time is up", "--max-time", "2s",
            fault="hangs", fault_options=options, signals=[(60.0, signal.SIGKILL)],
        )  # fmt: skip
        bench.resumes(night, out, least=3)
    return "exit code 75 some time after its end; rerun complete"


@case("the clock set back by three days between two runs, and further at every look")
def clock_set_back(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        broken_off(bench, night, out)
        options = {"days": 3.0, "days_a_look": 0.01}
        ended = bench.nights.run(out, night.arguments, fault="clock_set_back", fault_options=options)
        assert ended.code == 0, ended.log
        assert "rows found done" in ended.log
        State.read(out).check(night.expected)
        status = bench.nights.run(out, ["status", "out.parquet", "--json"])
        assert json.loads(status.log)["state"] == "published"
    return "complete"


# Processes


@contextmanager
def real_command(
    bench: Bench, night: Night, out: Path, *shell: str, threads: str = "1"
) -> Iterator[subprocess.Popen[str]]:
    """Start the real command, a shell before it if told so; wait until it works on the output."""
    command = [sys.executable, "-m", "enrich", *night.arguments]
    environment = bench.nights.server.environment | {"OMP_NUM_THREADS": threads}
    process = subprocess.Popen(
        [*shell, *command], cwd=out, env=environment, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and not list(out.glob(f"{CHECKPOINT}/part-*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        yield process
    finally:
        with_group = f"kill -9 -{process.pid} 2>/dev/null; true"
        subprocess.run(["sh", "-c", with_group], check=True)
        process.communicate()


@case("two runs at once", short=False)
def two_at_once(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        first: list[Ended] = []

        def run_slowly() -> None:
            first.append(bench.nights.run(out, night.arguments, fault="is_slow", fault_options={"seconds": 0.1}))

        thread = threading.Thread(target=run_slowly)
        thread.start()
        while not (out / ".out.parquet.holder").exists():
            time.sleep(0.01)
        command = [sys.executable, "-m", "enrich", *night.arguments]
        second = subprocess.run(command, cwd=out, env=bench.nights.server.environment, capture_output=True, text=True)
        assert thread.is_alive(), "the first run was too quick"
        thread.join()
        assert second.returncode == 75, second.stderr
        assert "is being written by process" in second.stderr.splitlines()[-1]
        assert first[0].code == 0, first[0].log
        State.read(out).check(night.expected)
    return "the second: exit code 75, names the first; the first complete"


@case("the parent of a run killed", short=False)
def parent_killed(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        with real_command(bench, night, out, "sh", "-c", '"$@" & wait', "sh") as shell:
            holder = json.loads((out / ".out.parquet.holder").read_text())
            shell.kill()
            shell.wait()
            second = bench.nights.run(out, night.arguments)  # the orphan goes on and holds the lock, or has just ended
            assert second.code in (0, 75), second.log
            deadline = time.monotonic() + 120
            while Path(f"/proc/{holder['pid']}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        State.read(out).check(night.expected)
    return "the run goes on alone, the lock held, and ends complete"


@case("killed while its threads compute", short=False)
def killed_with_threads(bench: Bench) -> str:
    night = bench.nights.anew
    with night.place() as out:
        arguments = [*night.arguments]
        arguments[arguments.index("--batch-size") + 1] = "64"
        night_of_two = Night(night.name, night.before, arguments, night.expected, night.points, night.seconds)
        with real_command(bench, night_of_two, out, threads="2") as process:
            num_threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL
        assert num_threads > 2
        bench.recovers(night, out)
    return f"{num_threads} threads ended with it; rerun complete"


def main() -> int:
    """Run all cases and print how each ended."""
    parser = argparse.ArgumentParser(description="Let everything fail that can, and see that nothing is lost.")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from conftest import save_gpt2

    seed, started, failed, tried = seed_of_tests(), time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="enrich-failures-") as directory:
        save_gpt2(Path(directory) / "tiny-gpt2")
        server = Server()
        try:
            bench = Bench(
                Nights(
                    server, Path(directory) / "tiny-gpt2", Path(directory) / "nights", options.rows, options.rows // 9
                ),
                seed,
            )
            print(f"{options.rows} rows, ENRICH_TEST_SEED={seed}", flush=True)
            for one in CASES:
                if options.only not in one.name or (one.name.endswith("at some changes of files")):
                    continue
                tried += 1
                try:
                    print(f"{one.name}: {one.run(bench)}", flush=True)
                except AssertionError as error:
                    failed += 1
                    notes = "; ".join(getattr(error, "__notes__", []))
                    print(f"FAILED {one.name}: {error} {notes}", flush=True)
                    traceback.print_exc()
        finally:
            server.close()
    lost = "nothing" if not failed else f"see the {failed} cases marked FAILED"
    print(f"{tried} cases in {time.monotonic() - started:.0f} s; lost: {lost}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
