"""The verbs: a module each, with ``SUMMARY``, its line of the usage, and ``run(words)``."""
