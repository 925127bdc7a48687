"""One rule for pixels: odd files are the same images from every loader, the cache and `load_image`."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from bat_fast.data import Files, create_loader, load, load_image
from bat_fast.data.files import crop_of
from bat_fast.data.headers import plain_size
from bat_fast.data.loaders.dali import missing
from bat_fast.data.pixels import suffixes
from bat_fast.data.prepare import prepare

DALI = pytest.param("dali", marks=pytest.mark.skipif(missing() is not None, reason=str(missing())))
SIDE = 60  # 7/8 of it end in a half, over an even number
SIDES = (44, 60, 76, 92, 52, 68, 64, 101)


def photo(height=SIDE, width=SIDE + 15, seed=0):
    low = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC)


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def with_alpha(image):
    ramp = np.linspace(0, 255, image.width, dtype=np.uint8)[None].repeat(image.height, 0)
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(ramp))
    return image


def sixteen_bits(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)


def save(root):
    """Odd files of many kinds, as {name: which decoder has it in the dali loader}."""
    root.mkdir(parents=True)
    image = photo()
    for turn in (1, 2, 3, 6, 8):
        image.save(root / f"turned{turn}.jpg", exif=exif(turn), quality=95)
    image.save(root / "turned5.png", exif=exif(5))
    image.save(root / "turned7.webp", exif=exif(7), lossless=True)
    image.save(root / "turned4.tiff", exif=exif(4))
    sixteen_bits(image).save(root / "sixteen.png")
    sixteen_bits(image).save(root / "sixteen.tif")
    image.convert("CMYK").save(root / "cmyk.jpg", quality=95)
    image.save(root / "rgb.jpg", keep_rgb=True)
    image.convert("P").save(root / "palette.png")
    image.convert("P").save(root / "see_through.gif", transparency=7)
    with_alpha(image).save(root / "alpha.png")
    with_alpha(image).save(root / "alpha.webp", lossless=True)
    with_alpha(image.convert("L")).convert("LA").save(root / "grey_alpha.png")
    image.save(root / "one_colour.png", transparency=image.getpixel((3, 3)))
    image.convert("1").save(root / "two_levels.png")
    image.convert("L").save(root / "grey.jpg")
    image.convert("L").save(root / "grey.png")
    image.save(root / "plain.png")
    image.save(root / "progressive.jpg", progressive=True)
    image.save(root / "UPPER.BMP")
    image.convert("P").save(root / "frames.gif", save_all=True, append_images=[photo(seed=1).convert("P")])
    return {"turned1.jpg", "grey.jpg", "grey.png", "plain.png", "progressive.jpg"}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Two classes of odd files, test and training alike, and the names of those that DALI decodes."""
    root = tmp_path_factory.mktemp("odd") / "set"
    return root, [save(root / part / name) for part in ("train", "val") for name in ("a", "b")].pop()


def batch_of(kind, root, size, **options):
    test = load("image_folder", seed=0, root=root, options={"size": size, **options}).test
    loaded = create_loader(test, 7, kind=kind, shuffle=False, seed=0, workers=1)
    return test, torch.cat([batch.x for batch in loaded])


@pytest.mark.parametrize("kind", ["torch", "resident", DALI])
def test_every_loader_gives_the_same_pixels(kind, odd):
    root, plain = odd
    test, x = batch_of(kind, root, 48)
    assert len(x) == 50
    for pixels, row in zip(x, test.rows.tolist(), strict=True):
        path = test.images.path(row)
        difference = (pixels - load_image(path, 48)).abs() * 255
        if kind == "dali" and path.rpartition("/")[2] in plain:  # resized by DALI: rounded otherwise
            assert difference[:, 1:-1, 1:-1].max() < 1.01, path
            assert difference.max() < 4, f"{path}: beyond its edge DALI repeats the last pixel"
        else:
            assert torch.equal(pixels, load_image(path, 48)), path


def test_the_cache_holds_the_same_pixels(odd, tmp_path):
    root, _ = odd
    prepare("image-folder", root, out=tmp_path / "cache", workers=1, size=48)
    _, wanted = batch_of("torch", root, 48)
    test, x = batch_of("resident", tmp_path / "cache", 48)
    assert torch.equal(x, wanted)
    assert test.mean == load("image_folder", seed=0, root=root, options={"size": 48}).test.mean


