"""Files written whole, tensor files, choice of device: what every package may use."""
