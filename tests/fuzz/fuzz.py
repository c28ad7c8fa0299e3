"""Fuzz the CSV and the template front end: with atheris, or without it by changing the cases that there are at random.

    python tests/fuzz/fuzz.py --seconds 600

Each target has half the time, in a process of its own. What breaks is written to tests/fuzz/cases/TARGET/, from where
tests/fuzz/test_cases.py tries it ever after; exits with 1 if there was anything.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CASES = HERE / "cases"
_LONGEST = 4_096  # bytes of an input
_SECONDS = 10  # that one input may take
_MEMORY = 3 << 30
_WORDS = {
    "csv": ["\"", "\"\"", ",", ";", "\t", "|", "\n", "\r\n", "\r", "\ufeff", "\0", "\"\n\"", ",\"", "\",", " ", "é",
            "😀", "title", "id,title\n", "'", "\x1b", "\u2028", "\xff\xfe", "a" * 200, "{", "[", "=cmd|",
                 "&lt;", "<b>"],
    "template": ["{{", "}}", "{%", "%}", "{#", "#}", "title", "category", "attributes", "id", "for ", " in ", "endfor",
                 "if ", "else", "endif", "set ", "x", "|", "join", "map(attribute='value')", "replace",
                 "upper", "lower", "'",
                 ".split()", "__class__", "__mro__", "__subclasses__()", "__globals__", "loop.index", "\"", "(", ")",
                 "[", "]", ":", "~", "+", "-", "%", "*", "9999", "99999999", "0", "'x'", "attr", "format",
                 "center", "int",
                 "list", "sort", "batch", "sum", "first", "last", "raw", "endraw", "filter ", "include ", "import ",
                 "macro ", "namespace", "self", "range", "cycler", "lipsum", "dict", "is ", "not ", "and ", "or ",
                 "{{ title }}", "recursive"],
}  # fmt: skip


class Slow(Exception):
    """An input took too long."""


class Watch:
    """Tries inputs, counts them, and keeps each kind of finding once."""

    def __init__(self, target: str, try_one: Callable[[bytes], None], found: Path) -> None:
        self.target, self.count, self.kinds = target, 0, set[str]()
        self._try, self._found = try_one, found
        signal.signal(signal.SIGALRM, self._alarm)

    def _alarm(self, *_: object) -> None:
        raise Slow(f"more than {_SECONDS} s")

    def __call__(self, data: bytes) -> None:
        self.count += 1
        signal.alarm(_SECONDS)
        try:
            self._try(data)
        except Exception as error:
            self._keep(data, error)
        finally:
            signal.alarm(0)

    def _keep(self, data: bytes, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {last.name}:{last.lineno}"
        if kind in self.kinds:
            return
        self.kinds.add(kind)
        name = hashlib.sha256(data).hexdigest()[:12]
        self._found.mkdir(parents=True, exist_ok=True)
        (self._found / name).write_bytes(data)
        print(f"  {self.target}: {kind}: {str(error)[:200]!r}; kept as {self._found / name}", flush=True)


def changed(data: bytes, others: list[bytes], words: list[bytes], draw: random.Random) -> bytes:
    """Return an input a little different: bytes flipped, cut, doubled, words put in, another's part put behind."""
    made = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at, to = sorted((draw.randint(0, len(made)), draw.randint(0, len(made))))
        choice = draw.randrange(6)
        if choice == 0 and made:
            made[draw.randrange(len(made))] = draw.randrange(256)
        elif choice == 1:
            del made[at:to]
        elif choice == 2:
            made[at:at] = made[at:to]
        elif choice in (3, 4):
            made[at:at] = draw.choice(words)
        else:
            other = draw.choice(others)
            made[at:to] = other[draw.randint(0, len(other)) :]
    return bytes(made[:_LONGEST])


def by_chance(watch: Watch, seconds: float, cases: list[bytes], words: list[bytes]) -> None:
    """Try changed cases until the time is up; some of what did no harm becomes a case itself."""
    draw = random.Random(0)
    pool = list(cases)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = changed(draw.choice(pool), pool, words, draw)
        watch(data)
        if draw.random() < 0.01:
            pool.append(data)
            if len(pool) > 2_000:
                pool.pop(draw.randrange(len(cases), len(pool)))


def by_coverage(watch: Watch, seconds: float, cases: Path, words: Path) -> None:
    """Let atheris choose inputs that reach new code; it ends the process itself, so the count is told before."""
    import atheris

    def one(data: bytes) -> None:
        watch(data)
        if time.monotonic() > end:
            _tell(watch, "atheris")
            sys.stdout.flush()
            import os

            os._exit(0)

    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as kept:
        atheris.Setup([sys.argv[0], kept, str(cases), f"-dict={words}", f"-max_len={_LONGEST}", "-verbosity=0"], one)
        atheris.Fuzz()


def _tell(watch: Watch, engine: str) -> None:
    print(json.dumps({"target": watch.target, "inputs": watch.count, "findings": len(watch.kinds), "by": engine}))


def fuzz_one(target: str, seconds: float, engine: str) -> None:
    """Fuzz one target in this process."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY)) if engine == "chance" else None
    sys.path.insert(0, str(HERE))
    sys.setrecursionlimit(1_000)
    cases = sorted(path for path in (CASES / target).iterdir() if path.is_file())
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["enrich", "jinja2", "targets"]):
            import targets
    else:
        import targets
    watch = Watch(target, targets.TARGETS[target], CASES / target)
    for case in cases:
        watch(case.read_bytes())
    words = [word.encode() for word in _WORDS[target]]
    if engine == "chance":
        by_chance(watch, seconds, [case.read_bytes() for case in cases], words)
        _tell(watch, engine)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".dict", delete=False) as file:
        for word in words:
            file.write('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n')
    by_coverage(watch, seconds, CASES / target, Path(file.name))


def main() -> int:
    """Fuzz all targets, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--target", choices=_WORDS)
    parser.add_argument("--engine", choices=("atheris", "chance"))
    told = parser.parse_args()
    if told.target and told.engine:
        fuzz_one(told.target, told.seconds, told.engine)
        return 0
    engine = told.engine or "chance"
    with contextlib.suppress(ImportError):
        import atheris  # noqa: F401

        engine = told.engine or "atheris"
    bad = 0
    for target in [told.target] if told.target else list(_WORDS):
        end = time.monotonic() + told.seconds / (1 if told.target else len(_WORDS))
        while (left := end - time.monotonic()) > 1:
            command = [sys.executable, __file__, "--target", target, "--engine", engine, "--seconds", f"{left:.0f}"]
            done = subprocess.run(command, capture_output=True, text=True)
            *lines, last = done.stdout.splitlines() or [""]
            for line in lines:
                print(line)
            if done.returncode == 0 and last.startswith("{"):
                found = json.loads(last)
                bad += found["findings"]
                print(
                    f"{target}: {found['inputs']:,} inputs by {found['by']}, {found['findings']} findings", flush=True
                )
            else:  # the interpreter itself died
                bad += 1
                print(f"{target}: ended with {done.returncode}: {done.stderr[-500:]}", flush=True)
                break
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
