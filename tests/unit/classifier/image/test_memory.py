"""An image is not begun where there is not the memory to read it."""

import math
import re

import pytest
from PIL import Image

from bench.load.images import encoded
from classifier.errors import BadImage
from classifier.image import limits as image_cost
from classifier.image import memory as memory_left
from classifier.image.decode import read_pixels
from classifier.image.limits import RESERVE
from tests.conftest import DIGITS


@pytest.fixture
def left(monkeypatch):
    """A function that says how many bytes of memory there are."""
    return lambda number: monkeypatch.setattr(image_cost, "memory_left", lambda: number)


def blank(mode: str, kind: str, pixels: int, **options) -> bytes:
    """Return an image of about so many pixels, and not more."""
    side = math.isqrt(pixels)
    return encoded(Image.new(mode, (side, side)), kind, **options)


ROADS = {
    "kornia": ("RGB", "PNG", {}),
    "Pillow": ("P", "PNG", {}),
    "WebP": ("RGB", "WEBP", {}),
    "JPEG": ("L", "JPEG", {"progressive": True}),
}


@pytest.mark.parametrize("road", ROADS)
def test_image_beyond_the_memory_is_refused(contract, left, road):
    """Whoever decodes it; with a size that is not."""
    mode, kind, options = ROADS[road]
    left(RESERVE + 30 * 10**6)
    with pytest.raises(BadImage) as refused:
        read_pixels(blank(mode, kind, 3000**2, **options), contract)
    told = re.fullmatch(
        r"the image is too large \(3000 x 3000 pixels\): reading it may take \d+ MB of memory, and 30 are "
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
    monkeypatch.setattr(image_cost, "memory_left", lambda: looked.append(True) or math.inf)
    read_pixels(blank("RGB", "JPEG", 3500**2), contract)
    assert not looked
    read_pixels(blank("RGB", "PNG", 3500**2), contract)
    assert looked


# A stand-in for the kernel's files: a machine has one version of control groups, and these are of both.
TREES = {
    "version 2": ("0::/a/b\n", "a/b", "memory.max", "memory.current", "inactive_file"),
    "version 2, in a container": ("0::/\n", "", "memory.max", "memory.current", "inactive_file"),
    "version 1": (
        "4:cpu,memory:/a/b\n0::/\n",
        "memory/a/b",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
    "version 1, in a container": (
        "4:memory:/outside/b\n",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
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
