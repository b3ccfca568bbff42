from .command import bench as bench
