"""Files written whole, tensor files, devices, tables, progress bars: shared by all packages."""
