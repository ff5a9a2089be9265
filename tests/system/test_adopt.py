"""From another project's .mar to a model folder: what is reported is right, and nothing in it is run."""

import io
import json
import os
import pickle
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from classifier.contract import Contract
from marctl.adopt.adopt import adopt
from marctl.errors import UserError
from marctl.sandbox import sandbox
from tests.conftest import DIGITS, IMAGES, ROOT, make, marctl
from tests.support.archiver_mars import (
    ARTICLE,
    EXPECTED,
    GREY,
    MODEL,
    NORMALIZE,
    config_of,
    handler,
    manifest,
    packed,
)

BIN = Path(sys.executable).parent


def archived(folder: Path, handler: str = ARTICLE, name: str = "convnet", **options: str) -> Path:
    """Return the archive that torch-model-archiver makes of ConvNet and a handler (source or name)."""
    folder.mkdir(exist_ok=True)
    (folder / "handler.py").write_text(handler)
    given = {
        "model-name": name,
        "version": "1.0",
        "model-file": str(ROOT / "model" / "convnet.py"),
        "serialized-file": str(ROOT / "model" / "convnet.pth"),
        "export-path": str(folder),
        "handler": handler if handler.isidentifier() else str(folder / "handler.py"),
    } | {key.replace("_", "-"): value for key, value in options.items()}
    words = [word for key, value in given.items() if value for word in (f"--{key}", value)]
    subprocess.run(
        [BIN / "torch-model-archiver", *words], check=True, env=os.environ | {"TMPDIR": str(folder)}
    )
    return folder / f"{name}.mar"


def test_archive_of_the_article_is_adopted_and_answers(checkout_in, tmp_path):
    """Archived by the archiver, adopted, and built by the printed command, it reads all digits correctly."""
    copy = checkout_in(tmp_path / "copy")
    mar = archived(tmp_path / "old")
    done = marctl("adopt", mar, "my models/one", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert "none of the archive's code was run" in done.stdout
    assert not (tmp_path / "copy" / "model_store" / "convnet.mar").exists()
    command = shlex.split(done.stdout.splitlines()[-1])
    assert command[:2] == ["make", "archive"]
    assert "has no images" in make(*command[1:], cwd=copy).stderr
    for digit in DIGITS:
        (copy / "my models" / "one" / "golden" / f"{digit}.png").write_bytes(
            (IMAGES / f"{digit}.png").read_bytes()
        )
    built = make(*command[1:], cwd=copy)
    assert built.returncode == 0, built.stderr
    for digit in DIGITS:
        answered = make(
            "predict", cwd=copy, MAR="model_store/convnet.mar", IMAGE=str(IMAGES / f"{digit}.png")
        )
        assert answered.stdout.strip() == digit, answered.stderr
    assert config_of(copy / "my models" / "one")["input"] == EXPECTED


def test_files_are_the_archives_own(tmp_path):
    """Class and weights are copied byte for byte, with an empty folder for images and nothing else."""
    mar = archived(tmp_path / "old")
    before = set(tmp_path.rglob("*"))
    written, found = adopt(mar, tmp_path / "mine", "digits")
    new = {
        str(path.relative_to(tmp_path / "mine"))
        for path in set(tmp_path.rglob("*")) - before - {tmp_path / "mine"}
    }
    assert new == {"digits.py", "digits.pth", "index_to_name.json", "model-config.yaml", "golden"}
    assert {name.rstrip("/") for name in written} == new
    assert (tmp_path / "mine" / "digits.py").read_text() == MODEL
    assert (tmp_path / "mine" / "digits.pth").read_bytes() == (ROOT / "model" / "convnet.pth").read_bytes()
    assert json.loads((tmp_path / "mine" / "index_to_name.json").read_text()) == {
        str(i): str(i) for i in range(10)
    }
    assert found.untold == []
    assert found.model.kind == "log-probabilities"


def test_doubted_numbers_are_comments_and_the_build_asks_for_them(tmp_path, checkout_in):
    """In doubt, the whole input becomes comments: no archive is built on a guess."""
    source = handler(
        f"image_processing = transforms.Compose([{GREY}, {NORMALIZE}])",
        preprocess="self.image_processing(ImageOps.invert(image))",
    )
    sentence = "the handler also does ImageOps.invert(image)"
    mar = packed(tmp_path / "old.mar", **{"handler.py": source.encode()})
    copy = checkout_in(tmp_path / "copy")
    _, found = adopt(mar, copy / "mine")
    text = (copy / "mine" / "model-config.yaml").read_text()
    assert f"  # {sentence}" in text
    assert "  # size: [28, 28]\n" in text
    assert config_of(copy / "mine")["input"] is None
    assert any(sentence in line for line in found.untold)
    built = make("archive", cwd=copy, MODEL="mine")
    assert "there is no section 'input'; it needs color, size, mean and std" in built.stderr
    assert not (copy / "model_store" / "m.mar").exists()


def test_settings_of_torchserve_are_carried_over(tmp_path):
    """Settings with the same meaning here are kept; each of the others is reported on its own line."""
    settings = {
        "minWorkers": 3,
        "maxWorkers": 2,
        "batchSize": 16,
        "maxBatchDelay": 0,
        "responseTimeout": 60,
        "deviceType": "gpu",
        "handler": {"x": 1},
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(settings))
    mar = archived(tmp_path / "old", config_file=str(tmp_path / "old.yaml"), version="2.1")
    _, found = adopt(mar, tmp_path / "mine")
    config = config_of(tmp_path / "mine")
    expected = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 16, "maxBatchDelay": 1, "responseTimeout": 60}
    assert {key: config[key] for key in config if key not in ("input", "labels")} == expected
    assert found.version == "2.1"
    assert [line for line in found.untold if line.startswith("deviceType in the old old.yaml is a setting")]
    assert [
        line for line in found.untold if line.startswith("handler in the old old.yaml has no meaning here")
    ]
    assert Contract.from_config({**config, "labels": list("0123456789")}).shape == (1, 28, 28)


