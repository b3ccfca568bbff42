from .command import bench_assignment as bench_assignment
from .command import bench_matching as bench_matching
from .command import bench_transport as bench_transport
