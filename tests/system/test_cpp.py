"""exported/classify, the C++ program, gives the archive's answers, from the same pixels."""

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.load.images import EXIF_ORIENTATION, VARIANTS, encoded, opened
from classifier.contract import Contract
from classifier.image.decode import read_pixels
from classifier.image.limits import MAX_PIXELS, MAX_SCANS, MAX_SIDE
from classifier.runtime.torch import as_function
from tests.conftest import DIGITS
from tests.support.cpp_program import RGB, exported, rgb
from tests.support.images import bad_images, drawn_again_and_again, on_sheet, png_of
from training.families import FAMILIES
from training.mnist import load_test

pytestmark = pytest.mark.cpp

# stb_image's JPEG decoder rounds its cosines and colours differently from libjpeg-turbo. The largest
# difference seen is 1 in 28 x 28 grey and 3 in 224 x 224 RGB.
JPEG_LEVELS = 3
PNG_BEGINS = b"\x89PNG"
LOSSLESS = [name for name in VARIANTS if name.startswith(("png", "bmp", "gif"))]
JPEGS = [name for name in VARIANTS if name.startswith(("jpeg", "mpo"))]
UNREAD = [name for name in VARIANTS if name.startswith(("webp", "tiff"))]


def noise(width: int, height: int, mode: str) -> Image.Image:
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, shape, dtype=np.uint8))


def test_all_test_images_are_answered_as_by_the_archive(program, scripted, engine):
    """MNIST's 10,000: identical pixels and labels, outputs equal to within float32 rounding."""
    files = {f"{i}.png": encoded(Image.fromarray(image), "PNG") for i, image in enumerate(load_test()[0])}
    run = program(scripted, files, "--outputs", "--pixels")
    assert (run.errors, run.status) == ([], 0)
    bodies = list(files.values())
    pixels = np.stack([engine.handler.read_pixels(body) for body in bodies])
    expected = as_function(engine.eager)(engine.handler.contract.normalize(pixels))
    got = np.array([run.rows[name][1].split() for name in files], np.float32)
    # Float32 sums in another order; the outputs reach -63, where two steps of float32 are 8e-6.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert [run.rows[name][0] for name in files] == engine.handler.postprocess(expected)
    for name, seen in zip(files, pixels, strict=True):
        assert np.array_equal(run.pixels(name), seen.ravel())


@pytest.mark.parametrize("resize", [None, 28, 256], ids=["grey", "rgb-squeezed", "rgb-cropped"])
def test_pixels_are_the_handlers(resize, program, scripted, contract):
    """PNG, BMP and GIF of every kind, shape, rotation and transparency give identical pixels."""
    model = scripted
    if resize:
        spec = RGB if resize < 224 else RGB | {"resize": resize}
        contract = Contract.from_config({"input": spec, "labels": ["r", "g", "b"]})
        model = exported(program.folder / "rgb.pt", rgb(spec.get("resize")))
    files = {name: VARIANTS[name](opened(DIGITS["8"])) for name in LOSSLESS}
    files |= shapes(contract) | turned() | holes() | sheets() | drawn()
    run = program(model, files, "--pixels")
    assert (run.errors, run.status) == ([], 0)
    for name, body in files.items():
        assert np.array_equal(run.pixels(name), read_pixels(body, contract).ravel()), name


def sheets() -> dict[str, bytes]:
    """Digits anywhere on sheets of several sizes, in either polarity, some lit from one side."""
    files = {}
    for number, digit in enumerate(load_test()[0][:60]):
        chance = np.random.default_rng(number)
        width, height = (int(length) for length in chance.integers(40, 900, 2))
        side = int(min(width, height) * chance.uniform(0.15, 0.9))
        ink = np.asarray(on_sheet(digit, (width, height), side, tuple(chance.uniform(0, 1, 2)))) / 255
        light = np.linspace(1, chance.uniform(0.5, 1), width) if number % 2 else 1
        levels = (ink if number % 3 else 1 - ink) * 255 * light
        files[f"sheet-{number}"] = encoded(Image.fromarray(levels.astype(np.uint8)), "PNG")
    return files


