"""More training images, generated or pseudo-labelled, mixed into every batch at a fixed ratio."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bat_fast._random import EXTRA_LABEL
from bat_fast._seal import check_regular
from bat_fast.batch import Batch
from bat_fast.data.arrays import read_npz
from bat_fast.data.augment import Augment, uniform
from bat_fast.data.order import epoch_order
from bat_fast.data.source import Source


class ExtraData:
    """Adds ``count`` images to each batch, as Gowal et al. 2021 and Wang et al. 2023 do (arXiv:2302.04638).

    They come in a random order of their own, each once before any comes again, whatever the epochs of the
    training set. Which ones, and their augmentation, follow from (seed, epoch, step) and the sample id.
    A label may be a row of probabilities (a soft label): then a class is drawn from it for every epoch.
    Cross-entropy is linear in the target, so on average the loss is that of the soft label, and every
    method can use it.

    Args:
        path: ``.npz`` or ``.safetensors`` with ``image`` [M, H, W, C] uint8, and ``label``: [M] class ids or
            [M, K] probabilities.
        train: the training split that the images go with.
        first_id: data set id of the first image; the others follow.
        count: images in a batch of all ranks together.
        seed: any 64-bit integer.
        device: where the batches are.
        augment: of the images.

    Raises:
        OSError: the file cannot be read. ValueError: its content does not go with ``train``.
    """

    def __init__(
        self,
        path: str | Path,
        train: Source,
        *,
        first_id: int,
        count: int,
        seed: int,
        device: str | torch.device,
        augment: Augment,
    ) -> None:
        images, labels = _read(Path(path))
        _check(str(path), images, labels, train)
        if augment.rand_augment:
            raise ValueError(
                "data.extra: data.augment.rand_augment does not reach these images; use one of both"
            )
        self.count, self.seed, self.augment, self.first_id = count, seed, augment, first_id
        self._images, self._total = images.contiguous().to(device), len(images)
        soft = labels.dim() == 2
        self._labels = (labels.float().cumsum(1) if soft else labels.long()).to(device)
        self._pass: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self._total

    def join(self, batch: Batch, rank: int = 0, world_size: int = 1, *, epoch: int, step: int) -> Batch:
        """Append this rank's share of ``count`` images to ``batch``.

        Args:
            batch: of the training set.
            rank, world_size: which of how many ranks this one is.
            epoch: keys the augmentation, and the class that is drawn from a soft label.
            step: batches before this one, in the whole run.
        """
        rows = self._rows(step * self.count).tensor_split(world_size)[rank].to(batch.x.device)
        ids = rows + self.first_id
        last = batch.x.is_contiguous(memory_format=torch.channels_last)
        x = self.augment(self._images, rows, ids, seed=self.seed, epoch=epoch, channels_last=last)
        layout = torch.channels_last if last else torch.contiguous_format
        return Batch(
            torch.cat([batch.x, x]).contiguous(memory_format=layout),
            torch.cat([batch.y, self._draw(rows, ids, epoch)]),
            torch.cat([batch.index, ids]),
        )

    def _rows(self, start: int) -> Tensor:
        """``count`` rows of the endless row of permutations."""
        found: list[Tensor] = []
        while (have := sum(map(len, found))) < self.count:
            number, place = divmod(start + have, self._total)
            if self._pass[0] != number:
                self._pass = number, epoch_order(self._total, self.seed, number, "extra")
            found.append(self._pass[1][place : place + self.count - have])
        return torch.cat(found)

    def _draw(self, rows: Tensor, ids: Tensor, epoch: int) -> Tensor:
        labels = self._labels[rows]
        if labels.dim() == 1:
            return labels
        chance = uniform(EXTRA_LABEL, ids, self.seed, epoch)[0][:, None] * labels[:, -1:]
        return (chance >= labels).sum(1).clamp_(max=labels.shape[1] - 1)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    if not path.exists():
        raise FileNotFoundError(f"data.extra.path: {path} does not exist")
    names = ("image", "label")
    try:
        if path.suffix == ".safetensors":
            tensors = _read_safetensors(path)
            found = tuple(tensors[name] for name in names)
        elif path.suffix == ".npz":
            arrays = read_npz(path)
            found = tuple(torch.from_numpy(arrays[name]) for name in names)
        else:
            raise ValueError(f"{path} cannot be read: it is neither .npz nor .safetensors")
    except KeyError:
        raise ValueError(f"data.extra.path: {path} needs the arrays image and label") from None
    except ValueError as error:
        raise ValueError(f"data.extra.path: {error}") from None
    return found[0], found[1]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_regular(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _check(path: str, images: Tensor, labels: Tensor, train: Source) -> None:
    where, size, classes = f"data.extra.path: {path}", train.image_size, train.num_classes
    if images.dtype != torch.uint8 or images.shape[1:] != (size, size, train.channels):
        got = f"{list(images.shape)} {images.dtype}"
        raise ValueError(f"{where}: image must be [M, {size}, {size}, {train.channels}] uint8, got {got}")
    if not len(images) or len(labels) != len(images):
        raise ValueError(f"{where}: {len(images)} images and {len(labels)} labels")
    if labels.dim() == 2:
        rows = labels.double()
        if labels.shape[1] != classes or not (rows >= 0).all() or (rows.sum(1) - 1).abs().max() > 1e-3:
            raise ValueError(f"{where}: soft labels must be [M, {classes}] probabilities that add up to 1")
    elif labels.dim() != 1 or labels.is_floating_point():
        raise ValueError(f"{where}: label must be [M] class ids or [M, {classes}] probabilities")
    elif int(labels.min()) < 0 or int(labels.max()) >= classes:
        low, high = int(labels.min()), int(labels.max())
        raise ValueError(f"{where}: labels from {low} to {high}, outside [0, {classes}): number them from 0")
