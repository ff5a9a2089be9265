"""How training varies digits."""

import numpy as np
import torch
from PIL import Image

from bench.load.images import encoded, opened
from training.augmentation import (
    CENTRED_FILLS,
    CENTRED_SHIFT,
    FINE,
    as_sent,
    box,
    centre,
    coarsened,
    compressed,
    distort,
    negated,
    penned,
    placed,
)
from training.mnist import load_test
from training.train import BATCH, OUTLIERS, STAGES, varied

SOME = 200
FEW = 60
INK_SIDE = 20  # as in the contract
IMAGES, LABELS = load_test()
INK = torch.from_numpy(IMAGES[:SOME, None] / np.float32(255))


def edges(pixels):
    """Return the median level (N,) of each image's outermost pixels: the paper's."""
    frame = np.ones((28, 28), dtype=bool)
    frame[1:-1, 1:-1] = False
    return np.median(pixels[:, frame], axis=1)


def test_images_of_training_are_images():
    """The results are 28 x 28 numbers from 0 to 1, nearly all white on black, and a seed repeats them."""
    torch.manual_seed(0)
    images = as_sent(INK, INK_SIDE)
    assert images.shape == INK.shape
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    light = edges(images[:, 0].numpy()) > 0.5
    assert light.mean() < 0.05
    torch.manual_seed(0)
    assert torch.equal(as_sent(INK, INK_SIDE), images)


def test_batch_has_a_truth_for_each_image(contract):
    """The digits of a batch keep their labels, in order; images without a digit get all labels equally."""
    torch.manual_seed(0)
    labels = torch.tensor(LABELS[:BATCH], dtype=torch.long)
    images, truth = varied(INK[:BATCH], labels, contract, STAGES[0])
    assert images.shape == (BATCH + OUTLIERS, 1, 28, 28)
    assert torch.equal(truth[:BATCH].argmax(dim=1), labels)
    torch.testing.assert_close(truth.sum(dim=1), torch.ones(len(truth)))
    torch.testing.assert_close(truth[BATCH:], torch.full((OUTLIERS, 10), 0.1))


def test_most_digits_are_placed_as_the_handler_does():
    """Most have nearly the handler's place and size; some are anywhere, a little cut off at most."""
    torch.manual_seed(0)
    fine = penned(INK)
    drawn = placed(fine)
    assert drawn.shape == (SOME, 1, FINE, FINE)
    middle, half = box(drawn)
    assert (middle.abs() + half <= 1.01).all()
    # A turned digit's box is smaller than its turned box.
    in_the_middle = centre(drawn).abs().amax(dim=1) < CENTRED_SHIFT + 0.04
    as_handler = in_the_middle & (half.amax(dim=1) < CENTRED_FILLS[1])
    assert 0.75 < as_handler.float().mean() < 0.99
    assert (drawn.sum(dim=(1, 2, 3)) > 0.08 * fine.sum(dim=(1, 2, 3))).all()


def test_centre_is_the_mean_place_of_the_ink():
    """With two areas of ink, one three times as large, it is nearer to that one; half the side is 1."""
    ink = torch.zeros(1, 1, 28, 28)
    ink[0, 0, 0:2, 0:2] = 1
    ink[0, 0, 26:28, 22:28] = 1
    expected = torch.tensor([[-13 + 3 * 11, -13 + 3 * 13]]) / 4 / 14
    torch.testing.assert_close(centre(ink), expected)


def test_box_is_where_the_ink_is():
    """The middle and half the size of a rectangle, across and down, in units of half the side."""
    ink = torch.zeros(1, 1, 28, 28)
    ink[0, 0, 4:12, 14:28] = 1
    middle, half = box(ink)
    torch.testing.assert_close(middle, torch.tensor([[0.5, -12 / 28]]))
    torch.testing.assert_close(half, torch.tensor([[0.5, 8 / 28]]))


def test_jpeg_is_lost_as_a_file_loses_it():
    """Training's JPEG of quality 50 and 10 matches Pillow's files within rounding."""
    for quality, steps in ((50, 1.0), (10, 5.0)):
        lost = compressed(INK[:FEW], torch.full((FEW,), steps)) * 255
        bodies = [encoded(Image.fromarray(image), "JPEG", quality=quality) for image in IMAGES[:FEW]]
        expected = np.stack([np.asarray(opened(body)) for body in bodies])
        assert abs(lost[:, 0].clamp(0, 255).numpy() - expected).mean() < 1


def test_half_of_the_pages_are_negated():
    """A page stays as it was or is inverted, with nothing in between."""
    torch.manual_seed(0)
    turned = negated(INK)
    as_it_was = torch.tensor([torch.equal(one, other) for one, other in zip(turned, INK, strict=True)])
    torch.testing.assert_close(turned[~as_it_was], 1 - INK[~as_it_was])
    assert 0.3 < as_it_was.float().mean() < 0.7


def test_coarse_images_have_few_levels_of_detail():
    """A digit reduced to a few pixels fills its frame; noise loses the difference between neighbours."""
    torch.manual_seed(0)
    few = coarsened(INK)
    _, half = box(few)
    assert half.amax(dim=1).mean() > 0.85
    assert 0 <= few.min() <= few.max() <= 1
    assert coarsened(torch.rand(20, 1, 56, 56)).diff(dim=-1).abs().mean() < 0.1


def test_distortion_keeps_the_digit_in_the_image():
    """A turned, sheared, scaled and moved image keeps its shape, its range and most of its ink."""
    images = torch.from_numpy(load_test()[0][:200, None] / np.float32(255))
    torch.manual_seed(0)
    distorted = distort(images)
    assert distorted.shape == images.shape
    assert 0 <= distorted.min() <= distorted.max() <= 1 + 1e-6
    assert 0.7 < (distorted.sum() / images.sum()) < 1.3
    assert not torch.equal(distorted, images)
