"""The data of a run: its splits, and a loader for each of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from bat_fast import data
from bat_fast.config import TrainConfig
from bat_fast.world.ranks import ALONE, World


def as_chosen(splits: data.Splits, choose: str) -> data.Splits:
    """What ``eval.choose`` makes of ``splits``: all that is not for the test trains, and the test split is
    measured, where that is another than ``val``."""
    if choose == "val":
        return splits
    whole, held, test = splits
    return data.Splits(data.joined(whole, held) if len(held) else whole, test, test)


class Feed:
    """What a configuration says about data, read once.

    Args:
        config: the settings.
        device: where the batches are.
        splits: the data, instead of those that ``config.data`` names.
        world: the processes that share every batch.

    Raises:
        ValueError, OSError: a setting is out of range, or the files are not as they should be.
        ImportError: a package is missing; the message has the command that installs it.
    """

    def __init__(
        self, config: TrainConfig, device: str, splits: data.Splits | None = None, world: World = ALONE
    ) -> None:
        self.config, self._device, self.world = config, device, world
        wanted = config.data
        with world.in_turn():
            self.splits = splits or data.load(
                wanted.name,
                seed=config.seed,
                root=wanted.root,
                options=wanted.options,
                label_noise=asdict(wanted.label_noise),
            )
        self.splits = as_chosen(self.splits, config.eval.choose)
        for name, split in self.splits._asdict().items():
            if not len(split):  # better found now than after the first epoch
                raise ValueError(
                    f"data set {wanted.name}: {name} is empty; data.options.val must leave images"
                )
        present = self.splits.train.labels.unique()
        if len(present) < 2:
            only = self.splits.train.class_names[int(present[0])]
            raise ValueError(
                f"data set {wanted.name}: all training images are of one class, {only}, and there is nothing "
                "to tell apart: give at least two"
            )
        self._augment = data.Augment(**asdict(wanted.augment))
        self.extra = self._extra()
        self._phase = 0
        self.train = self._training(0)
        self._eval: dict[str, data.Loader] = {}

    def training(self, epoch: int) -> data.Loader:
        """The loader of the training split in ``epoch``, counted from 0: another where a phase begins."""
        phase = sum(epoch >= end for end in self.config.data.phases.ends)
        if phase != self._phase:
            known = self.train.skipped
            self.train, self._phase = self._training(phase), phase
            self.train.skipped.update(known)
        return self.train

    def _training(self, phase: int) -> data.Loader:
        phases, source, size = self.config.data.phases, self.splits.train, self.config.batch_size
        if phases.sizes:
            source = data.resized(source, phases.sizes[phase])
        if phases.batches:
            size = phases.batches[phase]
        more = 0 if self.extra is None else self.extra.count
        return self._loader(source, size - more, augment=self._augment, shuffle=True, extra=self.extra)

    def eval(self, split: str) -> data.Loader:
        """The loader of ``val`` or ``test``: no augmentation, the order of the source."""
        if split not in self._eval:
            source = getattr(self.splits, split)
            self._eval[split] = self._loader(source, self.config.eval.batch_size, shuffle=False)
        return self._eval[split]

    def part(self, split: str, where: Tensor) -> data.Loader:
        """As `eval`, the images at the places ``where`` [N] alone, and all of them for every process."""
        source = getattr(self.splits, split).part(where)
        return self._loader(source, self.config.eval.batch_size, shuffle=False, rank=0, world_size=1)

    @property
    def ids(self) -> int:
        """One more than the largest sample id of training."""
        if self.extra is not None:
            return self.extra.first_id + len(self.extra)
        return 1 + int(self.splits.train.index.max())

    @property
    def shape(self) -> data.Shape:
        """Classes and size of the images."""
        train = self.splits.train
        return data.Shape(train.num_classes, train.channels, train.image_size)

    def describe(self) -> str:
        """One line: what there is, and which loader gives it, and why."""
        origins = (f" ({split.origin})" if split.origin else "" for split in self.splits)
        sizes = " + ".join(
            f"{len(split):,}{words}" for split, words in zip(self.splits, origins, strict=True)
        )
        why = "as asked"
        if self.config.data.loader == "auto":
            why = data.choose(self.splits.train, self._device, self._augment)[1]
        more = "" if self.extra is None else f" and {len(self.extra):,} extra"
        what = f"{self.splits.train.name}, {sizes} images{more} in {self.shape.num_classes} classes"
        return f"{what}; loader {self.train.kind}: {why}"

    def skipped(self) -> list[str]:
        """Why images were left out, by any process, one line for each."""
        own = [reason for loader in (self.train, *self._eval.values()) for reason in loader.skipped.values()]
        return [reason for reasons in self.world.objects(own) for reason in reasons]

    def _extra(self) -> data.ExtraData | None:
        wanted, size = self.config.data.extra, self.config.batch_size
        if wanted.path is None:
            return None
        count = round(float(wanted.share) * size)
        if not 0 < count < size:
            raise ValueError(
                f"data.extra.share must leave images of both kinds in a batch of {size}, got {wanted.share}"
            )
        first = 1 + max(int(split.index.max()) for split in self.splits if len(split))
        options = {"first_id": first, "count": count, "seed": self.config.seed}
        return data.ExtraData(
            wanted.path, self.splits.train, device=self._device, augment=self._augment, **options
        )

    def _loader(self, source: data.Source, batch_size: int, **options: Any) -> data.Loader:
        config = self.config
        common = {"workers": config.data.workers, "on_corrupt": config.data.on_corrupt}
        common |= {"rank": self.world.rank, "world_size": self.world.size}
        return data.create_loader(
            source,
            batch_size,
            kind=config.data.loader,
            seed=config.seed,
            device=self._device,
            **common | options,
        )
