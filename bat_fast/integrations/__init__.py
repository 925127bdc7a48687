"""Other frameworks, a file each: the only place that imports its host, loaded by whoever asks for it.

The attacks among them run `bat_fast.PGD` behind the interface of the host: its arguments, its labels, its
range of pixels, its normalisation. `attacker.py` is what they share.
"""
