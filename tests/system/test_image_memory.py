"""Reading an image takes no more memory than is reserved for it, measured in a separate process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.load.images import EXIF_ORIENTATION, EXIF_TURNED, encoded
from bench.servers.limits import memory_limit
from classifier.image import memory as memory_left
from tests.conftest import ROOT

SIDE = 3000
# Bytes that do not grow with the image: decoders are loaded on demand, and have their own tables.
LOADED = 2**24
RAMP = np.tile((np.arange(SIDE) % 256).astype(np.uint8), (SIDE, 1))
TURNED = Image.Exif()
TURNED[EXIF_ORIENTATION] = EXIF_TURNED


def ramp(mode: str) -> Image.Image:
    """Return an image that is neither opaque nor uniform, in one of Pillow's modes."""
    grey, across = Image.fromarray(RAMP), Image.fromarray(RAMP.T.copy())
    if mode in {"LA", "RGBA"}:
        return Image.merge(mode, [grey] * (len(mode) - 1) + [across])
    if mode == "I;16":
        return Image.fromarray(RAMP.astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(RAMP.astype(np.float32))
    return grey.convert(mode)


KINDS = {
    "grey PNG": ("L", "PNG", {}),
    "RGB PNG": ("RGB", "PNG", {}),
    "RGBA PNG": ("RGBA", "PNG", {}),
    "RGBA PNG, turned": ("RGBA", "PNG", {"exif": TURNED}),
    "grey PNG with transparency": ("LA", "PNG", {}),
    "palette PNG with transparency": ("P", "PNG", {"transparency": 3}),
    "RGB PNG with one transparent colour": ("RGB", "PNG", {"transparency": (3, 3, 3)}),
    "16-bit PNG": ("I;16", "PNG", {}),
    "float TIFF": ("F", "TIFF", {}),
    "float TIFF, turned": ("F", "TIFF", {"exif": TURNED}),
    "32-bit TIFF": ("I", "TIFF", {}),
    "CMYK TIFF": ("CMYK", "TIFF", {}),
    "RGBA TIFF, compressed": ("RGBA", "TIFF", {"compression": "tiff_lzw"}),
    "RGB WebP": ("RGB", "WEBP", {"method": 0}),
    "RGBA WebP": ("RGBA", "WEBP", {"method": 0}),
    "RGBA WebP, turned": ("RGBA", "WEBP", {"method": 0, "exif": TURNED}),
    "RGBA WebP, lossless": ("RGBA", "WEBP", {"method": 0, "lossless": True}),
    "BMP": ("RGB", "BMP", {}),
    "GIF with transparency": ("P", "GIF", {"transparency": 3}),
    "JPEG": ("RGB", "JPEG", {}),
    "JPEG, turned": ("RGB", "JPEG", {"exif": TURNED}),
    "JPEG, progressive": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
    "CMYK JPEG, progressive": ("CMYK", "JPEG", {"progressive": True}),
}


@pytest.fixture(scope="module")
def cost():
    """A function that returns the peak memory of reading a file and the reserved memory, in bytes."""
    program = [sys.executable, str(ROOT / "tests" / "support" / "reading_cost.py")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def of(file: Path, color: str) -> list[int]:
            process.stdin.write(f"{color} {file}\n")
            process.stdin.flush()
            return [int(number) for number in process.stdout.readline().split()]

        yield of
        process.stdin.close()


@pytest.mark.parametrize("kind", KINDS)
def test_image_takes_no_more_than_is_held_ready(tmp_path, cost, kind):
    """For any kind of file, too small a reserve would let the kernel kill the worker."""
    mode, name, options = KINDS[kind]
    file = tmp_path / "image"
    file.write_bytes(encoded(ramp(mode), name, **options))
    for color in ("grayscale", "rgb"):
        taken, reserved = cost(file, color)
        assert taken <= reserved + LOADED, color


TELL = "from classifier.image.memory import memory_left; print(memory_left())"


@pytest.mark.root
def test_limit_of_a_group_is_seen():
    """With a real cgroup limit, as in a container, no more than the limit is left."""
    room = 2**27
    with memory_limit(room) as within:
        told = subprocess.run(
            [*within, sys.executable, "-c", TELL], capture_output=True, text=True, check=True
        )
    assert room / 2 < float(told.stdout) < room
    assert memory_left.memory_left() > room
