"""A folder in the layout of Tiny ImageNet with generated images: to try, test and time everything offline."""

from __future__ import annotations

from pathlib import Path

import torch

from bat_fast.data.sets.synthetic import draw_images

_GREY = 50  # one file in so many has a single channel, as in the original


def write_tiny_imagenet(
    root: str | Path, *, classes: int = 10, train: int = 50, val: int = 10, size: int = 64, seed: int = 0
) -> Path:
    """Write ``wnids.txt``, ``words.txt``, ``train/``, ``val/``, ``test/`` as ``tiny-imagenet-200`` has them.

    Args:
        root: a folder that is new or empty.
        classes: number of classes.
        train, val: images in a class of either part; ``test/`` gets five without labels.
        size: height and width.
        seed: of the images.

    Returns:
        ``root``.

    Raises:
        FileExistsError: there is something in ``root``.
    """
    from PIL import Image

    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty; choose another folder")
    wnids = [f"n{1_000_000 + 7919 * number:08}" for number in range(classes)]

    def write(folder: Path, names: list[str], labels: list[int], part: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        images = draw_images(torch.tensor(labels), f"{part}/{names[0]}", size, classes, seed)
        for row, (name, pixels) in enumerate(zip(names, images.numpy(), strict=True)):
            image = Image.fromarray(pixels)
            (image.convert("L") if row % _GREY == _GREY - 1 else image).save(folder / name, quality=90)

    for label, wnid in enumerate(wnids):
        names = [f"{wnid}_{number}.JPEG" for number in range(train)]
        write(root / "train" / wnid / "images", names, [label] * train, "train")
        boxes = "".join(f"{name}\t0\t0\t{size - 1}\t{size - 1}\n" for name in names)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    labels = [number % classes for number in range(classes * val)]
    names = [f"val_{number}.JPEG" for number in range(len(labels))]
    write(root / "val" / "images", names, labels, "val")
    rows = (
        f"{name}\t{wnids[label]}\t0\t0\t{size - 1}\t{size - 1}\n"
        for name, label in zip(names, labels, strict=True)
    )
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    write(root / "test" / "images", [f"test_{number}.JPEG" for number in range(5)], [0] * 5, "test")
    # The original lists its classes in an order that is not sorted.
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(wnids)))
    (root / "words.txt").write_text("".join(f"{wnid}\tgenerated {n}\n" for n, wnid in enumerate(wnids)))
    return root
