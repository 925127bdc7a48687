"""Any image classifier of torchvision, with normalisation inside."""

from __future__ import annotations

import re

from bat_fast._install import install
from bat_fast.models.base import Spec
from bat_fast.models.own_model import OwnModel
from bat_fast.spelling import hint

NAMES = ("torchvision:NAME",)
PATTERN = re.compile(r"torchvision:(\w+)")


def build(match: re.Match[str], spec: Spec) -> OwnModel:
    """``torchvision:NAME``, with new weights.

    Raises:
        ImportError: torchvision is not installed.
        ValueError: it has no such classifier, or one that does not take such images.
    """
    try:
        from torchvision import models
    except ImportError:
        raise ImportError(f"torchvision models need torchvision: {install('torchvision')}") from None
    name, known = match[1].lower(), models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}{hint(name, known)}")
    return OwnModel(match[0], models.get_model(name, weights=None, num_classes=spec.num_classes), spec)
