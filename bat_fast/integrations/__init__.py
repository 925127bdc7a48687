"""Other frameworks, a file each: the only place that imports its host, loaded by whoever asks for it."""
