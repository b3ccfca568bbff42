"""Registers the torch operators of the namespace ``lwfm`` when it is imported."""

cuda_kernels: str
