"""How training varies MNIST's digits, so that the model can read images as people send them.

Everything but the last step is torch on whole batches, with torch's global random numbers. "Ink" is float32
(N, 1, H, W), 0 where there is none and 1 where it is full, like MNIST's images. "Pages" are what people send:
float32 (N, 1, 56, 56), 0 black and 1 white, in either polarity. In the last step the handler's own code
prepares them (classifier/image/centring.py): the model learns from exactly what it will be given.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from classifier.image.centring import centred

SIDE = 28
MNIST_SHARE = 20 / SIDE  # of the side, filled by MNIST's digits
# Drawn at twice the model's size and averaged down, as a larger image is when it is read.
FINE = 2 * SIDE
# How far a digit may be turned, sheared, scaled and moved: the variation of handwriting itself.
MAX_ANGLE = 12.0  # degrees
MAX_SHEAR = 0.15  # as a tangent
MAX_SCALE = 0.12  # relative
MAX_SHIFT = 0.14  # of half the side: two pixels
# The handler scales and centres a drawing like MNIST's digits, which fill 0.71 of the side, so most images
# are like that. If it finds no ink, it leaves the image alone; then a digit may have any size and place.
CENTRED_FILLS = (0.62, 0.8)
CENTRED_SHIFT = 0.08  # of half the side
FILLS = (0.4, 1.08)  # above 1, the image cuts a little off
LEFT_ALONE = 8  # one in so many
# How extreme an image may be.
WIDE_ANGLE = 25.0  # degrees
WIDE_SHEAR = 0.4
WIDE_STRETCH = 0.35  # the logarithm of width to height
LEAST_CONTRAST = 0.3
MOST_GRAIN = 0.25  # deviation of the noise, relative to the contrast
SMALL = 4  # one in so many images is sent in the model's own size
# This share of the pages shows lines of a cell, each edge with this probability. They are at most so many
# pixels of 56 from the edge, as wide, and as steep.
FRAMED, EDGE_HAS_LINE, MOST_INSET, MOST_LINE, MOST_SLANT = 0.1, 0.7, 5.0, 3.5, 0.05
COARSE = 5  # one in so many images is coarse, like an enlarged icon
COARSE_SIDES = (7, 8, 8, 9, 10, 12, 16, 16)
COARSE_STRETCH = (-0.3, 0.2)  # the logarithm of width to height
MOST_GAIN = 2.0  # how much darker a coarse image's ink may be than the mean of what it covers
BLACK_AND_WHITE = 0.3  # the share of coarse images that have no grey
SEEN = 0.3  # ink above which a pixel belongs to the digit
# The luminance table of the JPEG standard (ITU-T T.81, Annex K), at quality 50.
JPEG_STEPS = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
BLOCK = 8
# The steps at quality 5 are ten times those at quality 50.
COARSEST_STEPS = 10.0


def distort(ink: torch.Tensor) -> torch.Tensor:
    """Turn, shear, scale and move each of the images (N, 1, H, W) a little, on black."""
    count = len(ink)
    angle = torch.deg2rad(between(count, -MAX_ANGLE, MAX_ANGLE))
    cos, sin = torch.cos(angle), torch.sin(angle)
    shear = between(count, -MAX_SHEAR, MAX_SHEAR)
    across, down = (1 + between(count, -MAX_SCALE, MAX_SCALE) for _ in range(2))
    matrix = _rows([across * cos, shear - sin], [sin, down * cos])
    shift = torch.stack([between(count, -MAX_SHIFT, MAX_SHIFT) for _ in range(2)], dim=1)
    return _sampled(ink, matrix, shift)


def as_sent(ink: torch.Tensor, ink_side: int, often: float = 0.3) -> torch.Tensor:
    """Return images (N, 1, 28, 28) of MNIST's digits (N, 1, 28, 28) as people may draw and send them.

    They are as the handler passes them to the model. `often` is the share of images that have each fault of
    light, camera and paper.
    """
    drawn = penned(ink)
    coarse = len(drawn) // COARSE
    drawn = torch.cat([coarsened(drawn[:coarse]), drawn[coarse:]])
    pages = taken(placed(drawn), often)
    small = len(pages) // SMALL
    files = (F.avg_pool2d(pages[:small], FINE // SIDE), pages[small:])
    return torch.cat([prepared(file, ink_side) for file in files])


def prepared(pages: torch.Tensor, ink_side: int) -> torch.Tensor:
    """Prepare pages (N, 1, S, S) as the handler does: images (N, 1, 28, 28), most of them white on black."""
    levels = (pages * 255).round().to(torch.uint8).numpy()
    images = [centred(Image.fromarray(page), (SIDE, SIDE), ink_side) for page in levels[:, 0]]
    return torch.from_numpy(np.stack(images)[:, None] / np.float32(255))


def taken(ink: torch.Tensor, often: float = 0.3) -> torch.Tensor:
    """Return pages (N, 1, 56, 56) of ink (N, 1, 56, 56): on paper, in some light, by some camera.

    One in five was saved as JPEG.
    """
    page, contrast = on_paper(ink, often)
    seen = blurred(negated(lit(framed(page, contrast), often)), often)
    grain = sometimes(len(ink), MOST_GRAIN, often) * contrast
    noise = F.interpolate(torch.randn(len(ink), 1, SIDE, SIDE), size=seen.shape[-2:])
    seen = (seen + column(grain) * noise).clamp(0, 1)
    saved = len(ink) // 5
    steps = between(saved, 0, math.log(COARSEST_STEPS)).exp()
    return torch.cat([seen[:-saved], compressed(seen[-saved:], steps).clamp(0, 1)])


def framed(pages: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """Draw the lines of a cell on some of the pages (N, 1, S, S), dark, along one to four of the edges."""
    count, side = len(pages), pages.shape[-1]
    from_edge, width = (
        between(count * 4, 0, MOST_INSET).view(4, -1, 1),
        between(count, 0.5, MOST_LINE)[:, None],
    )
    slant = between(count, -MOST_SLANT, MOST_SLANT)[:, None, None]
    along = (torch.arange(side) - side / 2)[None, None]
    has_lines = (torch.rand(4, count, 1, 1) < EDGE_HAS_LINE) & (torch.rand(count) < FRAMED)[
        None, :, None, None
    ]
    lines = torch.zeros(count, side, side, dtype=torch.bool)
    for edge in range(4):
        # How far each pixel is from the edge; a line is aslant along it.
        away = (torch.arange(side)[None, :, None] - slant * along - from_edge[edge][:, :, None]).expand(
            -1, side, side
        )
        line = (away >= 0) & (away < width[:, :, None]) & has_lines[edge]
        lines |= torch.rot90(line, edge, (1, 2))
    dark = (column(pages.amax(dim=(1, 2, 3))) - column(contrast)).clamp(min=0)
    return torch.where(lines[:, None], torch.minimum(pages, dark), pages)


def penned(ink: torch.Tensor) -> torch.Tensor:
    """Draw digits (N, 1, 28, 28) with thin and thick, hard and soft pens: (N, 1, 56, 56)."""
    fine = F.interpolate(ink, size=(FINE, FINE), mode="bilinear", align_corners=False)
    thick = _largest(fine, 5)
    eroded = -_largest(-fine, 3)
    # An opening loses strokes that are already thin: they are kept, so that no digit falls to pieces.
    thin = torch.maximum(eroded, fine - _largest(eroded, 3))
    amount = column(between(len(ink), -1, 1))
    pen = fine + amount.clamp(min=0) * (thick - fine) + (-amount).clamp(min=0) * (thin - fine)
    hardness = column(between(len(ink), 1, 4))
    return ((pen - 0.5) * hardness + 0.5).clamp(0, 1)


def box(ink: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centre and half the size (N, 2) of a drawing, across and down, in units of half the side."""
    seen = (ink[:, 0] > SEEN).float()
    side = ink.shape[-1]
    places = torch.arange(side, dtype=torch.float32)
    middles, halves = [], []
    for marks in (seen.amax(dim=1), seen.amax(dim=2)):  # (N, W), (N, H)
        last = (marks * places).amax(dim=1)
        first = side - (marks * (side - places)).amax(dim=1)
        middles.append((first + last + 1) / side - 1)
        halves.append(((last + 1 - first) / side).clamp(min=2 / side))
    return torch.stack(middles, dim=1), torch.stack(halves, dim=1)


