"""Scripted functions: run by torch's own interpreter, TorchScript, without Python's lock.

A step of a small model is some two hundred operations of a tenth of a millisecond. Called from Python, each has to have
the lock first, for which the threads that compute wait for each other and for what the run does beside them.

torch means to do without TorchScript some day. A function that it can't run any more runs as the Python that it also
is, with the same bits. Modules with such functions don't have their annotations as strings, which it can't read.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from enrich.errors import one_line

log = logging.getLogger("enrich")


@cache
def scripted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as TorchScript runs it; the function itself where that can't be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation
        try:
            script: Callable[..., Any] = torch.jit.script(function)
        except Exception as error:  # whatever a torch says that has it, or one of the kernels, no more
            log.debug("decode steps run in Python, more slowly: %s", one_line(error))
            return function
    return script
