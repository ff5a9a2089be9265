"""Plain PNG files have Pillow's pixels, whichever decoder reads them; all others are left to Pillow."""

import random
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from bench.load.images import (
    EXIF_ORIENTATION,
    EXIF_TURNED,
    HEAVY,
    VARIANTS,
    chalk,
    encoded,
    enlarged,
    opened,
    png_chunks,
    png_file,
    tinted,
    with_chunk,
)
from classifier.errors import BadImage
from classifier.image import decode as images
from classifier.image import png as plain_png
from classifier.image.decode import read_pixels
from classifier.image.limits import MAX_PIXELS
from tests.conftest import DIGITS
from tests.support.images import png_header

DIGIT = opened(DIGITS["2"])
SEVERAL = 3000  # files damaged at random; the seed is the same in every run


def with_text(keyword: str) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text(keyword, "text")
    return encoded(DIGIT, "PNG", pnginfo=text)


def exif_turned() -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = EXIF_TURNED
    return exif.tobytes()


PLAIN = {
    "grey": encoded(DIGIT, "PNG"),
    "rgb": encoded(tinted(enlarged(DIGIT)), "PNG"),
    "rgba": encoded(enlarged(DIGIT).convert("RGBA"), "PNG"),
    "transparent": encoded(chalk(DIGIT).convert("RGBA"), "PNG"),
    "uncompressed": encoded(enlarged(DIGIT), "PNG", compress_level=0),
    "with-text": with_text("Software"),
    "with-resolution": encoded(DIGIT, "PNG", dpi=(300, 300)),
    "with-profile": encoded(DIGIT, "PNG", icc_profile=b"of no matter"),
    "with-heavy-profile": with_chunk(encoded(DIGIT, "PNG"), b"iCCP", b"profile\0\0" + HEAVY),
    "with-packed-text": with_chunk(encoded(DIGIT, "PNG"), b"zTXt", b"Comment\0\0" + HEAVY),
    "with-international-text": with_chunk(encoded(DIGIT, "PNG"), b"iTXt", b"Comment\0\1\0\0\0" + HEAVY),
    "with-text-at-the-end": with_chunk(encoded(DIGIT, "PNG"), b"zTXt", b"Comment\0\0" + HEAVY, last=True),
}
NOT_PLAIN = {
    "palette": encoded(DIGIT.convert("P"), "PNG"),
    "one-bit": encoded(DIGIT.convert("1"), "PNG"),
    "grey-alpha": encoded(chalk(DIGIT), "PNG"),
    "one-level-transparent": encoded(DIGIT, "PNG", transparency=0),
    "turned-by-exif": encoded(DIGIT, "PNG", exif=exif_turned()),
    "exif-in-text": with_text("Raw profile type exif"),
    "xmp-in-text": with_text("XML:com.adobe.xmp"),
    "jpeg": encoded(DIGIT, "JPEG"),
    "nothing": b"",
}


def by_pillow(body, contract):
    return images._by_pillow(body, contract)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_file_has_pillows_pixels(name, contract):
    """The file is grey, RGB or RGBA, opaque or not, whatever else a program wrote into it."""
    assert plain_png.decode(PLAIN[name]) is not None
    assert np.array_equal(read_pixels(PLAIN[name], contract), by_pillow(PLAIN[name], contract))


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_all_else_is_left_to_pillow(name):
    """A file that holds more than plain pixels, or is not a PNG, is not decoded here."""
    assert plain_png.decode(NOT_PLAIN[name]) is None


PALETTE = encoded(tinted(DIGIT).convert("P"), "PNG")
TURNED = ImageOps.exif_transpose(opened(encoded(enlarged(DIGIT), "PNG", exif=exif_turned())))
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % EXIF_TURNED
PROFILE = b"\nexif\n%8d\n" % len(exif_turned()) + exif_turned().hex().encode()
ORIENTED = {
    "xmp": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "packed-xmp": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    "xmp-of-a-language": (b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0XMP\0" + zlib.compress(XMP)),
    "packed-xmp-of-1-MiB": (
        b"iTXt",
        b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP.ljust(plain_png.UNPACKED)),
    ),
    "long-xmp": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.rjust(2**22)),
    "exif-in-text": (b"tEXt", b"Raw profile type exif\0" + PROFILE),
    "exif-in-packed-text": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE)),
}


@pytest.mark.parametrize("name", ORIENTED)
def test_text_that_says_which_side_is_up_is_read(name, contract):
    """The orientation is found even beside a text that is skipped."""
    turned = read_pixels(encoded(TURNED, "PNG"), contract)
    body = with_chunk(encoded(enlarged(DIGIT), "PNG"), *ORIENTED[name])
    assert np.array_equal(read_pixels(body, contract), turned)
    assert np.array_equal(read_pixels(with_chunk(body, b"zTXt", b"Comment\0\0" + HEAVY), contract), turned)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"Comment\0\0" + HEAVY),
        (b"iTXt", b"Comment\0\1\0en\0a\0" + HEAVY),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + HEAVY),
        (b"zTXt", b"Raw profile type exif\0\0" + HEAVY),
        (b"iCCP", b"profile\0\0" + HEAVY),
        (b"tEXt", b"Comment\0" + bytes(2**22)),
        (b"zTXt", b"no end"),
        (b"zTXt", b"Comment\0\0no zlib"),
        (b"iTXt", b""),
    ],
    ids=["zTXt", "iTXt", "xmp", "exif", "profile", "tEXt", "no-keyword", "no-zlib", "empty"],
)
@pytest.mark.parametrize("last", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "body", [PALETTE, PLAIN["grey"], NOT_PLAIN["grey-alpha"]], ids=["palette", "grey", "alpha"]
)
def test_pixels_are_read_whatever_the_metadata_weigh(body, chunk, last, contract):
    """Heavy metadata may come before or after the pixels, in one chunk or in ten."""
    pixels = read_pixels(body, contract)
    heavy = with_chunk(body, *chunk, last=last)
    assert np.array_equal(read_pixels(heavy, contract), pixels)
    assert np.array_equal(by_pillow(heavy, contract), pixels)
    for _ in range(9):
        heavy = with_chunk(heavy, *chunk, last=last)
    assert np.array_equal(read_pixels(heavy, contract), pixels)


