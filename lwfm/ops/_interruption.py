"""Calls of operators that Ctrl-C ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch

from lwfm import _ops  # importing the module registers the operators

if TYPE_CHECKING:
    from collections.abc import Callable


def call_interruptibly(operator: Callable[..., Any], *arguments: Any) -> Any:
    """Call an operator so that Ctrl-C ends it: signals are handled on the main thread of eager code."""
    if torch.compiler.is_compiling() or threading.current_thread() is not threading.main_thread():
        return operator(*arguments)
    return _ops.call_interruptibly(operator, *arguments)
