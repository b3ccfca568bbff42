"""Scripts of the developers: GPU runs, planted faults, resources of kernels."""