@pytest.mark.parametrize("keyword", [b"Comment\0\0", b"Raw profile type exif\0\0"], ids=["text", "exif"])
def test_texts_that_unpack_to_gigabytes_cost_nothing(keyword, contract):
    """Texts are not unpacked, except for a little, in total, of those that may hold an orientation."""
    bomb = (b"zTXt", keyword + zlib.compress(bytes(2**24), 9))
    parts = png_chunks(PALETTE)
    body = png_file([parts[0], *[bomb] * 200, *parts[1:]])
    tracemalloc.start()
    read_pixels(body, contract)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(body) + 4 * plain_png.UNPACKED


def test_damaged_text_is_left_to_pillow(contract):
    """Its checksum shows that the file is damaged."""
    heavy = bytearray(with_chunk(PALETTE, b"tEXt", b"Comment\0" + bytes(100)))
    heavy[heavy.index(b"Comment") + 50] = 1
    with pytest.raises(BadImage):
        read_pixels(bytes(heavy), contract)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("png")])
def test_archive_without_the_package_has_the_same_pixels(variant, contract, monkeypatch):
    """Without kornia-rs, Pillow also reads the plain files."""
    body = VARIANTS[variant](DIGIT)
    with_package = read_pixels(body, contract)
    monkeypatch.setattr(plain_png, "decode_image_png_u8", None)
    assert plain_png.decode(body) is None
    assert np.array_equal(read_pixels(body, contract), with_package)


def test_image_of_the_models_size_is_not_resized(contract, monkeypatch):
    """MNIST's own images reach the model without an intermediate step."""
    monkeypatch.setattr(plain_png, "as_image", lambda _: pytest.fail("Pillow was used"))
    assert np.array_equal(read_pixels(PLAIN["grey"], contract)[..., 0], np.asarray(DIGIT))


def test_bytes_of_any_kind_are_read():
    """A bytearray, which TorchServe's own reader returns, works as well as bytes."""
    assert np.array_equal(plain_png.decode(bytearray(PLAIN["rgb"])), plain_png.decode(PLAIN["rgb"]))


def test_no_more_pixels_than_anywhere_else():
    """What is too large to read with Pillow is too large here too."""
    assert plain_png.LARGEST_SIDE**2 <= MAX_PIXELS
    wide = encoded(Image.new("L", (plain_png.LARGEST_SIDE + 1, 1)), "PNG")
    assert plain_png.decode(wide) is None


@pytest.mark.parametrize("missing", [1, 100, 783])
def test_image_without_its_last_pixels_is_not_read(missing):
    """A file with correct checksums whose data ends early is not plain."""
    lines = b"".join(b"\0" + bytes(28) for _ in range(28))
    data = zlib.compress(lines[:-missing])
    body = png_file([(b"IHDR", png_header(28, 28)), (b"IDAT", data), (b"IEND", b"")])
    assert plain_png.decode(body) is None


def test_damaged_file_is_read_as_pillow_reads_it(contract):
    """Flipped bits, cut bytes, and lost, moved or forged chunks never change the pixels or the error."""
    chance = random.Random(1)  # noqa: S311 - damage, no secret
    files = [PLAIN[name] for name in ("grey", "rgb", "transparent")]
    read = 0
    for _ in range(SEVERAL):
        body = damaged(chance.choice(files), chance)
        pixels = plain_png.decode(body)
        if pixels is None:
            continue
        read += 1
        try:
            expected = by_pillow(body, contract)
        except BadImage:  # a bad checksum in a file that was read anyway
            continue
        assert np.array_equal(read_pixels(body, contract), expected), body
    assert read > SEVERAL / 10


def damaged(body: bytes, chance: random.Random) -> bytes:
    """Return the file with one fault; faulty chunks get correct checksums."""
    place = chance.randrange(len(body))
    parts = png_chunks(body)
    index = chance.randrange(len(parts))
    name, data = parts[index]
    match chance.randrange(6):
        case 0:
            return body[:place] + bytes([body[place] ^ 1 << chance.randrange(8)]) + body[place + 1 :]
        case 1:
            return body[:place]
        case 2:
            del parts[index]
        case 3:
            parts.insert(index, (chance.choice([b"tRNS", b"eXIf", b"PLTE", b"pHYs", b"tEXt"]), bytes(6)))
        case 4:
            cut = chance.randrange(len(data) + 1)
            parts[index : index + 1] = [(name, data[:cut]), (name, data[cut:])]
        case 5 if data:
            cut = chance.randrange(len(data))
            parts[index] = (name, data[:cut] + chance.randbytes(1) + data[cut + 1 :])
    return png_file(parts)
