"""Pixels are torchvision's where it defines them, and otherwise what a person sees."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision import transforms

from bench.load.images import (
    EXIF_ORIENTATION,
    EXIF_TURNED,
    VARIANTS,
    chalk,
    encoded,
    enlarged,
    opened,
    scan_by_scan,
    sixteen_bits,
    tinted,
)
from classifier.contract import Contract
from classifier.errors import BadImage
from classifier.image.decode import read_pixels
from classifier.image.jpeg import EIGHTH, PLENTY, scans
from classifier.image.limits import MAX_PIXELS
from tests.conftest import DIGITS
from tests.support.images import bad_images, png_of
from training.mnist import load_test

# Files whose pixels torchvision defines: opaque, upright, 8 bits per channel.
DEFINED = [
    "png", "png-250", "png-rgb", "png-rgba", "png-grey-alpha", "png-palette", "png-1-bit", "jpeg",
    "jpeg-progressive", "jpeg-cmyk", "mpo", "webp", "webp-animated", "bmp", "gif", "gif-animated", "tiff",
    "tiff-lzw", "tiff-pages",
]  # fmt: skip


@pytest.fixture(scope="module")
def contract(contract: Contract) -> Contract:
    """The archive's contract without centring, which comes after what is tested here."""
    return replace(contract, ink=None)


def tensor_of(body: bytes, contract: Contract) -> torch.Tensor:
    return torch.from_numpy(contract.normalize(read_pixels(body, contract)))


def torchvisions(body: bytes, contract: Contract) -> torch.Tensor:
    steps = [
        transforms.Grayscale(),
        transforms.Resize((contract.height, contract.width)),
        transforms.ToTensor(),
        transforms.Normalize(contract.mean, contract.std),
    ]
    return transforms.Compose(steps)(opened(body))


