"""Registers the torch operators of the namespace ``lwfm`` when it is imported."""

cuda_kernels: str
max_pair_positions: int
max_assigned_positions: int
