"""An image is refused before decoding if there is not enough memory to read it."""

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
    """A function that sets how many bytes of memory are left."""
    return lambda number: monkeypatch.setattr(image_cost, "memory_left", lambda: number)


def blank(mode: str, kind: str, pixels: int, **options) -> bytes:
    """Return an image of nearly this many pixels, and no more."""
    side = math.isqrt(pixels)
    return encoded(Image.new(mode, (side, side)), kind, **options)


DECODERS = {
    "kornia": ("RGB", "PNG", {}),
    "Pillow": ("P", "PNG", {}),
    "WebP": ("RGB", "WEBP", {}),
    "JPEG": ("L", "JPEG", {"progressive": True}),
}


@pytest.mark.parametrize("decoder", DECODERS)
def test_image_beyond_the_memory_is_refused(contract, left, decoder):
    """Every decoder refuses such an image; the error gives a size that is accepted."""
    mode, kind, options = DECODERS[decoder]
    left(RESERVE + 30 * 10**6)
    with pytest.raises(BadImage) as refused:
        read_pixels(blank(mode, kind, 3000**2, **options), contract)
    match = re.fullmatch(
        r"the image is too large \(3000 x 3000 pixels\): reading it may take \d+ MB of memory, but only 30 "
        r"MB are free; send at most ([\d,]+) pixels, or give the server more memory",
        str(refused.value),
    )
    smaller = blank(mode, kind, int(match[1].replace(",", "")), **options)
    assert read_pixels(smaller, contract).shape == (28, 28, 1)


def test_little_is_not_asked_for(contract, left):
    """A small image is read however little memory is left; the error for a larger one gives that size."""
    left(0)
    assert read_pixels(DIGITS["2"], contract).any()
    with pytest.raises(BadImage, match="but only 0 MB are free") as refused:
        read_pixels(blank("RGB", "PNG", 3000**2), contract)
    room = int(re.search(r"at most ([\d,]+) pixels", str(refused.value))[1].replace(",", ""))
    assert read_pixels(blank("RGB", "PNG", room), contract).shape == (28, 28, 1)
    with pytest.raises(BadImage, match="but only 0 MB are free"):
        read_pixels(blank("RGB", "PNG", room + 5000), contract)


def test_usual_photo_asks_for_little(contract, monkeypatch):
    """A 12-megapixel JPEG is decoded at an eighth, so the memory check is skipped."""
    looked = []
    monkeypatch.setattr(image_cost, "memory_left", lambda: looked.append(True) or math.inf)
    read_pixels(blank("RGB", "JPEG", 3500**2), contract)
    assert not looked
    read_pixels(blank("RGB", "PNG", 3500**2), contract)
    assert looked


# Stand-ins for the kernel's files: a machine has one version of control groups; these cover both.
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
    """A function that writes the kernel's files: limits, usage, and the groups of a process."""
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
    """The memory left is the limit less the usage, not counting cached files."""
    own, group, limit, taken, returned = TREES[version]
    files = {f"groups/{group}/{limit}": "1000\n", f"groups/{group}/{taken}": "700\n"}
    kernel(own=own, machine="MemAvailable: 50 kB\n", **files)
    assert memory_left.memory_left() == 300
    kernel(**{f"groups/{group}/memory.stat": f"{returned} 90\n"})
    assert memory_left.memory_left() == 390


def test_narrowest_limit_counts(kernel):
    """The limits are those of a group, of its parent and of the machine."""
    kernel(own="0::/a/b\n", machine="MemTotal: 9 kB\nMemAvailable: 5 kB\n")
    assert memory_left.memory_left() == 5 * 1024
    kernel(**{"groups/a/b/memory.max": "max\n", "groups/a/b/memory.current": "700\n"})
    assert memory_left.memory_left() == 5 * 1024
    kernel(**{"groups/a/memory.max": "3000\n", "groups/a/memory.current": "1000\n"})
    assert memory_left.memory_left() == 2000


def test_system_that_does_not_tell_sets_no_limit(kernel):
    """Systems other than Linux have no such files."""
    kernel()
    assert memory_left.memory_left() == math.inf
