from .command import bench_assignment as bench_assignment
from .command import bench_matching as bench_matching