def drawn() -> dict[str, bytes]:
    """Three digits of each family at each severity, unless it is saved with loss or takes long to draw."""
    files = {}
    for family in FAMILIES:
        if family.most and family.most < 100:
            continue
        for severity in family.severities:
            for number in range(3):
                body = family.draw(load_test()[0][3 + number], severity, np.random.default_rng(number))
                if body.startswith(PNG_BEGINS):
                    files[f"{family.name}-{severity}-{number}".replace(" ", "-")] = body
    return files


def shapes(contract: Contract) -> dict[str, bytes]:
    """Images of noise; two are where Pillow switches to resizing vertically before horizontally."""
    tall = contract.height + 2 * (300 - contract.width)
    sizes = [(1, 1), (3, 500), (500, 3), (27, 29), (640, 480), (64, 64), (300, tall), (300, tall + 1)]
    modes = ["L", "LA", "RGB", "RGBA"]
    files = {f"{m}-{w}x{h}": encoded(noise(w, h, m), "PNG") for w, h in sizes for m in modes}
    levels = np.random.default_rng(1).integers(0, 2**16, (60, 90), dtype=np.uint16)
    return files | {"16-bit": encoded(Image.fromarray(levels), "PNG")}


def turned() -> dict[str, bytes]:
    """Images with each EXIF orientation, one rotated by XMP, one with a broken EXIF block."""
    files = {}
    for orientation in range(10):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        files[f"turned-{orientation}"] = encoded(noise(40, 70, "RGB"), "PNG", exif=exif)
    xmp = PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    files["turned-xmp"] = encoded(noise(40, 70, "L"), "PNG", pnginfo=xmp)
    files["broken-exif"] = encoded(noise(40, 70, "L"), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
    return files


def holes() -> dict[str, bytes]:
    """Transparent images: dark and light ink, with alpha, palette or one transparent colour."""
    light = noise(90, 60, "RGBA").point(lambda level: 128 + level // 2)
    dark = noise(90, 60, "RGBA").point(lambda level: level // 2)
    palette = dark.convert("RGB").quantize(16)
    return {
        "light": encoded(light, "PNG"),
        "dark": encoded(dark, "PNG"),
        "nothing": encoded(Image.new("RGBA", (50, 50), (255, 0, 0, 0)), "PNG"),
        "palette": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "colour": encoded(noise(90, 60, "L"), "PNG", transparency=7),
        "gif": encoded(palette, "GIF", transparency=3),
        "bmp": encoded(dark, "BMP"),  # whose fourth byte is not alpha
    }


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("resize", [None, 256], ids=["grey", "rgb"])
def test_jpeg_differs_by_a_few_levels(name, resize, program, scripted, contract):
    """With another decoder, levels differ by only a few, and rotated images are turned."""
    model, body = scripted, VARIANTS[name](opened(DIGITS["4"]))
    if resize:
        contract = Contract.from_config({"input": RGB | {"resize": resize}, "labels": ["r", "g", "b"]})
        model = exported(program.folder / "rgb.pt", rgb(resize))
    pixels = program(model, {"a.jpg": body}, "--pixels").pixels("a.jpg").astype(int)
    assert np.abs(pixels - read_pixels(body, contract).ravel()).max() <= JPEG_LEVELS


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_no_part_of_a_image_is_answered(kind, program, scripted):
    """A file truncated anywhere is refused, or has all of its pixels."""
    body = encoded(opened(DIGITS["7"]).convert("RGB"), kind)
    run = program(scripted, {str(cut): body[:cut] for cut in range(len(body))} | {"whole": body}, "--pixels")
    parts = [name for name in run.rows if name not in ("whole", "good")]
    assert all(np.array_equal(run.pixels(name), run.pixels("whole")) for name in parts)
    assert len(parts) < 30
    assert len(run.errors) == len(body) - len(parts)


@pytest.mark.parametrize("name", [*bad_images(DIGITS["2"]), *UNREAD])
def test_bad_image_is_refused_and_the_others_answered(name, program, scripted):
    """One sentence names the file and says what to send; the status is 1."""
    body = VARIANTS[name](opened(DIGITS["2"])) if name in UNREAD else bad_images(DIGITS["2"])[name][0]
    run = program(scripted, {"bad": body})
    assert (run.rows, run.status) == ({"good": ["2"]}, 1)
    [line] = run.errors
    assert line.startswith("error: bad: ")
    assert "; send " in line


def packed_xmp() -> bytes:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x/>", zip=True)
    return encoded(opened(DIGITS["2"]), "PNG", pnginfo=info)


def patched(body: bytes, at: int, new: bytes) -> bytes:
    return body[:at] + new + body[at + len(new) :]


BMP, GIF = encoded(opened(DIGITS["2"]), "BMP"), encoded(opened(DIGITS["2"]), "GIF")
CMYK = VARIANTS["jpeg-cmyk"](opened(DIGITS["2"]))
STORED = encoded(opened(DIGITS["2"]), "PNG", compress_level=0)  # a wrong byte shows only in the checksum
JPEG = VARIANTS["jpeg"](opened(DIGITS["2"]))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (patched(BMP, 28, b"\x10\x00"), "the BMP image has 16 bits per pixel and compression 0"),
        (patched(BMP, 30, b"\x01"), "the BMP image has 8 bits per pixel and compression 1"),
        (patched(BMP, 14, b"\x0c"), "the BMP image has a header of the oldest kind"),
        (patched(GIF, 6, b"\x40"), "its first frame does not fill it"),
        (patched(patched(GIF, 6, b"\x40"), 11, b"\x01"), "its first frame does not fill it"),
        (patched(STORED, STORED.index(b"IDAT") + 99, b"\x77"), "wrong checksum of its IDAT"),
        (CMYK.replace(b"Adobe", b"Bdobe"), "the JPEG image has four colours and does not say which"),
        (patched(JPEG, JPEG.index(b"\xff\xc4") + 5, b"\xff" * 16), "a table is too long"),
        (packed_xmp(), "has its orientation in a text that this program does not read"),
        (png_of(0, 5, lines=5), "the image has no pixels"),
    ],
    ids=[
        "bmp-16-bit", "bmp-compressed", "bmp-oldest", "gif-partial", "gif-background", "png-checksum",
        "cmyk-unknown", "jpeg-table", "xmp-packed", "png-empty",
    ],
)  # fmt: skip
def test_what_would_be_misread_is_refused(body, sentence, program, scripted):
    """Files that stb_image reads differently from Pillow get an error, not a wrong answer."""
    [line] = program(scripted, {"bad": body}).errors
    assert sentence in line


def test_limits_are_the_handlers(program, scripted):
    """An image at the archive's limits is answered; one more pixel, row or scan is refused."""
    side = int(MAX_PIXELS**0.5)
    scans = encoded(opened(DIGITS["2"]), "JPEG", progressive=True).count(b"\xff\xda")
    files = {
        "full": png_of(side, side, lines=side),
        "full-long": png_of(MAX_SIDE, 2, lines=2),
        "full-scans": drawn_again_and_again(opened(DIGITS["2"]), MAX_SCANS - scans),
        "pixels": png_of(side + 1, side, lines=side),
        "long": png_of(MAX_SIDE + 1, 2, lines=2),
        "scans": drawn_again_and_again(opened(DIGITS["2"]), MAX_SCANS - scans + 1),
    }
    run = program(scripted, files)
    assert {*run.rows} == {"full", "full-long", "good"}
    by_name = {line.split(": ")[1]: line for line in run.errors}
    assert by_name["pixels"].startswith(f"error: pixels: the image is too large ({side + 1} x {side}")
    assert by_name["long"].startswith(f"error: long: the image is too large ({MAX_SIDE + 1} x 2 pixels)")
    assert by_name["scans"].startswith(f"error: scans: the JPEG image has {MAX_SCANS + 1} scans")
    # stb_image refuses a repeated last scan, but not because of the number of scans.
    assert "scans" not in by_name["full-scans"].removeprefix("error: full-scans")
