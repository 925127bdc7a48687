"""What a run leaves on the disk, written and read here: its folder, checkpoints, model and results."""