@pytest.mark.parametrize("kind", ["torch", "resident", DALI])
def test_files_of_the_size_itself_are_the_same_bits(kind, tmp_path):
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        folder = tmp_path / part / name
        folder.mkdir(parents=True)
        for k, file in enumerate(("0.jpg", "1.png", "2.webp", "3.bmp", "4.jpg")):
            photo(32, 32, seed=k).save(folder / file, **({"exif": exif(6)} if k == 4 else {}))
    test, x = batch_of(kind, tmp_path, 32, exact=True)
    for pixels, row in zip(x, test.rows.tolist(), strict=True):
        assert torch.equal(pixels, load_image(test.images.path(row), 32, exact=True))


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize("side", SIDES)
def test_dali_cuts_the_same_centre(side, tmp_path):
    """Noise: a crop that is a pixel larger would differ by far more than a rounding."""
    noise = np.random.default_rng(side).integers(0, 256, (side, side + 5, 3), dtype=np.uint8)
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        (tmp_path / part / name).mkdir(parents=True)
        Image.fromarray(noise).save(tmp_path / part / name / "0.png")
    size = crop_of(side, side + 5, None).height
    _, x = batch_of("dali", tmp_path, size)
    assert torch.equal(x[0], load_image(tmp_path / "val" / "a" / "0.png", size)), "nothing is resized"


def test_halves_are_rounded_upwards():
    assert [crop_of(n, 200, None).height for n in (44, 52, 60, 68)] == [39, 46, 53, 60]


def pixel(path, size=8, row=3, column=3):
    return (load_image(path, size)[:, row, column] * 255).tolist()


def test_what_becomes_of_colours(tmp_path):
    size = (16, 16)
    grey = np.full(size, 20000, np.uint16)
    Image.fromarray(grey).save(tmp_path / "16.png")
    assert pixel(tmp_path / "16.png") == pytest.approx([round(20000 / 257)] * 3)
    Image.new("RGBA", size, (200, 0, 100, 0)).save(tmp_path / "clear.png")
    assert pixel(tmp_path / "clear.png") == pytest.approx([255] * 3), "what is transparent is white"
    Image.new("RGBA", size, (200, 0, 100, 51)).save(tmp_path / "veil.png")
    assert pixel(tmp_path / "veil.png") == pytest.approx([244, 204, 224], abs=1)
    Image.new("CMYK", size, (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    assert pixel(tmp_path / "red.jpg") == pytest.approx([255, 0, 0], abs=3)
    Image.fromarray(np.full(size, 0.5, np.float32)).save(tmp_path / "half.tiff")
    assert pixel(tmp_path / "half.tiff") == pytest.approx([128] * 3)
    Image.fromarray(np.full(size, 3.5, np.float32)).save(tmp_path / "no_scale.tiff")
    with pytest.raises(ValueError, match=r"no_scale\.tiff: its pixels are floats in \[3.5, 3.5\]"):
        load_image(tmp_path / "no_scale.tiff", 8)
    Image.fromarray(np.full(size, 70000, np.int32)).save(tmp_path / "deep.tiff")
    with pytest.raises(ValueError, match=r"integers in \[70000, 70000\], more than 16 bits"):
        load_image(tmp_path / "deep.tiff", 8)


def test_images_stand_upright(tmp_path):
    """Each stored so that the orientation brings the bright half to the top."""
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16] = 255
    stored = {1: upright, 3: upright[::-1], 4: upright[::-1], 6: np.rot90(upright), 8: np.rot90(upright, -1)}
    for turn, pixels in stored.items():
        for end in ("jpg", "png", "webp", "tiff"):
            path = tmp_path / f"{turn}.{end}"
            Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif(turn))
            x = load_image(path, 32, exact=True)
            assert x[:, :12].mean() > 0.95, path
            assert x[:, 20:].mean() < 0.05, path


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_no_reason_to_lose_an_image(tmp_path):
    photo(32, 32).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0" + struct.pack("<I", 9999))
    assert load_image(tmp_path / "x.jpg", 32, exact=True).shape == (3, 32, 32)


def test_grey_models(tmp_path):
    photo(32, 32).save(tmp_path / "x.png")
    x = load_image(tmp_path / "x.png", 32, exact=True, channels=1)
    grey = np.asarray(Image.open(tmp_path / "x.png").convert("L"))
    assert (x[0] * 255 - torch.tensor(grey).float()).abs().max() <= 0.51
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        load_image(tmp_path / "x.png", 32, channels=2)


def test_the_header_tells_what_dali_may_have(odd):
    root, plain = odd
    folder = root / "val" / "a"
    found = {path.name for path in folder.iterdir() if plain_size(path)}
    assert found == plain
    assert {plain_size(folder / name) for name in found} == {(SIDE, SIDE + 15)}
    assert plain_size(folder / "nowhere.jpg") is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_a_header_that_ends_early(content, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert plain_size(tmp_path / "x.jpg") is None
    with pytest.raises(ValueError, match=r"^image .*x\.jpg: "):
        Files(tmp_path, ["x.jpg"], 8).decode(0)
    with pytest.raises(ValueError, match=r"x\.jpg: .*; give another file, or leave it out$"):
        load_image(tmp_path / "x.jpg", 8)
    with pytest.raises(ValueError, match=rf"{tmp_path} is a folder: give the images in it, such as .*/\*$"):
        load_image(tmp_path, 8)


def test_formats():
    assert {".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"} <= set(suffixes())
    assert not {".eps", ".mpg", ".h5", ".txt"} & set(suffixes())
