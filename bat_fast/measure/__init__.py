"""How fast an attack and a training step are, how large a batch may be, how strong an attack is."""
