"""Accuracy of a model, and models that were saved."""

from bat_fast.device import pick_device
from bat_fast.evaluate.accuracy import evaluate
from bat_fast.evaluate.judge import evaluate_model
from bat_fast.runs.model_file import build_model, load_run

__all__ = ["build_model", "evaluate", "evaluate_model", "load_run", "pick_device"]
