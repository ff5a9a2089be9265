"""Images with something around the digit, made for the evaluation."""

import numpy as np

from bench.load.images import opened
from tests.unit.training.test_families import BY_NAME, FEW, IMAGES
from training import surroundings
from training.evaluate_real import files
from training.image_files import LARGE, LUMINANCE

SOME_PLOTS = 24


def made(name, severity, count=FEW):
    """Return a family's images, opened."""
    return [opened(body) for body in files(BY_NAME[name], BY_NAME[name].severities[severity], IMAGES[:count])]


def grey(images):
    """Return grey levels float (H, W) of each image."""
    return [np.asarray(image.convert("L"), dtype=float) for image in images]


def middle(levels, share):
    """Return the middle of an image, this share of each side."""
    height, width = (round(length * (1 - share) / 2) for length in levels.shape)
    return levels[height : levels.shape[0] - height, width : levels.shape[1] - width]


def test_plots_are_saved_as_matplotlib_does():
    """PNG with alpha, or JPEG; on white; colours or grey; the digit in half of them is light on dark."""
    plots = made("plot of matplotlib", 2, SOME_PLOTS)
    assert {(plot.format, plot.mode) for plot in plots} == {("PNG", "RGBA"), ("JPEG", "RGB")}
    levels = grey(plots)
    assert np.mean([(one > 250).mean() > 0.05 for one in levels]) == 1
    dark = [np.median(middle(one, 0.4)) < 128 for one in levels]
    assert 0.25 < np.mean(dark) < 0.75
    colours = [np.ptp(np.asarray(plot.convert("RGB")), axis=2).max() > 60 for plot in plots]
    assert 0.05 < np.mean(colours) < 0.6


def test_plots_get_smaller():
    """A smaller figure has fewer pixels."""
    large, small = (np.mean([plot.height for plot in made("plot of matplotlib", i, 6)]) for i in (1, 2))
    assert small < large


def test_plots_share_a_figure_without_a_trace():
    """A plot is the same as on a figure of its own, whatever was drawn before."""
    own = []
    for i in range(6):
        surroundings._figure.cache_clear()
        own.append(surroundings.plotted(IMAGES[i], 1.2, np.random.default_rng(i)))
    for i in [*range(6), *reversed(range(6))]:
        assert surroundings.plotted(IMAGES[i], 1.2, np.random.default_rng(i)) == own[i]


def test_margins_are_unequal_and_of_another_colour():
    """The four margins have one colour, up to the severity's share; the digit's paper differs from it."""
    for severity in range(3):
        most = BY_NAME["margin of another colour"].severities[severity] * LARGE
        lights = []
        for image in made("margin of another colour", severity):
            pixels = np.asarray(image.convert("RGB"), dtype=float)
            other = (pixels != pixels[0, 0]).any(axis=2)
            sides = [np.flatnonzero(other.any(axis=axis)) for axis in (1, 0)]
            top, left = (at[0] for at in sides)
            assert [np.ptp(at) + 1 for at in sides] == [LARGE, LARGE]
            ends = pixels.shape[0] - 1 - sides[0][-1], pixels.shape[1] - 1 - sides[1][-1]
            assert all(0 < margin <= most + 1 for margin in (top, left, *ends))
            assert len({top, left, *ends}) > 1
            paper, margin = (colour @ LUMINANCE for colour in (pixels[top, left], pixels[0, 0]))
            assert abs(paper - margin) > 35
            lights.append(paper > 128)
        assert 0.3 < np.mean(lights) < 0.7


def loop(levels):
    """Return the pixels of a square between the lines of a cell and the digit in it."""
    side = len(levels)
    outer, inner = round(side * 0.125), round(side * 0.145)
    within = np.zeros(levels.shape, dtype=bool)
    within[outer : side - outer, outer : side - outer] = True
    within[inner : side - inner, inner : side - inner] = False
    return levels[within]


def marked(levels, part):
    """Return the share of the part's pixels that are neither paper nor its noise."""
    paper = np.median(levels)
    return (abs(part - paper) > 0.25 * abs(levels - paper).max()).mean()


def test_cells_have_lines_near_their_edges():
    """With each severity there is more of them; only at the highest do digits touch them."""
    outside, between = [], []
    for severity in range(3):
        cells = grey(made("cell of a form", severity))
        outside.append(np.mean([marked(one, frame(one)) for one in cells]))
        between.append(np.mean([marked(one, loop(one)) > 0.002 for one in cells]))
    assert 0.03 < outside[0] < outside[1] < outside[2]
    assert max(between[:2]) < 0.1
    assert 0.25 < between[2] < 0.75


def frame(levels):
    """Return the outer eighth of an image."""
    side = len(levels)
    inner = np.zeros(levels.shape, dtype=bool)
    inner[side // 8 : -side // 8, side // 8 : -side // 8] = True
    return levels[~inner]


def test_squares_get_darker():
    """Lines are darker with each severity but lighter than the ink; the page is a tinted colour photo."""
    contrasts = []
    for severity in range(3):
        photos = made("photo of squared paper", severity, 12)
        assert {(photo.format, photo.mode) for photo in photos} == {("JPEG", "RGB")}
        red, _, blue = np.mean([np.asarray(photo).mean(axis=(0, 1)) for photo in photos], axis=0)
        assert red > blue
        levels = grey(photos)
        rows = [abs(np.diff(one[:60], axis=1)) for one in levels]
        contrasts.append(np.mean([np.quantile(row, 0.97) for row in rows]))
        assert all(np.median(one) > 90 for one in levels)
        assert all(middle(one, 0.7).min() < np.quantile(one[:60], 0.01) for one in levels)
    assert contrasts[0] < contrasts[1] < contrasts[2]
