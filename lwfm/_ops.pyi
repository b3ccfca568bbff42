"""Registers the torch operators of the namespace ``lwfm`` when it is imported."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

cuda_kernels: str
max_pair_positions: int

def call_interruptibly(function: Callable[..., Result], /, *arguments: object) -> Result:
    """Call a function; raise what a signal handler raised in it in place of the error of an operator."""
