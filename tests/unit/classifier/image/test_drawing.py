"""What lies around a drawing is not part of it: frames, lines, margins, axes, titles, shadows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from classifier.image.centring import centred
from tests.support.images import on_sheet
from training.mnist import load_test

SIZE, SIDE, WHITE = (28, 28), 20, 255
IMAGES = load_test()[0][:20]
ALIKE = 0.8  # the cosine between what is seen and the digit itself
MOST = 0.9  # of images; a 1 in a shadow, or cut on all sides, is hard to tell from the shadow or the paper


def likeness(seen: np.ndarray, digit: np.ndarray) -> float:
    """Return the cosine between two images at their best alignment."""
    moves = [(down, across) for down in range(-2, 3) for across in range(-2, 3)]
    ink = digit.astype(float)
    products = [(np.roll(seen, move, (0, 1)) * ink).sum() for move in moves]
    return max(products) / float(np.linalg.norm(ink) * max(np.linalg.norm(seen.astype(float)), 1))


def share_alike(images: Iterable[Image.Image], expected: Iterable[Image.Image]) -> float:
    """Return the share of images that are seen as the expected ones are."""
    pairs = [[centred(image, SIZE, SIDE) for image in pair] for pair in zip(images, expected, strict=True)]
    return float(np.mean([likeness(*pair) > ALIKE for pair in pairs]))


def sheet(digit: np.ndarray, side: int = 200, share: float = 0.55) -> Image.Image:
    """Return a digit, black on white, in the middle of a sheet."""
    return on_sheet(digit, (side, side), round(side * share * 28 / 20), (0.5, 0.5)).point(
        lambda ink: WHITE - ink
    )


def framed(image: Image.Image, width: int, inset: int = 0, level: int = 0) -> Image.Image:
    box = (inset, inset, image.width - 1 - inset, image.height - 1 - inset)
    ImageDraw.Draw(image).rectangle(box, outline=level, width=width)
    return image


def lined(image: Image.Image, sides: str, width: int, slant: int = 0) -> Image.Image:
    """Draw lines along the left, top, right and bottom edges; slant in pixels from end to end."""
    draw, last = ImageDraw.Draw(image), image.width - 1
    ends = {
        "left": ((8, -5), (8 + slant, last + 5)),
        "right": ((last - 8, -5), (last - 8 - slant, last + 5)),
        "top": ((-5, 8), (last + 5, 8 + slant)),
        "bottom": ((-5, last - 8), (last + 5, last - 8 - slant)),
    }
    for side in sides.split():
        draw.line(ends[side], fill=60, width=width)
    return image


def margined(image: Image.Image, level: int, sides: tuple[int, int, int, int]) -> Image.Image:
    """Put a margin around an image: so many pixels at the left, top, right and bottom."""
    left, top, right, bottom = sides
    whole = Image.new("L", (image.width + left + right, image.height + top + bottom), level)
    whole.paste(image, (left, top))
    return whole


def plotted(digit: np.ndarray) -> Image.Image:
    """Return a digit in a black square with ticks and numbers beside it, on white."""
    whole = margined(
        Image.fromarray(digit).resize((196, 196), Image.Resampling.NEAREST), WHITE, (32, 12, 12, 30)
    )
    draw = ImageDraw.Draw(whole)
    for place in range(0, 28, 5):
        draw.line((32 + place * 7, 208, 32 + place * 7, 212), fill=0)
        draw.text((28 + place * 7, 214), str(place), fill=0)
        draw.line((28, 15 + place * 7, 32, 15 + place * 7), fill=0)
        draw.text((8, 10 + place * 7), str(place), fill=0)
    return whole


def shadowed(image: Image.Image) -> Image.Image:
    levels = np.asarray(image, float)
    across = np.linspace(0, 1, image.width)[None] + np.linspace(0, 0.3, image.height)[:, None]
    return Image.fromarray((levels * np.where(across > 0.6, 0.5, 1)).astype(np.uint8))


AROUND = {
    "thin frame": lambda digit: framed(sheet(digit), 3),
    "thick frame": lambda digit: framed(sheet(digit), 14),
    "frame within": lambda digit: framed(sheet(digit, share=0.4), 4, inset=15),
    "grey frame": lambda digit: framed(sheet(digit), 6, level=110),
    "two lines": lambda digit: lined(sheet(digit), "left bottom", 4),
    "one line": lambda digit: lined(sheet(digit), "right", 5),
    "slanted lines": lambda digit: lined(sheet(digit), "left top right bottom", 4, slant=9),
    "dark margin": lambda digit: margined(sheet(digit), 40, (20, 35, 10, 25)),
    "white margin around a dark image": lambda digit: margined(
        sheet(digit).point(lambda level: WHITE - level), WHITE, (40, 20, 30, 25)
    ),
    "grey margin": lambda digit: margined(sheet(digit), 128, (30, 30, 30, 30)),
    "plot": plotted,
    "shadow": lambda digit: shadowed(sheet(digit)),
    "shadow on chalk": lambda digit: shadowed(
        sheet(digit).point(lambda level: 60 + (WHITE - level) * 3 // 4)
    ),
    "everything": lambda digit: margined(framed(sheet(digit), 4), 90, (25, 25, 25, 25)),
}


@pytest.mark.parametrize("around", AROUND)
def test_what_lies_around_is_not_part_of_the_drawing(around):
    """The digit is seen as if it lay on a blank sheet, white on black."""
    assert share_alike((AROUND[around](digit) for digit in IMAGES), map(sheet, IMAGES)) >= (
        MOST if around.startswith("shadow") else 1
    )


@pytest.mark.parametrize("paper", [(255, 0), (0, 255), (200, 150), (30, 80)], ids=str)
def test_any_contrast_and_polarity_is_seen_alike(paper):
    """Ink becomes white and paper black, whatever their levels were."""
    light, dark = paper
    for digit in IMAGES:
        page = sheet(digit).point(lambda level: dark + (light - dark) * level // WHITE)
        seen, expected = (centred(one, SIZE, SIDE).astype(int) for one in (page, sheet(digit)))
        assert abs(seen - expected).mean() < 6


def test_digit_that_fills_the_image_gets_paper_around_it():
    """A digit cut out along its ink is as large, and in the middle, as any other."""
    pages = [sheet(digit, 280) for digit in IMAGES]
    boxes = [page.point(lambda level: WHITE * (level < 160)).getbbox() for page in pages]
    assert share_alike((page.crop(box) for page, box in zip(pages, boxes, strict=True)), pages) >= MOST


@pytest.mark.parametrize("dark_ink", [True, False], ids=["black-on-white", "white-on-black"])
@pytest.mark.parametrize("blur", [0, 8])
@pytest.mark.parametrize("bold", [1, 5, 13])
def test_bold_digits_that_fill_the_image_are_no_paper(bold, blur, dark_ink):
    """Ink may cover more of the image than paper does, and be blurred until most of it is neither."""
    pages = []
    for digit in IMAGES:
        ink = Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC)
        ink = ink.filter(ImageFilter.MaxFilter(bold))
        ink = ink.crop(ink.point(lambda level: WHITE * (level > 160)).getbbox())
        pages.append(ink.filter(ImageFilter.GaussianBlur(blur)))
    expected = [ImageOps.expand(page, 60, fill=0) for page in pages]
    if dark_ink:
        pages = [ImageOps.invert(page) for page in pages]
    assert share_alike(pages, expected) >= MOST


PATTERNS = {
    "stripes": lambda place: place[1] // 8 % 2,
    "slanted stripes": lambda place: (place[0] + 2 * place[1]) // 14 % 2,
    "chequers": lambda place: (place[0] // 16 + place[1] // 16) % 2,
    "dots": lambda place: (place[0] % 20 < 8) & (place[1] % 20 < 8),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_no_drawings(pattern):
    """What goes on beyond the edges is resized as a whole: the model must not see a part of it alone."""
    ink = PATTERNS[pattern](np.indices((140, 140))).astype(np.uint8)
    page = Image.fromarray(200 - 150 * ink)
    whole = np.asarray(page.resize(SIZE, Image.Resampling.BILINEAR))
    assert np.array_equal(centred(page, SIZE, SIDE), whole)


def test_strokes_along_the_edge_are_no_lines():
    """The bar of a 7 and the foot of a 2 stay, even if they cover an edge from end to end."""
    seven = Image.new("L", (100, 100), WHITE)
    draw = ImageDraw.Draw(seven)
    draw.line((0, 6, 99, 6), fill=0, width=14)
    draw.line((92, 6, 30, 99), fill=0, width=14)
    seen = centred(seven, SIZE, SIDE)
    assert (seen > WHITE / 2).sum(axis=1).max() >= 17


def test_image_of_the_models_size_is_prepared_too():
    """28 x 28 pixels with a small digit in a corner, black on white, become one of MNIST's."""
    for digit in IMAGES:
        small = on_sheet(digit, (140, 140), 90, (0, 0)).resize(SIZE, Image.Resampling.BOX)
        seen = centred(small.point(lambda level: WHITE - level), SIZE, SIDE)
        assert likeness(seen, digit) > 0.7
        assert abs(int(seen.max()) - WHITE) <= 1


def test_mnist_stays_as_it_is():
    """Nearly all of its images are in their place, and reach the model unchanged, in either polarity."""
    images = load_test()[0][:500]
    unchanged = [np.array_equal(centred(Image.fromarray(image), SIZE, SIDE), image) for image in images]
    assert np.mean(unchanged) > 0.95
    for image in images[:50]:
        there, back = (centred(Image.fromarray(one), SIZE, SIDE) for one in (image, WHITE - image))
        assert np.array_equal(there, back)
