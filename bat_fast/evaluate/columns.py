"""What is found out about each image of a batch, attack by attack, and what of it is kept already."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bat_fast.attacks import Attack
from bat_fast.attacks.autoattack import CLEAN
from bat_fast.attacks.done import tensor_key
from bat_fast.attacks.room import Room
from bat_fast.attacks.search import exact_logits
from bat_fast.batch import Batch
from bat_fast.evaluate.answers import Tell, answers, answers_under
from bat_fast.evaluate.kept import Kept


def column(what: str, name: str = "clean", radius: float = 0.0) -> str:
    """The name of a column: ``answer``, ``confidence``, ``broken`` or ``adv`` under attack ``name``."""
    return f"{radius!r} {name} {what}"


def columns_of(
    model: nn.Module,
    batch: Batch,
    jobs: dict[float, dict[str, Attack]],
    room: Room,
    kept: Kept,
    *,
    tell: Tell | None = None,
    images: str | None = None,
) -> dict[str, Tensor]:
    """What is known about each image of a batch: ``index``, ``label``, ``classes`` (how many the model has),
    and the answers without an attack and under all of them (`column`).

    Args:
        model: in eval mode.
        batch: N >= 1 images.
        jobs: attacks by radius and name.
        room: how many images fit into memory.
        kept: what has been found of this batch, and where to keep the rest.
        tell: as in `bat_fast.attacks.AutoAttack.judge`.
        images: the attack whose images are asked for too.

    Raises:
        ValueError: what was kept is about other images.
    """
    known = _recalled(kept, batch)
    if known is None:
        known = {column(what): tensor for what, tensor in answers(model, batch.x, room).items()}
        known |= {"index": batch.index.cpu(), "label": batch.y.cpu(), "classes": _classes(model, batch)}
        kept.put(CLEAN, known | {"images": _key(batch)} if kept else {})
    found = dict(known)
    for radius, some in jobs.items():
        for name, attack in some.items():
            place = f"{radius!r} {name}"
            under = kept.get(place)
            if under is None:
                inner = kept.within(f"{place} in part")
                under = answers_under(model, attack, batch, room, inner, tell=tell, images=name == images)
                kept.put(place, under)
                inner.drop()
            found |= {column(what, name, radius): tensor for what, tensor in under.items()}
    return found


def _recalled(kept: Kept, batch: Batch) -> dict[str, Tensor] | None:
    """What is kept about a batch without an attack; None where nothing is.

    Raises:
        ValueError: it is about other images.
    """
    known = kept.get(CLEAN)
    if known is not None and not torch.equal(known.pop("images"), _key(batch)):
        raise ValueError(
            f"{kept}: it was found of other images, so the data have changed: delete that folder, or give it "
            "the same files"
        )
    return known


def _key(batch: Batch) -> Tensor:
    """The hash of images, labels and numbers."""
    text = "".join(map(tensor_key, batch))
    return torch.tensor(list(bytes.fromhex(text)))


def _classes(model: nn.Module, batch: Batch) -> Tensor:
    """How many logits the model has, for each image."""
    return torch.full((len(batch.y),), exact_logits(model, batch.x[:1]).shape[1])
