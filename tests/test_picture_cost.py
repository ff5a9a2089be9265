"""A picture is not begun where there is not the memory to read it."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import memory_left
import picture_cost
from conftest import DIGITS, ROOT
from images import read_pixels
from memory_limit import memory_limit
from picture_cost import RESERVE
from pictures import EXIF_ORIENTATION, EXIF_TURNED, encoded
from refusal import BadImage

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can limit the memory of processes")
ENVIRON = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in ("handler", "tests"))}
SIDE = 3000
# Bytes that do not grow with the picture: decoders are loaded when needed, and have tables of their own.
LOADED = 2**24
RAMP = np.tile((np.arange(SIDE) % 256).astype(np.uint8), (SIDE, 1))
TURNED = Image.Exif()
TURNED[EXIF_ORIENTATION] = EXIF_TURNED


def ramp(mode: str) -> Image.Image:
    """Return a picture that is neither opaque nor plain, in a mode of Pillow's."""
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


@pytest.mark.parametrize("color", ["grayscale", "rgb"])
@pytest.mark.parametrize("kind", KINDS)
def test_picture_takes_no_more_than_is_held_ready(tmp_path, kind, color):
    """Of each kind of file: else the kernel would end a worker that thought it had enough."""
    mode, name, options = KINDS[kind]
    file = tmp_path / "picture"
    file.write_bytes(encoded(ramp(mode), name, **options))
    command = [sys.executable, str(ROOT / "tests" / "reading_cost.py"), str(file), color]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, check=True)
    taken, held = map(int, done.stdout.split())
    assert taken <= held + LOADED


@pytest.fixture
def left(monkeypatch):
    """A function that says how many bytes of memory there are."""
    return lambda number: monkeypatch.setattr(picture_cost, "memory_left", lambda: number)


def blank(mode: str, kind: str, pixels: int, **options) -> bytes:
    """Return a picture of about so many pixels, and not more."""
    side = math.isqrt(pixels)
    return encoded(Image.new(mode, (side, side)), kind, **options)


ROADS = {
    "kornia": ("RGB", "PNG", {}), "Pillow": ("P", "PNG", {}), "WebP": ("RGB", "WEBP", {}),
    "JPEG": ("L", "JPEG", {"progressive": True}),
}


@pytest.mark.parametrize("road", ROADS)
def test_picture_beyond_the_memory_is_refused(contract, left, road):
    """Whoever decodes it; with a size that is not."""
    mode, kind, options = ROADS[road]
    left(RESERVE + 30 * 10**6)
    with pytest.raises(BadImage) as refused:
        read_pixels(blank(mode, kind, 3000**2, **options), contract)
    told = re.fullmatch(
        r"the picture is too large \(3000 x 3000 pixels\): reading it may take \d+ MB of memory, and 30 are "
        r"left; send at most ([\d,]+) pixels, or give the server more memory",
        str(refused.value),
    )
    smaller = blank(mode, kind, int(told[1].replace(",", "")), **options)
    assert read_pixels(smaller, contract).shape == (28, 28, 1)


def test_little_is_not_asked_for(contract, left):
    """What takes nothing worth counting is read, whatever is left; what is larger is told of that size."""
    left(0)
    assert read_pixels(DIGITS["2"], contract).any()
    with pytest.raises(BadImage, match="and 0 are left") as refused:
        read_pixels(blank("RGB", "PNG", 3000**2), contract)
    room = int(re.search(r"at most ([\d,]+) pixels", str(refused.value))[1].replace(",", ""))
    assert read_pixels(blank("RGB", "PNG", room), contract).shape == (28, 28, 1)
    with pytest.raises(BadImage, match="and 0 are left"):
        read_pixels(blank("RGB", "PNG", room + 5000), contract)


def test_usual_photo_asks_for_little(contract, monkeypatch):
    """Decoded at an eighth, one of 12 megapixels costs no look at what is left."""
    looked = []
    monkeypatch.setattr(picture_cost, "memory_left", lambda: looked.append(True) or math.inf)
    read_pixels(blank("RGB", "JPEG", 3500**2), contract)
    assert not looked
    read_pixels(blank("RGB", "PNG", 3500**2), contract)
    assert looked


TELL = "import memory_left; print(memory_left.memory_left())"


@needs_root
def test_limit_of_a_group_is_seen():
    """A real one, as a container has it: no more than its limit is left, and less by what was taken."""
    room = 2**27
    with memory_limit(room) as within:
        told = subprocess.run(
            [*within, sys.executable, "-c", TELL], env=ENVIRON, capture_output=True, text=True, check=True
        )
    assert room / 2 < float(told.stdout) < room
    assert memory_left.memory_left() > room


# A stand-in for the kernel's files: a machine has one version of control groups, and these are of both.
TREES = {
    "version 2": ("0::/a/b\n", "a/b", "memory.max", "memory.current", "inactive_file"),
    "version 2, in a container": ("0::/\n", "", "memory.max", "memory.current", "inactive_file"),
    "version 1": (
        "4:cpu,memory:/a/b\n0::/\n", "memory/a/b", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
    "version 1, in a container": (
        "4:memory:/outside/b\n", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A function that writes the kernel's files: what has how much, of which groups a process is."""
    for name, path in {"GROUPS": "groups", "OWN": "own", "MACHINE": "machine"}.items():
        monkeypatch.setattr(memory_left, name, tmp_path / path)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


@pytest.mark.parametrize("version", TREES)
def test_every_version_of_groups_is_read(kernel, version):
    """The limit less what is taken, files that were only read not counted."""
    own, group, limit, taken, returned = TREES[version]
    files = {f"groups/{group}/{limit}": "1000\n", f"groups/{group}/{taken}": "700\n"}
    kernel(own=own, machine="MemAvailable: 50 kB\n", **files)
    assert memory_left.memory_left() == 300
    kernel(**{f"groups/{group}/memory.stat": f"{returned} 90\n"})
    assert memory_left.memory_left() == 390


def test_narrowest_limit_counts(kernel):
    """Of a group, of the one around it, of the machine."""
    kernel(own="0::/a/b\n", machine="MemTotal: 9 kB\nMemAvailable: 5 kB\n")
    assert memory_left.memory_left() == 5 * 1024
    kernel(**{"groups/a/b/memory.max": "max\n", "groups/a/b/memory.current": "700\n"})
    assert memory_left.memory_left() == 5 * 1024
    kernel(**{"groups/a/memory.max": "3000\n", "groups/a/memory.current": "1000\n"})
    assert memory_left.memory_left() == 2000


def test_system_that_does_not_tell_sets_no_limit(kernel):
    """Elsewhere than on Linux there are no such files."""
    kernel()
    assert memory_left.memory_left() == math.inf
