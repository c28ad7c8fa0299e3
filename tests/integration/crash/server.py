"""A server of runs: imports all that a run needs once, then forks a process for each, so that none waits for imports.

Reads a request a line from standard input and answers with the process's number and, when it has ended, its exit
code. What is asked for beside the command's arguments is done to the forked process alone: see `points.py` and
`faults.py`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def serve() -> None:
    """Answer requests until standard input ends."""
    _import_all()
    answers = os.fdopen(os.dup(1), "w")
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            _run(request)
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)


def _import_all() -> None:
    """Import, and no more: threads that something computed would start do not come along into a forked process."""
    import badwords  # noqa: F401
    import numpy.ma  # noqa: F401
    import polars  # noqa: F401
    import torch
    import transformers.models.auto.modeling_auto
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401
    from transformers import AutoModelForCausalLM, GenerationConfig  # noqa: F401

    import enrich.cli
    import enrich.engine.choice
    import enrich.job
    import enrich.report.charts
    import enrich.report.gather
    import enrich.report.page  # noqa: F401

    torch.set_num_threads(1)


def _run(request: dict[str, Any]) -> None:
    code = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["directory"])
        if request.get("user"):
            os.setgid(request["user"])
            os.setuid(request["user"])
        import faults
        import points

        from enrich.cli import main
        from enrich.stages import judging_crew
        from enrich.timing import progress

        judging_crew._ALONE_ROWS = 20  # texts are judged beside these runs too, small as they are
        progress._STATE_SECONDS = 1e9  # or the number of points would depend on how long a run takes
        if request.get("fault"):
            faults.FAULTS[request["fault"]](**request.get("fault_options", {}))
        if request.get("listing"):
            plan = points.Plan(**request.get("plan", {}))
            points.Points(Path(plan.root or request["directory"]), Path(request["listing"]), plan).install()
        main(request["arguments"], prog_name="enrich")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