def placed(ink: torch.Tensor) -> torch.Tensor:
    """Turn, slant and stretch each digit (N, 1, H, W), then scale and place it.

    Most are where the handler puts them, with the mean position of their ink at or near the middle. The
    others are anywhere in the image.
    """
    count = len(ink)
    middle, half = box(ink)
    matrix = _slanted(count)
    extent = (matrix.abs() @ half[:, :, None])[..., 0]
    alone = _left_alone(count)
    fills = torch.where(alone, between(count, *FILLS), between(count, *CENTRED_FILLS))
    scale = (fills / extent.amax(dim=1))[:, None]
    room = (1 - extent * scale).clamp(min=0)
    anywhere = room * (torch.rand(count, 2) * 2 - 1)
    nearly = CENTRED_SHIFT * (torch.rand(count, 2) * 2 - 1)
    shift = torch.where(alone[:, None], anywhere, nearly)
    # The point that is moved to `shift`: the centre of the box, which fits anywhere, or that of the ink.
    kept = torch.where(alone[:, None], middle, centre(ink))
    inverse = torch.linalg.inv(matrix * scale[:, :, None])
    return _sampled(ink, inverse, kept - (inverse @ shift[:, :, None])[..., 0])


def centre(ink: torch.Tensor) -> torch.Tensor:
    """Return the mean position (N, 2) of a drawing, across and down, in units of half the side."""
    seen = (ink[:, 0] > SEEN).float()
    places = (torch.arange(ink.shape[-1]) * 2 + 1) / ink.shape[-1] - 1
    total = seen.sum(dim=(1, 2)).clamp(min=1)
    return torch.stack([(seen.sum(dim=rows) @ places) / total for rows in (1, 2)], dim=1)


