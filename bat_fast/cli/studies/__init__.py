"""The studies: ``bat-fast study NAME``, a file each, with ``SUMMARY`` and ``run(words)``."""