@pytest.mark.parametrize("variant", DEFINED)
@pytest.mark.parametrize("digit", ["2", "8"])
def test_values_are_torchvisions(variant, digit, contract):
    """The tensor is that of Grayscale, Resize, ToTensor and Normalize for the same file."""
    body = VARIANTS[variant](opened(DIGITS[digit]))
    torch.testing.assert_close(tensor_of(body, contract), torchvisions(body, contract), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (27, 29), (640, 480), (1000, 30)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_any_size_is_resized_as_torchvision_does(size, mode, contract):
    """Noise images that are smaller, larger, narrow or wide get torchvision's values."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    body = encoded(Image.fromarray(noise), "PNG")
    torch.testing.assert_close(tensor_of(body, contract), torchvisions(body, contract), rtol=0, atol=1e-6)


def test_every_test_image_keeps_its_grey_levels(contract):
    """All 10,000 test images have the contract's size and colour, and reach the model unchanged."""
    for image in load_test()[0]:
        body = encoded(Image.fromarray(image), "BMP")
        assert np.array_equal(read_pixels(body, contract)[..., 0], image)


def test_rgb_contract_keeps_the_colours():
    """A three-channel contract gets three channels, resized as torchvision does."""
    rgb = {"color": "rgb", "size": [20, 30], "mean": [0.5] * 3, "std": [0.5] * 3}
    contract = Contract.from_config({"input": rgb, "labels": ["a"]})
    image = tinted(enlarged(opened(DIGITS["3"])))
    reference = np.asarray(transforms.Resize((20, 30))(image))
    assert np.array_equal(read_pixels(encoded(image, "PNG"), contract), reference)


def test_exif_orientation_is_honoured(contract):
    """An image that EXIF says lies on its side is turned upright; JPEG costs it a few grey levels."""
    image = enlarged(opened(DIGITS["4"]))
    turned = read_pixels(VARIANTS["jpeg-turned-by-exif"](opened(DIGITS["4"])), contract)
    upright = read_pixels(encoded(image, "PNG"), contract)
    assert np.abs(turned.astype(int) - upright).max() < 10


def test_broken_exif_spoils_no_image(contract):
    """An image whose EXIF block is malformed is read as stored."""
    image = opened(DIGITS["4"])
    body = encoded(image, "JPEG", quality=95, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
    assert np.abs(read_pixels(body, contract)[..., 0].astype(int) - np.asarray(image)).max() < 40


def test_dark_ink_on_nothing_lies_on_white_paper(contract):
    """Transparency becomes white if the ink is dark."""
    ink = opened(DIGITS["5"])
    dark = Image.merge("LA", [Image.new("L", ink.size, 0), ink])
    assert np.array_equal(read_pixels(encoded(dark, "PNG"), contract)[..., 0], 255 - np.asarray(ink))


def test_white_ink_on_nothing_lies_on_black(contract):
    """Transparency becomes black if white ink would vanish on white."""
    ink = opened(DIGITS["5"])
    assert np.array_equal(read_pixels(encoded(chalk(ink), "PNG"), contract)[..., 0], np.asarray(ink))


def test_wholly_transparent_image_is_white_paper(contract):
    """An image with no ink at all becomes white."""
    nothing = encoded(Image.new("RGBA", (50, 50), (255, 0, 0, 0)), "PNG")
    assert (read_pixels(nothing, contract) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut_off(kind, contract):
    """A 16-bit image has the grey levels of its 8-bit twin."""
    image = opened(DIGITS["6"])
    body = encoded(sixteen_bits(image), kind)
    assert np.array_equal(read_pixels(body, contract)[..., 0], np.asarray(image))


@pytest.mark.parametrize("white", [1.0, 1.001, 255.0, 65535.0, 1e6])
def test_float_images_are_scaled(white, contract):
    """White is 1, 255, 65535 or the largest level; NaN becomes black, infinity white."""
    levels = np.asarray(opened(DIGITS["6"]), dtype=np.float32) * np.float32(white / 255)
    levels[0, :2] = np.nan, np.inf
    pixels = read_pixels(encoded(Image.fromarray(levels), "TIFF"), contract)[..., 0]
    expected = np.asarray(opened(DIGITS["6"])).copy()
    expected[0, :2] = 0, 255
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("white", [255, 65535, 2**31 - 1])
def test_integer_images_are_scaled(white, contract):
    """In 32-bit images white is 255, 65535 or the largest level."""
    levels = (np.asarray(opened(DIGITS["6"]), dtype=np.float64) * white / 255).astype(np.int32)
    pixels = read_pixels(encoded(Image.fromarray(levels), "TIFF"), contract)[..., 0]
    assert np.abs(pixels.astype(int) - np.asarray(opened(DIGITS["6"]))).max() <= 1


@pytest.mark.parametrize("variant", ["gif-animated", "webp-animated", "tiff-pages", "mpo"])
def test_first_frame_counts(variant, contract):
    """Of several frames only the first is read; the second one here is empty."""
    assert read_pixels(VARIANTS[variant](opened(DIGITS["0"])), contract).max() > 200


@pytest.mark.parametrize("name", bad_images(DIGITS["2"]))
def test_bad_image_is_refused_with_a_reason(name, contract):
    """The error says what came and what to send."""
    body, sentence = bad_images(DIGITS["2"])[name]
    with pytest.raises(BadImage) as refused:
        read_pixels(body, contract)
    assert str(refused.value).startswith(sentence)
    assert "send" in str(refused.value)


def test_jpeg_of_a_scan_for_each_component_is_read(contract):
    """Such a file is rare but valid; its scans are counted."""
    body = scan_by_scan(opened(DIGITS["5"]))
    assert scans(Image.open(io.BytesIO(body)), body) == 3
    torch.testing.assert_close(tensor_of(body, contract), torchvisions(body, contract), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_scans_after_the_only_one_are_refused(mode, contract):
    """A baseline JPEG ends after a scan of all components: the decoder does not read thousands more."""
    body = encoded(opened(DIGITS["5"]).convert(mode), "JPEG")
    longer = body[:-2] + body[body.rindex(b"\xff\xda") :] * 2000
    assert scans(Image.open(io.BytesIO(longer)), longer) == 1
    with pytest.raises(BadImage, match="damaged"):
        read_pixels(longer, contract)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_file_cut_anywhere_is_read_or_refused(kind, contract):
    """A file cut anywhere raises BadImage or, if little more than its end is missing, is read."""
    body = encoded(opened(DIGITS["7"]).convert("RGB"), kind)
    refused = 0
    for cut in range(len(body)):
        try:
            assert read_pixels(body[:cut], contract).shape == (28, 28, 1)
        except BadImage:
            refused += 1
    assert refused > len(body) * 0.5


@pytest.mark.parametrize("size", [(8193, 8192), (60_000, 60_000)], ids=["above-the-cap", "bomb"])
def test_large_image_is_refused_before_it_is_decoded(size, contract, monkeypatch):
    """Of an image above the maximum only the header is read, even if Pillow calls it a bomb."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the image was decoded"))
    with pytest.raises(BadImage, match="too large"):
        read_pixels(png_of(*size, lines=1), contract)


def test_page_with_a_transparent_corner_stays_white(contract):
    """On an opaque page with dark ink, a transparent part becomes white like the page."""
    page = Image.merge("L", [opened(DIGITS["5"]).point(lambda level: 255 - level)]).convert("RGBA")
    page.putpixel((0, 0), (0, 0, 0, 0))
    assert read_pixels(encoded(page, "PNG"), contract)[0, 0, 0] == 255


def photo(size, mode="RGB", **options):
    """Return a JPEG of this size that shows a digit with shadow and grain."""
    noise = np.random.default_rng(size[0]).normal(0, 3, size[::-1])
    digit = opened(DIGITS["5"]).resize(size, Image.Resampling.BICUBIC)
    levels = np.asarray(digit, dtype=np.float32) * np.linspace(0.7, 1, size[0]) + noise
    grey = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    tinted_grey = Image.merge("RGB", [grey, grey, grey.point(lambda level: level * 0.8)])
    return encoded(tinted_grey.convert(mode), "JPEG", **options)


# JPEGs whose shorter side has at least this many pixels are reduced, for a 28 x 28 contract.
LEAST = EIGHTH * PLENTY * 28


@pytest.mark.parametrize(
    ("kind", "options"),
    [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {}), ("RGB", {"subsampling": 0})],
    ids=["baseline", "progressive", "grey", "cmyk", "full-colour"],
)
def test_photo_sized_jpeg_is_a_level_away_at_most(kind, options, contract):
    """Decoded at an eighth, its grey levels are the whole image's within rounding: two of 255."""
    body = photo((LEAST + 800, LEAST), kind, **options)
    whole = torchvisions(body, contract)
    step = 1 / 255 / contract.std[0]
    torch.testing.assert_close(tensor_of(body, contract), whole, rtol=0, atol=2.01 * step)


@pytest.mark.parametrize("size", [(LEAST, LEAST), (LEAST + 800, LEAST)], ids=["square", "wide"])
def test_photo_is_not_decoded_whole(size, contract, monkeypatch):
    """The resize gets an eighth of the photo, but the whole of one that is a pixel smaller."""
    smaller = (size[0], size[1] - 1)
    photos = [photo(size), photo(smaller)]
    sizes = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: sizes.append(self.size) or load(self))
    for body in photos:
        read_pixels(body, contract)
    assert sizes[0] == (-(-size[0] // EIGHTH), -(-size[1] // EIGHTH))
    assert sizes[-1] == smaller


def test_jpeg_just_below_photo_size_has_torchvisions_values(contract):
    """An image that is not reduced has torchvision's values to 1e-6, however large it is."""
    body = photo((LEAST, LEAST - 1))
    torch.testing.assert_close(tensor_of(body, contract), torchvisions(body, contract), rtol=0, atol=1e-6)


def test_turned_photo_is_turned(contract):
    """EXIF orientation applies to a reduced photo as to any other."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = EXIF_TURNED
    body = photo((LEAST + 800, LEAST), exif=exif)
    plain = photo((LEAST + 800, LEAST))
    upright = opened(plain).transpose(Image.Transpose.ROTATE_270)
    expected = read_pixels(encoded(upright, "PNG"), contract).astype(int)
    assert np.abs(read_pixels(body, contract) - expected).max() <= 2


def test_photo_for_a_large_model_keeps_its_pixels():
    """With a 224-pixel contract only images larger than any photo are reduced: values stay exact."""
    rgb = {"color": "rgb", "size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    contract = Contract.from_config({"input": rgb, "labels": ["a"]})
    body = photo((2600, LEAST))
    reference = np.asarray(transforms.Resize((224, 224))(opened(body)))
    assert np.array_equal(read_pixels(body, contract), reference)


def test_largest_image_is_read(contract):
    """An image of exactly the maximum size is read."""
    side = 2**13
    assert side * side == MAX_PIXELS
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    assert read_pixels(file.getvalue(), contract).max() == 0