def on_paper(ink: torch.Tensor, often: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Write dark on light paper, some of it ruled or squared; return the pages and their contrasts (N,)."""
    count = len(ink)
    contrast = between(count, LEAST_CONTRAST, 1)
    paper = contrast + (1 - contrast) * torch.rand(count)
    page = column(paper) - column(contrast) * ink
    ruled = column(paper - contrast * sometimes(count, 0.6, often)).clamp(min=0)
    return torch.where(_rules(count), torch.minimum(page, ruled), page), contrast


def lit(page: torch.Tensor, often: float) -> torch.Tensor:
    """Light the pages unevenly: from one side, with a soft shadow, with folds."""
    count = len(page)
    slope = column(sometimes(count, 0.6, often)) * (_across(count) + 1) / 2
    place, width = column(between(count, -0.8, 0.8)), column(between(count, 0.02, 0.3))
    shadow = column(sometimes(count, 0.5, often)) * torch.sigmoid((_across(count) - place) / width)
    folds = F.interpolate(torch.rand(count, 1, 4, 4) - 0.5, size=page.shape[-2:], mode="bilinear")
    depth = column(sometimes(count, 0.4, often))
    return (page * (1 - slope) * (1 - shadow) * (1 + depth * folds)).clamp(0, 1)


def negated(pages: torch.Tensor) -> torch.Tensor:
    """Invert half of the pages, from dark on light to light on dark."""
    return torch.where(column(_coins(len(pages))), 1 - pages, pages)


def blurred(images: torch.Tensor, often: float) -> torch.Tensor:
    """Blur pages (N, 1, 56, 56), each by its own amount, up to a deviation of four of their pixels."""
    soft = F.pad(images, (8, 8, 8, 8), mode="replicate")
    for window in ((9, 1), (1, 9)) * 2:
        soft = F.avg_pool2d(soft, window, stride=1)
    return images + column(sometimes(len(images), 0.8, often)) * (soft - images)


def coarsened(ink: torch.Tensor) -> torch.Tensor:
    """Scale digits (N, 1, H, W) down to a few pixels, which they fill, and back, in one of the usual ways."""
    middle, half = box(ink)
    width = torch.exp(between(len(ink), *COARSE_STRETCH))[:, None]
    reach = torch.maximum(half[:, :1] * width, half[:, 1:])  # what becomes half the side
    whole = _sampled(ink, torch.diag_embed(torch.cat([reach / width, reach], dim=1)), middle)
    side = COARSE_SIDES[int(torch.randint(len(COARSE_SIDES), ()))]
    mode = ("bilinear", "bicubic", "nearest")[int(torch.randint(3, ()))]
    few = F.interpolate(whole, size=(side, side), mode="area") * column(between(len(ink), 1, MOST_GAIN))
    has_no_grey = column(torch.rand(len(few)) < BLACK_AND_WHITE)
    few = torch.where(has_no_grey, (few > few.amax(dim=(2, 3), keepdim=True) / 2).float(), few.clamp(0, 1))
    return F.interpolate(few, size=ink.shape[-2:], mode=mode).clamp(0, 1)


def compressed(images: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Lose what a JPEG file loses from images (N, 1, 28, 28).

    `steps` (N,) is how much coarser a file's steps are than those of quality 50: 10 is quality 5.
    """
    count, side = len(images), images.shape[-1]
    padded = -(-side // BLOCK) * BLOCK
    page = F.pad(images, (0, padded - side) * 2, mode="replicate") * 255 - 128
    blocks = page.view(count, -1, BLOCK, padded // BLOCK, BLOCK).transpose(2, 3).flatten(3)  # (N, 4, 4, 64)
    table = JPEG_STEPS.flatten() * column(steps)
    transform = torch.kron(_cosines(), _cosines())
    levels = torch.round(blocks @ transform.T / table) * table
    page = (levels @ transform).unflatten(3, (BLOCK, BLOCK)).transpose(2, 3)
    saved: torch.Tensor = (page.reshape(count, 1, padded, padded)[..., :side, :side] + 128) / 255
    return saved


def between(count: int, least: float, most: float) -> torch.Tensor:
    """Return `count` random numbers, uniform from `least` to `most`."""
    return torch.rand(count) * (most - least) + least


def sometimes(count: int, most: float, often: float) -> torch.Tensor:
    """Return zeros, except for a share `often` of random numbers up to `most`: no image has every fault."""
    return between(count, most * (1 - 1 / often), most).clamp(min=0)


def column(values: torch.Tensor) -> torch.Tensor:
    """Shape values (N,) to go with images (N, 1, H, W)."""
    return values.view(-1, 1, 1, 1)


def _sampled(ink: torch.Tensor, matrix: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    grid = F.affine_grid(torch.cat([matrix, shift[:, :, None]], dim=2), list(ink.shape), align_corners=False)
    return F.grid_sample(ink, grid, align_corners=False)


def _largest(ink: torch.Tensor, side: int) -> torch.Tensor:
    """Return the largest value in the square around each pixel, in a tenth of max_pool2d's time."""
    around = side // 2
    for dim, pad in ((2, (0, 0, around, around)), (3, (around, around, 0, 0))):
        padded, length = F.pad(ink, pad, mode="replicate"), ink.shape[dim]
        ink = padded.narrow(dim, 0, length)
        for start in range(1, side):
            ink = torch.maximum(ink, padded.narrow(dim, start, length))
    return ink


def _rows(*rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (N, 2, 2)


def _slanted(count: int) -> torch.Tensor:
    angle = torch.deg2rad(between(count, -WIDE_ANGLE, WIDE_ANGLE))
    cos, sin = torch.cos(angle), torch.sin(angle)
    shear = between(count, -WIDE_SHEAR, WIDE_SHEAR)
    stretch = torch.exp(between(count, -WIDE_STRETCH, WIDE_STRETCH))
    return _rows([stretch * cos, shear * cos - sin], [stretch * sin, shear * sin + cos])


def _left_alone(count: int) -> torch.Tensor:
    return torch.randint(LEFT_ALONE, (count,)) == 0


def _coins(count: int) -> torch.Tensor:
    return torch.randint(2, (count,)).bool()


def _across(count: int) -> torch.Tensor:
    """Return each pixel's position along a random direction per image, from -1 to 1: (N, 1, 56, 56)."""
    angle = column(between(count, 0, 2 * math.pi))
    line = torch.linspace(-1, 1, FINE)
    return (torch.cos(angle) * line + torch.sin(angle) * line[:, None]) / math.sqrt(2)


def _rules(count: int) -> torch.Tensor:
    """Return where sheets are ruled, at distances of an eighth to a half of the side; half are squared."""
    distance, width = between(count, 7, 28)[:, None], between(count, 1, 2.5)[:, None]
    places = torch.arange(FINE)[None]
    down, across = ((places + torch.rand(count, 1) * distance) % distance < width for _ in range(2))
    across &= _coins(count)[:, None]
    return down[:, None, :, None] | across[:, None, None, :]


def _cosines() -> torch.Tensor:
    """Return the matrix (8, 8) of JPEG's cosine transform, one frequency per row."""
    angles = (2 * torch.arange(BLOCK) + 1) * torch.arange(BLOCK)[:, None] * math.pi / (2 * BLOCK)
    matrix = torch.cos(angles) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix
