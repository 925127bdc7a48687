"""An integration to copy: bat_fast/integrations/HOST.py, the only file that imports its host.

Here: a saved run as a classifier of scikit-learn, for its pipelines and scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin

from bat_fast.runs.model_file import load_run


class TemplateClassifier(ClassifierMixin, BaseEstimator):
    """A trained model behind the interface of scikit-learn; it is fitted already.

    Args:
        run: folder of a finished run, or its ``model.safetensors``.
        device: where the model runs.
    """

    def __init__(self, run: str | Path, device: str = "cpu") -> None:
        self.run, self.device = run, device
        self._model, described = load_run(run, device)
        self._shape = (described["in_channels"], described["image_size"], described["image_size"])
        self.classes_ = np.arange(described["num_classes"])

    def fit(self, images: Any, labels: Any) -> TemplateClassifier:
        """Does nothing: the weights are those of the run."""
        return self

    def predict_proba(self, images: Any) -> np.ndarray:
        """The probabilities [N, K] of ``images`` [N, C H W], pixels in [0, 1]."""
        x = torch.as_tensor(np.asarray(images), dtype=torch.float32, device=self.device)
        with torch.no_grad():
            probabilities: np.ndarray = self._model(x.view(-1, *self._shape)).softmax(1).cpu().numpy()
        return probabilities

    def predict(self, images: Any) -> np.ndarray:
        """The classes [N] of ``images`` [N, C H W], pixels in [0, 1]."""
        return self.classes_[self.predict_proba(images).argmax(1)]
