"""What every loader promises: each sample once, the same batches by any way, resumable, no silent damage."""

import dataclasses
import gc
import multiprocessing
import resource
from collections import Counter
from pathlib import Path

import pytest
import torch

from bat_fast.data import Augment, Source, create_loader
from bat_fast.data.loaders.base import Loader
from bat_fast.data.loaders.dali import missing

PLAIN = {"shuffle": True, "seed": 3, "workers": 1}
AUGMENT = Augment(pad=4, flip=True, cutout=5)
KINDS = [
    "resident",
    pytest.param("dali", marks=pytest.mark.skipif(missing() is not None, reason=str(missing()))),
    "torch",
]


def memory(count: int = 83) -> Source:
    """A part of a store of bytes, with ids that are not its rows."""
    chance = torch.Generator().manual_seed(0)
    store = torch.randint(0, 256, (count + 20, 12, 12, 3), generator=chance, dtype=torch.uint8)
    rows = torch.randperm(count + 20, generator=chance)[:count]
    labels = torch.randint(0, 7, (count,), generator=chance)
    names = tuple("abcdefg")
    return Source(
        store.permute(0, 3, 1, 2), labels, rows * 3 + 1, 7, "test", names, (0.5,) * 3, (0.2,) * 3, rows=rows
    )


@pytest.fixture(params=["memory", "files"])
def source(request, tiny):
    return memory() if request.param == "memory" else tiny.train


def ids(loader: Loader) -> list[int]:
    return [int(i) for batch in loader for i in batch.index]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_ranks_together_see_each_sample_once(kind, source):
    for world in (1, 2, 3, 4, 7):
        ranks = [
            create_loader(source, 7, kind=kind, rank=rank, world_size=world, **PLAIN) for rank in range(world)
        ]
        for epoch in (0, 1) if world == 2 else (0,):
            for loader in ranks:
                loader.set_epoch(epoch)
            batches = [list(loader) for loader in ranks]
            assert len({len(b) for b in batches}) == 1, "every rank takes as many steps"
            assert all(len(b) == len(loader) for b, loader in zip(batches, ranks, strict=True))
            assert max(len(batch.y) for b in batches for batch in b) <= 7 // world + 2
            counts = Counter(int(i) for b in batches for batch in b for i in batch.index)
            assert counts == Counter(source.index.tolist())


@pytest.mark.parametrize("count", [7, 8, 13, 14, 15, 42, 43, 44, 48, 49, 50])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_the_tail_is_divided_evenly(count, world):
    source = memory(count)
    ranks = [
        list(create_loader(source, 2 * world, kind="resident", rank=rank, world_size=world, **PLAIN))
        for rank in range(world)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    for step in zip(*ranks, strict=True):
        sizes = [len(batch.y) for batch in step]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
    assert sum(len(batch.y) for rank in ranks for batch in rank) == count


def decodes_like_the_cpu(kind: str, device: str, source: Source) -> bool:
    """The hardware decoder of a GPU rounds in its own way."""
    return not (kind == "dali" and device == "cuda" and not isinstance(source.images, torch.Tensor))


def images(loaders: list[Loader]) -> dict[int, torch.Tensor]:
    """Image of each sample after two epochs, as it is in the second."""
    found = {}
    for loader in loaders:
        list(loader)
        loader.set_epoch(1)
        for batch in loader:
            assert batch.x.dtype == torch.float32
            assert batch.y.dtype == batch.index.dtype == torch.int64
            found |= dict(zip(batch.index.tolist(), zip(batch.x, batch.y, strict=True), strict=True))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_the_same_from_every_loader_batch_size_and_rank(kind, source, device):
    options = PLAIN | {"augment": AUGMENT}
    one = images([create_loader(source, 16, kind="resident", **options)])
    two = images(
        [
            create_loader(source, 5, kind=kind, rank=rank, world_size=3, device=device, **options)
            for rank in range(3)
        ]
    )
    assert one.keys() == two.keys() == set(source.index.tolist())
    for sample, (x, y) in one.items():
        other = two[sample][0].cpu()
        same = decodes_like_the_cpu(kind, device, source)
        assert torch.equal(x, other) if same else (x - other).abs().mean() < 0.01, sample
        assert y == two[sample][1].cpu()


@pytest.mark.parametrize("kind", KINDS)
def test_without_augmentation_the_pixels_are_those_of_the_store(kind, source):
    where = {int(sample): place for place, sample in enumerate(source.index)}
    for batch in create_loader(source, 10, kind=kind, channels_last=True, **PLAIN):
        assert batch.x.is_contiguous(memory_format=torch.channels_last)
        for x, y, sample in zip(*batch, strict=True):
            place = where[int(sample)]
            row = int(source.stored(torch.tensor([place])))
            stored = (
                source.images[row]
                if isinstance(source.images, torch.Tensor)
                else source.images.decode(row).permute(2, 0, 1)
            )
            assert torch.equal(x, stored.float() / 255)
            assert y == source.labels[place]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [0, 1, 4, 11])
