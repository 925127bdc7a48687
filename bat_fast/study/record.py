"""What every sample does in every epoch of a run: observers of the trainer, and their files.

``samples/epoch-0007.npz`` in the run folder holds what training saw of each sample in epoch 7 anyway, and
``samples/judged-0007.npz`` what the model of that epoch gets right.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bat_fast import data
from bat_fast.batch import Batch
from bat_fast.methods import Terms
from bat_fast.study.lean import correctness
from bat_fast.study.sealed_arrays import Array, read_arrays, write_arrays
from bat_fast.train import Observer
from bat_fast.train.validation import eval_attack, validation_attack

if TYPE_CHECKING:
    from bat_fast.train import Trainer

FOLDER = "samples"
_MOST = 1 << 22  # logits held back at a time: 16 MB of float32


class SampleRecord(Observer):
    """Keeps margin, loss and q of each training sample as the trainer meets it, once in each epoch.

    These are of the logits that the method fits to the labels (attacked images, but for `trades` and the
    like), in train mode, before the update. A step keeps the logits alone, which are looked at once for many;
    the host is not waited for. A sample that an epoch has not met, or whose epoch was interrupted, is NaN.
    Of several processes each sees the whole batch, and the first keeps it.

    Raises:
        TypeError: the method does not say which logits it fits.
        ValueError: the run that goes on has not been recorded so far.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []
        self._numbers = 0
        self._keeps = True

    def begin(self, trainer: Trainer) -> None:
        """Make room for the samples; what later epochs of an abandoned try have left is deleted."""
        self._keeps, number = trainer.world.first, trainer.epoch
        if not self._keeps:
            return
        self._ids = trainer.splits.train.index
        self._table = torch.full((trainer.feed.ids, 3), torch.nan, device=trainer.device)
        ids = trainer.folder.path / FOLDER / "ids.npz"
        if number and not ids.exists():
            raise ValueError(f"record_samples: {number} epochs of this run are not recorded; leave it out")
        self._folder = _open(trainer, "epoch")
        write_arrays(ids, {"index": self._ids.numpy(), "labels": trainer.splits.train.labels.numpy()})
        if number and not self._file(number).exists():  # killed between the checkpoint and the record
            self._write(number)

    def _file(self, number: int) -> Path:
        return self._folder / f"epoch-{number:04}.npz"

    def step(self, batch: Batch, terms: Terms, epoch: int) -> None:  # noqa: ARG002
        """Note what the batch did."""
        if terms.logits is None:
            raise TypeError("record_samples: the method does not say which logits it fits; leave it out")
        if not self._keeps:
            return
        self._held.append((terms.logits, batch.y, batch.index))
        self._numbers += terms.logits.numel()
        if self._numbers > _MOST:
            self._settle()

    def _settle(self) -> None:
        """Take the logits held back into the table: one pass for many batches, not one for each."""
        if not self._held:
            return
        logits, y, index = (torch.cat(column) for column in zip(*self._held, strict=True))
        self._held, self._numbers = [], 0
        logits, y = logits.float(), y[:, None]
        label = logits.gather(1, y)
        other = logits.scatter(1, y, -torch.inf).amax(1, keepdim=True)
        whole = logits.logsumexp(1, keepdim=True)
        self._table[index] = torch.cat([label - other, whole - label, other - whole], 1)

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the epoch."""
        if self._keeps:
            self._settle()
            self._write(row["epoch"])

    def _write(self, number: int) -> None:
        rows = self._table.cpu()[self._ids]
        margin, loss, q = rows[:, 0], rows[:, 1], rows[:, 2].exp()
        arrays = {name: _half(value) for name, value in (("margin", margin), ("loss", loss), ("q", q))}
        write_arrays(self._file(number), arrays, compress=False)
        self._table.fill_(torch.nan)


class EpochRecord(Observer):
    """Keeps what is found of the model at the end of epochs, as ``samples/KIND-0007.npz``.

    Args:
        every: epochs between two of them; the last epoch always counts, early as it may be.
    """

    kind: str

    def __init__(self, every: int = 1) -> None:
        self.every = every

    @abstractmethod
    def measure(self, trainer: Trainer) -> dict[str, Array]:
        """What there is to keep."""

    def begin(self, trainer: Trainer) -> None:
        """Make room for it."""
        self._trainer = trainer
        if not trainer.world.first:
            return
        self._folder = _open(trainer, self.kind)
        whole = trainer.epoch > 0 and not trainer.interrupted  # the model is as an epoch has left it
        if whole and not self._file(trainer.epoch).exists():
            self.epoch({"epoch": trainer.epoch})  # killed between the checkpoint and the record

    def epoch(self, row: dict[str, Any]) -> None:
        """Measure the model and write it."""
        trainer, number = self._trainer, row["epoch"]
        last = number == trainer.config.epochs or trainer.stopped
        if trainer.world.first and (number % self.every == 0 or last):
            write_arrays(self._file(number), self.measure(trainer))

    def _file(self, number: int) -> Path:
        return self._folder / f"{self.kind}-{number:04}.npz"


class JudgedRecord(EpochRecord):
    """Judges the model on the whole training and test split at the end of epochs, clean and attacked.

    Nothing is chosen by it: it is what a study looks at.
    """

    kind = "judged"

    def begin(self, trainer: Trainer) -> None:
        """Make room for it, and write which images are tested."""
        super().begin(trainer)
        if trainer.world.first:
            test = trainer.splits.test
            arrays = {"index": test.index.numpy(), "labels": test.labels.numpy()}
            write_arrays(self._folder / "test-ids.npz", arrays)

    def measure(self, trainer: Trainer) -> dict[str, Array]:
        """What is right, in packed bits."""
        config, model = trainer.config, trainer.evaluated
        attack = eval_attack(config, model, validation_attack(config.eval))
        splits: tuple[tuple[str, data.Source], ...] = (
            ("train", trainer.splits.train),
            ("test", trainer.splits.test),
        )
        return {
            f"{split}_{kind}": np.packbits(bits.numpy())
            for split, source in splits
            for kind, bits in correctness(model, source, attack, config.eval.batch_size)._asdict().items()
        }


def read_record(run: Path) -> tuple[Array, Array, dict[str, Array]]:
    """Ids [n], labels [n] and, by name, [epochs, n] float32: ``margin``, ``loss``, ``q``.

    Raises:
        FileNotFoundError: the run has no record. ValueError: it has a gap, or is damaged.
    """
    folder = run / FOLDER
    files = sorted(folder.glob("epoch-*.npz"))
    if not files:
        raise FileNotFoundError(f"{run} has no record of its samples: train it with --record_samples")
    if [file.stem for file in files] != [f"epoch-{number:04}" for number in range(1, len(files) + 1)]:
        raise ValueError(f"{folder} has a gap: the run was not recorded from its first epoch on")
    ids, epochs = read_arrays(folder / "ids.npz"), [read_arrays(file) for file in files]
    table = {name: np.stack([one[name] for one in epochs]).astype(np.float32) for name in epochs[0]}
    return ids["index"], ids["labels"], table


def read_judged(run: Path) -> dict[int, dict[str, Array]]:
    """By epoch, from 1: [n] bool by name, ``train_clean``, ``train_robust``, ``test_clean``, ``test_robust``.

    Raises:
        FileNotFoundError: the run was not judged. ValueError: a file is damaged.
    """
    folder = run / FOLDER
    files = sorted(folder.glob("judged-*.npz"))
    if not files:
        raise FileNotFoundError(
            f"{run} was not judged in each epoch: bat-fast study dynamics makes such a run"
        )
    count = {
        "train": len(read_arrays(folder / "ids.npz")["index"]),
        "test": len(read_arrays(folder / "test-ids.npz")["index"]),
    }
    return {
        int(file.stem[-4:]): {
            name: np.unpackbits(bits, count=count[name.partition("_")[0]]).astype(bool)
            for name, bits in read_arrays(file).items()
        }
        for file in files
    }


def _open(trainer: Trainer, kind: str) -> Path:
    """The folder of the record, without what later epochs of an abandoned try have left of ``kind``."""
    folder: Path = trainer.folder.path / FOLDER
    folder.mkdir(exist_ok=True)
    for file in folder.glob(f"{kind}-*.npz"):
        if int(file.stem[-4:]) > trainer.epoch:
            file.unlink()
    return folder


def _half(values: Tensor) -> Array:
    return values.clamp(-65504, 65504).half().numpy()
