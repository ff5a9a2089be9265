"""exported/classify loads exported models, and says what is wrong with other files."""

import json
import os
import subprocess
import warnings

import pytest
import torch

from bench.load.images import encoded, enlarged, opened
from tests.conftest import DIGITS, ROOT
from tests.support.cpp_program import Means, exported, rgb

pytestmark = pytest.mark.cpp

IMAGE = str(ROOT / "tests" / "images" / "2.png")


@pytest.mark.parametrize("digit", list(DIGITS))
def test_one_image_gets_the_bare_label(digit, program, scripted):
    """It prints the label and a line feed, nothing else."""
    done = program.start(str(scripted), str(ROOT / "tests" / "images" / f"{digit}.png"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{digit}\n", "")


def test_file_named_like_an_option_is_read(program, scripted):
    """After --, every argument is a file."""
    (program.folder / "--pixels").write_bytes(DIGITS["2"])
    assert program.start(str(scripted), "--", "--pixels").stdout == "2\n"


def test_missing_file_and_folder_are_named(program, scripted):
    """A file that cannot be opened gets the system's reason; the others are answered."""
    done = program.start(str(scripted), "none.png", ".", IMAGE)
    assert done.returncode == 1
    assert done.stdout == f"{IMAGE}\t2\n"
    assert done.stderr.splitlines() == [
        "error: none.png: cannot read it: No such file or directory",
        "error: .: cannot read it: Is a directory",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give an exported model and at least one image"),
        (["model.pt"], "give an exported model and at least one image"),
        (["--colour", "a", "b"], "unknown option --colour"),
        (["a", "b", "--time"], "--time is ''; give a number of repeats from 1 to 1000000"),
        (["--time", "0", "a", "b"], "--time is '0'; give a number"),
    ],
    ids=["nothing", "no-image", "unknown", "time-of-nothing", "time-0"],
)
def test_wrong_call_gets_a_sentence_and_the_usage(arguments, sentence, program):
    """Exit status 2, with what is wrong and how to call it."""
    done = program.start(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {sentence}")
    assert "usage: classify" in done.stderr


@pytest.mark.parametrize(
    ("contract", "sentence"),
    [
        ("", "it has no contract; export it again"),
        ("{", "its contract cannot be read ("),
        (rgb(None, mean=...), "its contract cannot be read ("),
        (rgb(None, std=[1.0]), "its contract cannot be read ("),
        (rgb(None, color="cmyk"), "its contract's color is 'cmyk'; use grayscale or rgb"),
        (rgb(100), "its contract has an impossible size"),
        (rgb(100, size=[90, 101]), "its contract has an impossible size"),
        (rgb(None, size=[0, 5]), "its contract has an impossible size"),
        (rgb(None, labels=["a"]), "it does not return 1 values for each image"),
    ],
    ids=[
        "none", "no-json", "no-mean", "std-of-one", "color", "resize-too-low", "resize-too-narrow",
        "no-pixels", "labels",
    ],
)  # fmt: skip
def test_wrong_contract_is_refused(contract, sentence, program):
    """A file with an unsuitable contract is refused in a sentence that names the file."""
    model = exported(program.folder / "model.pt", contract)
    done = program.start(str(model), IMAGE)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {model}: {sentence}")


@pytest.mark.parametrize("name", ["text.pt", "text.pt2", "none.pt"])
def test_what_is_no_exported_model_is_refused(name, program):
    """A text file or a missing one gets one line and no backtrace."""
    if name != "none.pt":
        (program.folder / name).write_text("hello")
    done = program.start(name, IMAGE)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {name}: {'cannot read it' if name == 'none.pt' else 'it is neither '}")


def test_package_of_aotinductor_is_answered(program):
    """A .pt2 with its contract in the metadata matches TorchScript, in batches of any size."""
    contract = rgb(None, size=[8, 8])  # sums of 64 values: at 224 x 224 their order alone costs 5e-5
    package = program.folder / "model.pt2"
    batch = torch.export.Dim("batch", min=1, max=64)
    model = torch.export.export(Means(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own warnings
        torch._inductor.aoti_compile_and_package(
            model,
            package_path=str(package),
            inductor_configs={"aot_inductor.metadata": {"contract": contract}},
        )
    files = {digit: encoded(enlarged(opened(body)), "PNG") for digit, body in DIGITS.items()}
    script = program(exported(program.folder / "model.pt", contract), files, "--outputs")
    packed = program(package, files, "--outputs")
    assert (packed.errors, packed.status) == ([], 0)
    for name, row in script.rows.items():
        values = [torch.tensor([float(v) for v in one[1].split()]) for one in (packed.rows[name], row)]
        torch.testing.assert_close(*values, rtol=0, atol=1e-5)  # float32 sums in another order


def test_times_are_told_as_json(program, scripted):
    """It reports times for loading, reading and answering, the last at two batch sizes, on one thread."""
    times = json.loads(program.start("--time", "3", str(scripted), IMAGE).stdout)
    assert (times["threads"], times["repeats"]) == (1, 3)
    seconds = [times["load_seconds"], times["read_seconds"], *times["seconds_per_image"].values()]
    assert list(times["seconds_per_image"]) == ["1", "32"]
    assert all(second > 0 for second in seconds)


def test_missing_compiler_is_named(program):
    """Without g++ the build says what to install."""
    for name in ("bash", "dirname"):
        (program.folder / name).symlink_to(f"/usr/bin/{name}")
    build = [str(ROOT / "cpp" / "build.sh"), "python", "classify"]
    env = os.environ | {"PATH": str(program.folder)}
    done = subprocess.run(["/usr/bin/bash", *build], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the C++ program needs g++; install it: apt-get install g++\n"
