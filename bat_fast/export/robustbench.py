"""RobustBench: a model that its loader finds in timm's registry, offline, and the claim about it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from bat_fast import models
from bat_fast._atomic import atomic_text, atomic_write
from bat_fast.evaluate.subject import Subject, split_source

_THREATS = {"linf": "Linf", "l2": "L2"}
_CUT = ("module.", "model.")  # RobustBench cuts as many letters off every key that has one of these anywhere
_BUILT = ("arch", "num_classes", "in_channels", "image_size", "activation", "options")
_REGISTER = '''"""Import this before robustbench's
load_model(%(short)r, dataset=%(dataset)r, threat_model=%(threat)r, custom_checkpoint=...).
"""

from pathlib import Path

from bat_fast.export.robustbench import register

NAME = register(Path(__file__).parent)
'''


def write(
    subject: Subject, folder: Path, *, name: str | None = None, results: str | Path | None = None
) -> tuple[list[Path], Callable[[Tensor], Any]]:
    """Write weights, ``architecture.json``, ``register.py`` and the claim; them, and the registered model.

    Args:
        subject: the model.
        folder: of the files.
        name: of the model in RobustBench, such as ``Author2026Title``; None is made of the architecture.
        results: what ``bat-fast eval --attack aa --out FILE.json`` wrote, for the claim.

    Raises:
        ValueError: the weights have names that RobustBench changes, or the results are none of AutoAttack.
    """
    said = subject.described
    short = str(said["arch"]).replace(":", "_") if name is None else name
    dataset, threat = str(said["data"]["name"]), _THREATS[said["norm"]]
    full = re.sub(r"[^a-z0-9]+", "_", f"{short}_{dataset}_{threat}".lower())
    tensors = {key: value.contiguous() for key, value in subject.model.state_dict().items()}
    changed = next((key for key in tensors if any(part in key for part in _CUT)), None)
    if changed is not None:
        raise ValueError(
            f"to robustbench: it would cut letters off {changed!r}: rename that part of the model"
        )
    images = 0 if results is None else len(split_source(said, "test", subject.root))
    claim = _claim(said, short, dataset, results, images)
    weights = folder / f"{full}.safetensors"
    content = save(tensors)
    atomic_write(weights, lambda file: file.write(content))
    built = {key: said[key] for key in _BUILT if key in said} | {"name": full}
    files = {
        "architecture.json": json.dumps(built, indent=2) + "\n",
        "register.py": _REGISTER % {"short": short, "dataset": dataset, "threat": threat},
        f"{short.replace('/', '_')}.json": json.dumps(claim, indent=2) + "\n",
    }
    for file, text in files.items():
        atomic_text(folder / file, text)
    return [weights, *(folder / file for file in files)], loaded(folder, weights)


def register(folder: str | Path) -> str:
    """Make the model of an exported folder known to ``timm.create_model``; its name there.

    Args:
        folder: that holds ``architecture.json``.
    """
    from timm.models import register_model

    said = json.loads((Path(folder) / "architecture.json").read_text())
    name: str = said.pop("name")

    def entry(**options: Any) -> nn.Module:
        """The architecture; the weights come from the ``checkpoint_path`` of ``timm.create_model``."""
        known = {key: value for key, value in said.items() if key != "arch"}
        if options.get("num_classes", known["num_classes"]) != known["num_classes"]:
            raise ValueError(f"num_classes: {name} has {known['num_classes']}, got {options['num_classes']}")
        return models.create(said["arch"], **known).eval()

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an export that is made again, the last one counts
        register_model(entry)
    return name


def loaded(folder: Path, weights: Path) -> nn.Module:
    """The exported model, as RobustBench makes it."""
    import timm

    model: nn.Module = timm.create_model(
        register(folder), pretrained=True, checkpoint_path=str(weights),
        num_classes=json.loads((folder / "architecture.json").read_text())["num_classes"],
    )  # fmt: skip
    return model.eval()


def _claim(
    said: dict[str, Any], short: str, dataset: str, results: str | Path | None, images: int
) -> dict[str, str | bool | None]:
    """The fields of a file of RobustBench's ``model_info``; None where nothing is known."""
    clean = robust = None
    if results is not None:
        found = json.loads(Path(results).read_text())
        metrics, attack = found.get("metrics", {}), found.get("attack", {})
        if "test/aa_acc" not in metrics:
            raise ValueError(
                f"results: {results} has no test/aa_acc: bat-fast eval RUN --attack aa --out FILE"
            )
        if (attack.get("norm"), attack.get("eps")) != (said["norm"], float(said["eps"])):
            raise ValueError(f"results: {results} is of another ball than {said['norm']} {said['eps']}")
        if found.get("n_examples") != images:
            raise ValueError(
                f"results: {results} is of {found.get('n_examples')} images, not of all {images}"
            )
        clean, robust = (f"{100 * metrics[f'test/{part}_acc']:.2f}" for part in ("clean", "aa"))
    return {
        "link": None, "name": short, "authors": None, "additional_data": False, "number_forward_passes": "1",
        "dataset": dataset, "venue": None, "architecture": str(said["arch"]), "eps": str(said["eps"]),
        "clean_acc": clean, "reported": robust, "autoattack_acc": robust, "unreliable": False,
    }  # fmt: skip