class _Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_nothing_of_an_archive_is_run(tmp_path, monkeypatch):
    """Its handler, class and weights are not run, nor a module with the name of an imported one."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    ran = tmp_path / "ran"
    line = f"import os; os.mkdir({str(ran)!r})\n"
    change = {"handler.py": line + ARTICLE, "model.py": line + MODEL, "contract.py": line, "torch.py": line}
    mar = packed(
        tmp_path / "old.mar",
        **{name: text.encode() for name, text in change.items()},
        **{"model.pth": pickle.dumps(_Touch(ran))},
    )
    done = marctl("adopt", mar, tmp_path / "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not ran.exists()
    assert (
        "WEIGHTS: model.pth is not a state_dict: it is damaged, or contains Python objects whose code"
        in done.stdout
    )
    assert "save model.state_dict()" in done.stdout
    assert not (tmp_path / "mine" / "m.pth").exists()
    assert "not carried over: contract.py, torch.py" in done.stdout


def inflated() -> bytes:
    """Return a .pth whose records are gigabytes of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        with bomb.open("a/data/0", "w") as record:
            for _ in range(200):
                record.write(bytes(2**20))
        bomb.writestr("a/data.pkl", pickle.dumps({}, 2))
    return file.getvalue()


def growing(levels: int) -> str:
    """Return YAML whose merged keys grow ninefold with each line."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


def test_weights_that_are_a_bomb_are_not_read(tmp_path):
    """Weights that take gigabytes of memory are not read; everything else is adopted."""
    _, found = adopt(packed(tmp_path / "old.mar", **{"model.pth": inflated()}), tmp_path / "mine")
    assert any("model.pth is not a state_dict: it unpacks to 209,7" in line for line in found.untold)


def test_what_never_ends_is_ended(tmp_path, monkeypatch):
    """A few lines of YAML that expand to gigabytes get one sentence, and no folder is left behind."""
    monkeypatch.setattr(sandbox, "SECONDS", 10.0)
    monkeypatch.setattr(sandbox, "BYTES_A_SECOND", 2**40)
    config = {"MAR-INF/MANIFEST.json": manifest(configFile="c.yaml"), "c.yaml": growing(12).encode()}
    mar = packed(tmp_path / "old.mar", **config)
    with pytest.raises(UserError) as error:
        adopt(mar, tmp_path / "mine")
    assert "old.mar could not be examined within the limits of time and memory: it" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mine").exists()


def test_what_does_not_print_stays_on_its_line(tmp_path):
    """Text from an archive cannot add a line to the contract or control a terminal."""
    source = handler("image_processing = Compose([Strange('a\\x1b[2J'), Lambda('''x\ninput: y\n''')])")
    change = {"handler.py": source.encode(), "a\x1b[2Jb.txt": b""}
    mar = packed(tmp_path / "old.mar", **change)
    done = marctl("adopt", mar, tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + (tmp_path / "mine" / "model-config.yaml").read_text()
    assert config_of(tmp_path / "mine")["input"] is None