def test_resuming_gives_the_remaining_batches(kind, given, source, device):
    options = PLAIN | {"augment": AUGMENT, "device": device}
    whole = create_loader(source, 8, kind=kind, **options)
    whole.set_epoch(2)
    wanted = list(whole)
    first, batches = create_loader(source, 8, kind=kind, **options), []
    first.set_epoch(2)
    stream = iter(first)
    for _ in range(given):
        batches.append(next(stream))
    state = first.state_dict()
    assert state == {"epoch": 2, "position": given}
    second = create_loader(source, 8, kind=kind, **options)
    second.load_state_dict(state)
    batches += list(second)
    assert len(batches) == len(wanted) == 11 or len(batches) == len(wanted) == 13
    for one, two in zip(batches, wanted, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert ids(second) == [int(i) for batch in wanted for i in batch.index], "then the epoch from its start"
    assert ids(first) == ids(second), "and one that was left early too"


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_differ_and_do_not_depend_on_the_past(kind, tiny):
    one, two = (create_loader(tiny.train, 16, kind=kind, **PLAIN) for _ in range(2))
    orders = []
    for epoch in range(3):
        one.set_epoch(epoch)
        orders.append(ids(one))
    two.set_epoch(2)
    torch.manual_seed(99)
    assert ids(two) == orders[2]
    assert len(set(map(tuple, orders))) == 3


def complaint(*arguments, **options) -> str:
    """What stops the first epoch of such a loader."""
    with pytest.raises(ValueError) as caught:
        ids(create_loader(*arguments, **options))
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_named_or_left_out_and_counted(kind, tiny_copy, device):
    from bat_fast.data import load

    train = load("tiny_imagenet", seed=0, root=tiny_copy).train
    broken = train.images.path(int(train.rows[7]))
    with open(broken, "r+b") as file:  # noqa: PTH123 - truncate in place
        file.truncate(500)
    said = complaint(train, 16, kind=kind, device=device, **PLAIN)
    assert "restore or delete the file" in said
    assert broken in said
    assert "\n" not in said
    loader = create_loader(train, 16, kind=kind, on_corrupt="skip", device=device, **PLAIN)
    for epoch in range(2):
        loader.set_epoch(epoch)
        assert sorted(ids(loader)) == sorted(set(train.index.tolist()) - {int(train.index[7])})
        assert len(loader.skipped) == 1
        assert broken in loader.skipped[7]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_nothing_but_broken_files(kind, tiny_copy):
    from bat_fast.data import load

    train = load("tiny_imagenet", seed=0, root=tiny_copy).train
    Path(train.images.path(int(train.rows[7]))).write_bytes(b"")
    said = complaint(train, 1, kind=kind, on_corrupt="skip", **PLAIN)
    assert "every image of a batch is left out" in said


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_forked_process_leaves_the_threads_of_dali_alone(tiny):
    gc.collect()
    gc.disable()
    try:
        cycle = [create_loader(tiny.train, 16, kind="dali", **PLAIN)]
        ids(cycle[0])
        cycle.append(cycle)
        del cycle  # garbage that only the collector finds: here in the child
        child = multiprocessing.get_context("fork").Process(target=gc.collect)
        child.start()
        child.join(20)
        hangs = child.is_alive()
        child.kill()
    finally:
        gc.enable()
    assert not hangs
    assert child.exitcode == 0


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_what_dali_cannot_decode_is_not_slow_silently(tiny_copy, monkeypatch):
    """A file that Pillow knows and DALI does not, and whose header was taken for that of a JPEG."""
    from PIL import Image

    from bat_fast.data import load

    train = load("tiny_imagenet", seed=0, root=tiny_copy).train
    odd = train.images.path(int(train.rows[0]))
    Image.new("RGB", (64, 64), (9, 8, 7)).save(odd, format="GIF")
    monkeypatch.setattr("bat_fast.data.files.plain_size", lambda _: (64, 64))
    loader = create_loader(train, 16, kind="dali", **PLAIN)
    with pytest.warns(UserWarning, match="DALI failed on a batch that Pillow decodes"):
        assert sorted(ids(loader)) == sorted(train.index.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_size(kind, tiny_copy):
    from PIL import Image

    from bat_fast.data import load

    train = load("tiny_imagenet", seed=0, root=tiny_copy).train
    odd = train.images.path(int(train.rows[0]))
    Image.new("RGB", (32, 64)).save(odd)
    said = complaint(train, 16, kind=kind, **PLAIN)
    assert "it has 32x64 pixels, not 64; restore or delete" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_over_50_epochs(kind, tiny):
    part = tiny.train.part(torch.arange(32))
    loader = create_loader(part, 8, kind=kind, shuffle=True, seed=0, workers=0 if kind == "torch" else 1)
    sizes = []
    gc.collect()
    for epoch in range(50):
        loader.set_epoch(epoch)
        ids(loader)
        with open("/proc/self/statm") as file:  # noqa: PTH123
            sizes.append(int(file.read().split()[1]) * resource.getpagesize())
    # 10 MiB in 40 epochs of 32 images (0.4 MiB decoded): a leak of every batch would be 16 MiB.
    assert sizes[-1] - sizes[9] < 10 << 20, [size >> 20 for size in sizes]


@pytest.mark.slow
def test_rand_augment_is_keyed_by_the_sample(tiny):
    options = PLAIN | {"augment": Augment(rand_augment=2)}
    one = images([create_loader(tiny.train, 16, **options)])
    two = images([create_loader(tiny.train, 7, **options | {"workers": 0})])
    plain = images([create_loader(tiny.train, 16, **PLAIN)])
    assert all(torch.equal(x, two[sample][0]) for sample, (x, _) in one.items())
    assert sum(not torch.equal(x, plain[sample][0]) for sample, (x, _) in one.items()) > len(one) / 2
    with pytest.raises(ValueError, match=r"needs --data\.loader torch"):
        create_loader(tiny.train, 16, kind="resident", **options)


def test_cutout_hides_a_square_and_nothing_else():
    source = dataclasses.replace(memory(), images=torch.full((103, 3, 12, 12), 200, dtype=torch.uint8))
    (batch,) = create_loader(source, 100, augment=Augment(cutout=5), **PLAIN)
    hidden = (batch.x == 0).all(1)
    assert torch.equal(batch.x.amax(1), torch.where(hidden, 0.0, 200 / 255).float())
    sizes = hidden.sum((1, 2))
    assert 9 <= int(sizes.min()) <= int(sizes.max()) == 25  # at an edge a part of it is outside
    assert len({tuple(map(tuple, mask.nonzero().tolist())) for mask in hidden}) > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, r"rank must be in \[0, 2\)"),
        ({"world_size": 5}, "batch_size 4 leaves some of 5 ranks without an image"),
        ({"kind": "dalli"}, "data.loader must be auto, resident, dali, torch"),
        ({"on_corrupt": "ignore"}, "data.on_corrupt must be error or skip"),
        ({"augment": Augment(resized_crop=True)}, "use data.augment.pad"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        create_loader(memory(), 4, **PLAIN | options)


@pytest.mark.parametrize("change", [{"pad": -1}, {"cutout": -1}, {"padding": "wrap"}])
def test_wrong_augmentation(change):
    with pytest.raises(ValueError, match=f"data.augment.{next(iter(change))} must be"):
        Augment(**change)


def test_a_missing_dali_is_one_line_and_auto_goes_on(tiny, monkeypatch):
    import sys

    from bat_fast.data import choose

    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ImportError, match=r"pip install '?nvidia-dali-cuda1") as caught:
        create_loader(tiny.train, 16, kind="dali", **PLAIN)
    assert "\n" not in str(caught.value)
    kind, reason = choose(tiny.train, "cpu")
    assert kind == "torch"
    assert "pip install" in reason
    assert create_loader(tiny.train, 16, **PLAIN).kind == "torch"


def test_the_choice_and_its_reason(tiny):
    from bat_fast.data import choose

    assert choose(memory(), "cpu") == ("resident", "the set is in memory")
    assert choose(tiny.train, "cpu", Augment(rand_augment=1))[0] == "torch"
    if missing() is None:
        reason = "the set is image files (bat-fast prepare tiny-imagenet decodes them once)"
        assert choose(tiny.train, "cpu") == ("dali", reason)
