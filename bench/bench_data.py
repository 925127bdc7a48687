"""Images per second of every loader, and how long a training step waits for them.

    python bench/bench_data.py                     4096 JPEG files of 64x64 that it generates
    python bench/bench_data.py --root DIR          a data set in the layout of Tiny ImageNet
    python bench/bench_data.py --device cuda

All sides give batches of 128 as float32 [N, C, H, W], cropped after padding by 4 and mirrored. One turn is an
epoch; the sides take turns. "ImageFolder": torchvision's data set and its usual transforms in a DataLoader
with a worker for each core that stays alive. Bytes in memory: "slices" takes a crop and a flip of each sample
and stacks them, "slices tuned" writes them into the batch, "gather" is one indexing operation. Where files
are decoded torch has one thread, for all sides alike: its idle threads spin and take cores from the decoders.
FFCV takes part where it is installed.

The second table trains: PGD steps of BAT on a small network, fed by each loader. "stall" is the share of
the time in which the step waits for its batch, "x fixed" the time of a step over that with one batch that is
there from the start. On a CPU the loaders take their cores from the step, which "x fixed" shows.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fast_step import FastStep
from options import parser, write
from torch import Tensor

from bat_fast import data, models
from bat_fast.data.cache import FOLDER
from bat_fast.data.generate import write_tiny_imagenet
from bat_fast.data.loaders.dali import missing
from bat_fast.data.prepare import prepare
from bat_fast.measure.timing import interleaved, machine
from bat_fast.train.allocator import keep_freed_memory

BATCH, PAD = 128, 4
THREADS = torch.get_num_threads()
OPTIONS = {"shuffle": True, "seed": 0, "augment": data.Augment(pad=PAD, flip=True)}


class Epochs:
    """Calls a loader for one epoch after the other."""

    def __init__(self, loader: Any, device: str, threads: int) -> None:
        self.loader, self.device, self.threads, self.epoch = loader, device, threads, 0

    def __call__(self) -> None:
        torch.set_num_threads(self.threads)
        for _ in self.batches():
            pass

    def batches(self) -> Iterator[Tensor]:
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(self.epoch)
        self.epoch += 1
        for batch in self.loader:
            yield batch[0].to(self.device, non_blocking=True)


class Slices:
    """What people write for bytes in memory: sample by sample."""

    def __init__(self, images: Tensor) -> None:
        self.images = torch.nn.functional.pad(images, (PAD,) * 4).contiguous()  # [M, C, H+8, W+8]
        self.size = images.shape[-1]

    def samples(self, rows: Tensor) -> Iterator[Tensor]:
        corners = torch.randint(0, 2 * PAD + 1, (len(rows), 2)).tolist()
        flips = torch.rand(len(rows)).tolist()
        for row, (top, left), flip in zip(rows.tolist(), corners, flips, strict=True):
            image = self.images[row, :, top : top + self.size, left : left + self.size]
            yield image.flip(-1) if flip < 0.5 else image

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        for rows in torch.randperm(len(self.images)).split(BATCH):
            yield (torch.stack(list(self.samples(rows))).float().div_(255),)


class TunedSlices(Slices):
    """The same, each sample converted into its place in the batch."""

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        for rows in torch.randperm(len(self.images)).split(BATCH):
            x = torch.empty((len(rows), 3, self.size, self.size))
            for place, image in enumerate(self.samples(rows)):
                x[place] = image
            yield (x.div_(255),)


class Gather(Slices):
    """The same with one indexing operation for the batch."""

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        line = torch.arange(self.size)
        for rows in torch.randperm(len(self.images)).split(BATCH):
            top, left = (torch.randint(0, 2 * PAD + 1, (len(rows), 1)) + line for _ in range(2))
            left = torch.where(torch.rand(len(rows), 1) < 0.5, left.flip(1), left)
            x = self.images.permute(0, 2, 3, 1)[rows[:, None, None], top[:, :, None], left[:, None, :]]
            yield (x.permute(0, 3, 1, 2).float().div_(255),)


def image_folder(root: Path) -> Any:
    from torchvision import datasets
    from torchvision import transforms as t

    steps = t.Compose([t.RandomCrop(64, PAD), t.RandomHorizontalFlip(), t.ToTensor()])
    files = datasets.ImageFolder(str(root / "train"), steps)
    workers = os.cpu_count() or 1
    return torch.utils.data.DataLoader(
        files,
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def sides(root: Path, cache: Path, device: str) -> dict[str, tuple[Any, int]]:
    """Name -> (loader, images in an epoch)."""
    made: dict[str, tuple[Any, int]] = {}
    folder = image_folder(root)
    made["ImageFolder"] = folder, len(folder.dataset)
    for what, place in (("JPEG", root), ("cache", cache)):
        source = data.load("tiny_imagenet", seed=0, root=place, options={"val": 0}).train
        for kind in ("torch", "dali", "resident"):
            if kind == "dali" and missing():
                print(f"{kind} {what}: {missing()}")
                continue
            if kind == "resident" and what == "JPEG":
                continue  # decoded once, it is that of the cache
            loader = data.create_loader(source, BATCH, kind=kind, device=device, **OPTIONS)
            made[f"{kind} {what}"] = loader, len(source)
    pixels = source.images[source.rows]
    for name, kind_ in (("slices", Slices), ("slices tuned", TunedSlices), ("gather", Gather)):
        made[name] = kind_(pixels), len(source)
    if importlib.util.find_spec("ffcv") is None:
        print("FFCV is not installed here: python -m pip install ffcv")
    else:
        made["FFCV"] = ffcv_loader(root), len(source)
    return made


def ffcv_loader(root: Path) -> Any:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Convert, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    file = root.parent / "train.beton"
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    DatasetWriter(str(file), fields).from_indexed_dataset(ImageFolder(str(root / "train")))
    change = [
        RandomHorizontalFlip(),
        RandomTranslate(padding=PAD),
        ToTensor(),
        ToTorchImage(),
        Convert(torch.float32),
    ]
    pipelines = {"image": [SimpleRGBImageDecoder(), *change], "label": [IntDecoder(), ToTensor()]}
    workers = os.cpu_count() or 1
    return Loader(str(file), BATCH, num_workers=workers, order=OrderOption.RANDOM, pipelines=pipelines)


def threads(name: str) -> int:
    """Those of torch: one where others decode."""
    return 1 if name.endswith(("Folder", "JPEG", "FFCV")) else THREADS


def throughput(made: dict[str, tuple[Any, int]], device: str, seconds: float) -> dict[str, Any]:
    runs: dict[str, Callable[[], object]] = {
        n: Epochs(loader, device, threads(n)) for n, (loader, _) in made.items()
    }
    times = interleaved(runs, seconds, least=5)
    torch.set_num_threads(THREADS)
    rate = {name: made[name][1] / times[name].median * 1e3 for name in times}
    print(f"\n{'loader':16} {'images/s':>9} {'quartiles':>19}  x ImageFolder  x slices")
    found = {}
    for name, t in times.items():
        low, high = (made[name][1] / edge * 1e3 for edge in (t.high, t.low))
        against = [rate[name] / rate[base] for base in ("ImageFolder", "slices")]
        cells = f"{rate[name]:9,.0f} [{low:8,.0f}, {high:8,.0f}]"
        print(f"{name:16} {cells}  {against[0]:13.2f}  {against[1]:8.2f}  n={t.n}")
        found[name] = {"images_per_s": rate[name], "quartiles": [low, high], "n": t.n}
    return found


def stalls(made: dict[str, tuple[Any, int]], device: str, steps: int, rounds: int) -> dict[str, Any]:
    """Train with every loader in turns, ``steps`` steps at a time."""
    model = models.create("small_cnn", num_classes=200).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    fast_step = FastStep(model, optimizer, eps=8 / 255)
    y = torch.randint(0, 200, (BATCH,), device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def train(x: Tensor) -> None:
        fast_step(x, y[: len(x)])
        wait()

    fixed = torch.rand((BATCH, 3, 64, 64), device=device)
    runs = {name: Epochs(loader, device, THREADS) for name, (loader, _) in made.items()}
    waited: dict[str, list[float]] = {name: [] for name in ["fixed", *runs]}
    took: dict[str, list[float]] = {name: [] for name in waited}
    for turn in range(rounds + 1):
        for name in waited:
            stream = iter(lambda: fixed, None) if name == "fixed" else runs[name].batches()
            next(stream)  # the first batch of an epoch is not what a step waits for
            stall, begin = 0.0, time.perf_counter()
            for _ in range(steps):
                ask = time.perf_counter()
                x = next(stream)
                wait()
                stall += time.perf_counter() - ask
                train(x)
            if turn:
                took[name].append((time.perf_counter() - begin) / steps * 1e3)
                waited[name].append(stall / steps * 1e3)
    base = statistics.median(took["fixed"])
    print(
        f"\n{'loader':16} {'ms/step':>8} {'waits ms':>9} {'stall':>7}  x fixed   n={rounds} x {steps} steps"
    )
    found = {}
    for name in waited:
        step, stall = statistics.median(took[name]), statistics.median(waited[name])
        spread = max(took[name]) - min(took[name])
        cells = f"{step:8.1f} {stall:9.2f} {stall / step:7.1%}  {step / base:7.2f}"
        print(f"{name:16} {cells}   spread {spread:.1f} ms")
        found[name] = {
            "ms_per_step": step,
            "stall": stall / step,
            "x_fixed": step / base,
            "spread_ms": spread,
        }
    return found


def main() -> None:
    command = parser(__doc__, 40.0, "the first table")
    command.add_argument("--root", type=Path, help="a data set in the layout of Tiny ImageNet")
    command.add_argument("--count", type=int, default=4096, help="files to generate")
    command.add_argument(
        "--steps", type=int, default=6, help="steps in a turn of the second table; 0 leaves it out"
    )
    command.add_argument("--rounds", type=int, default=5, help="turns of the second table")
    options = command.parse_args()
    keep_freed_memory()  # as training does, for all sides alike
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        root, cache = options.root, Path(scratch) / FOLDER
        if root is None:
            train = options.count // 16
            root = write_tiny_imagenet(Path(scratch) / "tiny", classes=16, train=train, val=2)
        print(prepare("tiny-imagenet", root, out=cache))
        made = sides(root, cache, options.device)
        found = {"machine": machine(), "throughput": throughput(made, options.device, options.seconds)}
        if options.steps:
            found["stall"] = stalls(made, options.device, options.steps, options.rounds)
    write(options.json, found)


if __name__ == "__main__":
    main()
