"""The command in a process of its own, forked from one that has imported what a run needs.

Its arguments, environment, directory, output and exit code are those of a process that is started; what it saves is the
seconds that each would spend on imports. What depends on them is tested with `python -m enrich`: that help imports
nothing heavy, and what `huggingface_hub` reads from the environment only once.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
# Import, and no more: threads that something computed would start do not come along into a forked process.
_FORKS.set_forkserver_preload(
    [
        "pytest", "polars", "transformers.models.auto.modeling_auto", "transformers.models.gpt2.modeling_gpt2",
        "enrich.cli", "enrich.engine.choice", "enrich.job", "enrich.report.charts", "enrich.report.gather",
        "enrich.report.page",
    ]
)  # fmt: skip


def enrich(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with these variables besides those that the tests have."""
    with tempfile.TemporaryDirectory() as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        words = tuple(map(str, arguments))
        variables = {**os.environ, **environment}
        process = _FORKS.Process(target=_run, args=(words, str(cwd or Path.cwd()), variables, str(out), str(err)))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            process.join()
        assert process.exitcode is not None
        printed, told = (path.read_text("utf-8", "surrogateescape") for path in (out, err))
    return subprocess.CompletedProcess(["enrich", *words], process.exitcode, printed, told)


def _run(arguments: Sequence[str], cwd: str, variables: dict[str, str], out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    from enrich.cli import main

    main(list(arguments), prog_name="enrich")
