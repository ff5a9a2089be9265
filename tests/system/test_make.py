"""make never runs what a user writes, and never overwrites what it did not build."""

import json
import os
import shutil
import subprocess

import pytest

from marctl.archive.mar import read_manifest
from tests.conftest import DIGITS, MAKE_VARIABLES, MARCTL, ROOT, free_port, make, marctl
from tests.support.waiting import COMMAND

# Each would create a file named `ran` if make or a shell interpreted it.
PROGRAMS = [
    "$(shell touch ran)", "${shell touch ran}", "$(touch ran)", "`touch ran`", "x;touch ran", "x';touch ran'",
    'x";touch ran;"', "x|touch ran", "x&touch ran&", "x\ntouch ran", "$(eval X:=$(shell touch ran))",
]  # fmt: skip
ANYTHING = '2(1) it\'s;id>P; $x $(x) [2] "q" a,b a:b \N{SNOWMAN}.png'
# Names that begin with something that make, a shell or an option parser could interpret.
NAMES = ["-2.png", "#h.png", "%.png", "~.png", "*.png", "a=b.png", ANYTHING]


@pytest.fixture
def checkout(tmp_path, checkout_in):
    """A checkout in which nothing was built yet."""
    return checkout_in(tmp_path / "checkout")


@pytest.fixture(scope="module")
def unbuilt(tmp_path_factory, checkout_in):
    """A checkout for tests in which nothing is built."""
    return checkout_in(tmp_path_factory.mktemp("unbuilt"))


@pytest.fixture(scope="module")
def built(tmp_path_factory, checkout_in):
    """A checkout that has built its archive."""
    copy = checkout_in(tmp_path_factory.mktemp("built"))
    done = make("archive", cwd=copy)
    assert done.returncode == 0, done.stderr
    return copy


def ran(folder):
    """Return the files that a program left in a folder, and remove them for the other tests."""
    left = list(folder.rglob("ran"))
    for file in left:
        file.unlink()
    return left


@pytest.mark.parametrize(("number", "program"), [*enumerate(PROGRAMS)], ids=range(len(PROGRAMS)))
def test_no_variable_is_a_program(built, number, program):
    """Any variable, known to the Makefile or not, may contain what looks like a program."""
    values = [f"{name}={program}" for name in [*sorted(MAKE_VARIABLES), "UNKNOWN"]]
    target = ("status", "predict", "sign")[number % 3]
    subprocess.run(
        ["make", target, *values], cwd=built, capture_output=True, text=True, timeout=COMMAND, check=False
    )
    assert not ran(built)


@pytest.mark.parametrize("names", [("name", "v", "foreach", "1", "@"), ("SHELLFLAGS",), ("MAKECMDGOALS",)])
def test_variable_of_any_name_is_no_program(built, names):
    """So may a variable that the Makefile uses internally for a moment."""
    subprocess.run(
        ["make", "predict", "IMAGE=tests/images/2.png", *(f"{name}=$(shell touch ran)" for name in names)],
        cwd=built, capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert not ran(built)


INNER = ["VENV", "BIN", "MARCTL", "BENCH", "THE_MAR", "VARIABLES", "GIVEN", "SAY_GIVEN", "TORCHES"]


def test_inner_variables_are_not_for_users(built):
    """The command line cannot replace what the Makefile computes for itself."""
    done = subprocess.run(
        ["make", "predict", "IMAGE=tests/images/2.png", *(f"{name}=touch ran;" for name in INNER)],
        cwd=built, capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert (done.stdout, ran(built)) == ("2\n", [])


def test_commands_that_make_does_not_start_get_no_variables(built, tmp_path):
    """`make test` starts hundreds of commands; none of them inherits the variables."""
    extended = tmp_path / "Makefile"
    extended.write_text(f"include {built / 'Makefile'}\nseen: ; @env\n")
    done = subprocess.run(
        ["make", "-f", extended, "seen", "NAME=x"],
        cwd=built, capture_output=True, text=True, timeout=COMMAND, check=True,
    )  # fmt: skip
    assert "\nNAME=x\n" in f"\n{done.stdout}"
    assert "MARCTL_VARIABLES" not in done.stdout


def test_the_environment_is_not_a_program_either(built, monkeypatch):
    """Environment variables are not run, not even with `make -e`."""
    for name in sorted(MAKE_VARIABLES):
        monkeypatch.setenv(name, "$(shell touch ran)")
    for options in ((), ("-e",)):
        subprocess.run(
            ["make", *options, "status"], cwd=built, capture_output=True, timeout=COMMAND, check=False
        )
        assert not ran(built)


def test_make_says_how_torch_is_installed(built):
    """marctl, which finds out whether it is needed, calls this."""
    printed = make("--dry-run", "archive", cwd=built).stdout
    assert "MARCTL_TORCH='make --no-print-directory .venv/torch.installed'" in printed


def test_file_beside_an_archive_is_not_read(built, tmp_path):
    """Earlier versions read a makefile beside the archive, which anyone could write."""
    stranger = tmp_path / "x.mar"
    shutil.copy(built / "model_store" / "convnet.mar", stranger)
    for name in (".x.mar.made", "x.mar.made", "x.mar.json", ".made"):
        (tmp_path / name).write_text("X := $(shell touch ran)\nVERSION = 6.6\n")
    for target in ("verify", "predict", "archive", "help", "sign", "deploy"):
        make(target, cwd=built, MAR=str(stranger), IMAGE="tests/images/2.png")
        assert not ran(built), target
        assert not ran(tmp_path), target


@pytest.mark.parametrize("name", NAMES)
def test_images_of_any_name_are_answered(built, tmp_path, name):
    """Names that begin like an option work, from here and from another folder."""
    folder = tmp_path if name == ANYTHING else built
    (folder / name).write_bytes(DIGITS["2"])
    try:
        done = make("predict", cwd=built, IMAGE=str(folder / name) if name == ANYTHING else name)
        assert (done.stdout, done.stderr) == ("2\n", "")
    finally:
        (folder / name).unlink()


def test_archive_of_files_of_any_name(built, tmp_path):
    """Class, weights, contract, golden images and archive may have any file name."""
    folder = tmp_path / "it's $(touch ran) [1]; -x"
    golden = folder / "go\"ld'en"
    golden.mkdir(parents=True)
    for name in NAMES:
        (golden / name).write_bytes(DIGITS["2"])
    files = {"MODEL": "my model.py", "WEIGHTS": "a;b,c.pth", "CONFIG": "-c'$.yaml"}
    for source, name in zip(("convnet.py", "convnet.pth", "model-config.yaml"), files.values(), strict=True):
        shutil.copy(ROOT / "model" / source, folder / name)
    named = {key: str(folder / name) for key, name in files.items()}
    mar = folder / "-x 1.mar"
    done = make("archive", cwd=built, MAR=str(mar), NAME="odd", GOLDEN=str(golden), **named)
    assert done.returncode == 0, done.stderr
    run, port = str(folder / "r u'n"), str(free_port())
    try:
        served = make("serve", cwd=built, MAR=str(mar), RUN=run, PORT=port, GOLDEN=str(golden))
        assert served.returncode == 0, served.stderr
        [line] = [line for line in served.stdout.splitlines() if "try " in line]
        answered = subprocess.run(
            ["sh", "-c", line.split("try", 1)[1]], cwd=built, capture_output=True, text=True, check=False
        )
        assert answered.stdout == "2", line
    finally:
        make("stop", cwd=built, RUN=run)
    assert not ran(folder)
    assert not ran(built)


def foreign(path):
    """Write a user's file, which this project did not make."""
    path.write_bytes(b"somebody's archive")
    return path


@pytest.mark.parametrize(
    "target",
    ["archive", "serve", "up", "flask", "deploy", "predict", "verify", "sign", "onnx", "docker", "clean"],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "in-place"])
def test_no_command_writes_over_a_users_archive(unbuilt, tmp_path, target, named):
    """An archive that this checkout did not build is kept, whatever its name and the command."""
    path = foreign(tmp_path / "mine.mar" if named else unbuilt / "model_store" / "convnet.mar")
    where = {"MAR": str(path)} if named else {}
    make(
        target, cwd=unbuilt, IMAGE="tests/images/2.png", RUN=str(tmp_path / "run"), PORT=str(free_port()),
        KEY=str(tmp_path / "none.pem"), **where,
    )  # fmt: skip
    assert path.read_bytes() == b"somebody's archive"


def test_archive_says_what_it_does_not_write_over(checkout):
    """The error names the file and how to proceed."""
    foreign(checkout / "model_store" / "convnet.mar")
    done = make("archive", cwd=checkout)
    assert done.returncode != 0
    assert done.stderr.startswith(
        "error: model_store/convnet.mar was not made by this checkout and is left as it is; move it away, "
        "or build elsewhere: make archive MAR=model_store/other.mar\n"
    )


def test_archive_in_place_is_used_as_it_is(built, checkout):
    """A user's archive under the default name answers, with a note that it was built elsewhere."""
    mar = checkout / "model_store" / "convnet.mar"
    shutil.copy(built / "model_store" / "convnet.mar", mar)
    (checkout / "model" / "convnet.py").write_text("raise RuntimeError('must not be built')\n")
    done = make("predict", cwd=checkout, IMAGE="tests/images/2.png")
    assert done.stdout == "2\n"
    note = "note: model_store/convnet.mar was not built by this checkout; it is used as it is\n"
    assert done.stderr == note


@pytest.mark.parametrize("variable", [{"MAR": "none.mar"}, {"NAME": "none"}, {"MARS": "none.mar"}], ids=str)
def test_named_archive_that_is_missing_is_not_built(built, tmp_path, variable):
    """Only `make archive` builds an archive that is named."""
    target = "serve" if "MARS" in variable else "predict"
    done = make(target, cwd=built, IMAGE="tests/images/2.png", RUN=str(tmp_path / "run"), **variable)
    assert done.returncode != 0
    assert "none.mar; build it with: make archive" in done.stderr
    assert not list(built.rglob("none.mar"))


def test_changed_build_is_not_written_over(checkout):
    """An archive that was built here and then replaced is a user's archive, too."""
    assert make("archive", cwd=checkout).returncode == 0
    mar = checkout / "model_store" / "convnet.mar"
    foreign(mar)
    assert make("archive", cwd=checkout, VERSION="2.0").returncode != 0
    make("clean", cwd=checkout)
    assert mar.read_bytes() == b"somebody's archive"
    mar.unlink()
    mar.symlink_to(foreign(checkout / "elsewhere.mar"))
    assert make("archive", cwd=checkout).returncode != 0
    assert (checkout / "elsewhere.mar").read_bytes() == b"somebody's archive"


def test_options_of_a_build_hold_for_the_next(built):
    """`make archive` remembers an archive's model and version."""
    mar = built / "model_store" / "again.mar"
    assert make("archive", cwd=built, NAME="again", VERSION="3.1", RUNTIME="eager").returncode == 0
    assert make("archive", cwd=built, NAME="again").stdout == "model_store/again.mar is up to date\n"
    assert read_manifest(mar)["model"]["modelVersion"] == "3.1"
    assert make("archive", cwd=built, NAME="again", VERSION="3.2").returncode == 0
    assert read_manifest(mar)["model"]["modelVersion"] == "3.2"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"NAME": "a b"}, "NAME='a b' cannot be part of a URL; use letters, digits, - _ ."),
        ({"MAR": "none/x.mar"}, "there is no folder none for x.mar"),
    ],
    ids=["name", "folder"],
)
def test_bad_option_is_named(built, options, sentence):
    """Each error says what came and what to write; nothing is built."""
    done = make("archive", cwd=built, **{"NAME": "bad", **options})
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (built / "model_store" / "bad.mar").exists()


def test_clean_removes_what_was_made_and_no_more(checkout):
    """A user's files in model_store/ and exported/ are kept."""
    assert make("archive", "torchscript", cwd=checkout).returncode == 0
    mine = [foreign(checkout / "model_store" / "mine.mar"), foreign(checkout / "exported" / "mine.onnx")]
    assert make("clean", cwd=checkout).returncode == 0
    left = [path for name in ("model_store", "exported") for path in (checkout / name).glob("[!.]*")]
    assert sorted(left) == sorted(mine)


READERS = {
    "private.pem": ["sign", "--key=private.pem", "x.mar"],
    "x.mar": ["sign", "--key=private.pem", "x.mar"],
    "public.pem": ["verify", "--public-key=public.pem", "x.mar"],
    "x.mar.sig": ["serve", "--run=run", "--public-key=public.pem", "x.mar"],
    "read": ["once", "--out=out", "--reads=read", "--", "true"],
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in READERS for kind in ("pipe", "folder")][:-1], ids=str
)
def test_nobody_waits_for_what_is_no_file(tmp_path, name, kind):
    """A pipe or folder given as a key, archive, signature or export gets one sentence."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    foreign(tmp_path / "x.mar")
    (tmp_path / "x.mar.sig").write_bytes(bytes(64))
    odd = tmp_path / name
    odd.unlink(missing_ok=True)
    os.mkfifo(odd) if kind == "pipe" else odd.mkdir()
    shutil.copy(ROOT / "config.properties", tmp_path)
    done = marctl(*READERS[name], cwd=tmp_path)
    # A signature that is not a file counts as missing.
    assert (f"{name} is not a file" if name != "x.mar.sig" else f"no signature {name}") in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_export_is_made_once(built):
    """A second export does nothing; a changed one is a user's file and is kept."""
    assert make("torchscript", cwd=built).returncode == 0
    traced = built / "exported" / "convnet.traced.pt"
    before = traced.stat().st_mtime_ns
    assert make("torchscript", cwd=built).returncode == 0
    assert traced.stat().st_mtime_ns == before
    foreign(traced)
    done = make("torchscript", cwd=built)
    assert "exported/convnet.traced.pt was not made by this checkout" in done.stderr
    assert traced.read_bytes() == b"somebody's archive"


def test_stopped_build_leaves_nothing(checkout):
    """SIGTERM during a build leaves no partial archive and no temporary folder."""
    with subprocess.Popen(
        [*MARCTL, "archive"], cwd=checkout,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as build:  # fmt: skip
        while not list((checkout / "model_store").glob(".build-*")):
            assert build.poll() is None
        build.terminate()
        assert build.wait(COMMAND) != 0
    assert [path.name for path in (checkout / "model_store").iterdir()] == [".gitignore"]


def test_built_archive_is_used_where_nothing_can_be_written(checkout):
    """Without writable records an archive still answers, and a build says what it cannot write."""
    assert make("archive", cwd=checkout).returncode == 0
    shutil.rmtree(checkout / ".made")
    (checkout / ".made").write_text("no folder")  # not read-only: root may write to every folder
    done = make("predict", cwd=checkout, IMAGE="tests/images/2.png")
    note = "note: model_store/convnet.mar is out of date but is used as it is: it cannot be built here ("
    assert (done.stdout, done.stderr) == ("2\n", f"{note}.made: File exists)\n")
    done = make("archive", cwd=checkout)
    assert done.stderr.startswith("error: .made: File exists; nothing was built\n")


@pytest.mark.parametrize("target", ["serve", "up", "stop", "status", "logs", "token", "doctor", "deploy"])
def test_no_command_touches_a_users_folder(built, tmp_path, target):
    """If RUN names a folder with other files, it is refused or left unchanged."""
    names = [
        "config.properties", "logs/mine.txt", "logs-before/m.txt", "served/mine.mar", "door/x.conf", "lock",
        "server.json", "keeper.json", "java/mine.txt", ".run-folder",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        foreign(tmp_path / name)
    done = make(target, cwd=built, RUN=str(tmp_path), PORT=str(free_port()), DOOR=str(free_port()))
    assert "Traceback" not in done.stderr
    assert all((tmp_path / name).read_bytes() == b"somebody's archive" for name in names)
    if target in ("serve", "up"):
        assert done.stderr.startswith(f"error: {tmp_path} holds files that no server put there; set RUN")


@pytest.mark.parametrize("target", ["serve", "up", "stop", "status"])
def test_files_beside_an_archive_are_not_imported(built, tmp_path, target):
    """Python and Java search the folder they start in, and RUN may be an archive's folder."""
    mar = tmp_path / "x.mar"
    shutil.copy(built / "model_store" / "convnet.mar", mar)
    for name in ("psutil.py", "ts.py", "sitecustomize.py", "java.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    ports = {"PORT": str(free_port()), "DOOR": str(free_port())}
    make(target, cwd=built, MAR=str(mar), RUN=str(tmp_path), **ports)
    assert not ran(tmp_path)


def test_modules_in_a_servers_own_folder_are_not_imported(built, tmp_path):
    """Files put into a server's folder later are not run by its next start either."""
    run = {"RUN": str(tmp_path / "run"), "PORT": str(free_port())}
    try:
        assert make("serve", cwd=built, **run).returncode == 0
        make("stop", cwd=built, **run)
        for folder in (tmp_path / "run", tmp_path / "run" / "java"):
            for name in ("psutil.py", "ts.py", "yaml.py"):
                (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        assert make("serve", cwd=built, **run).returncode == 0
        assert not ran(tmp_path)
    finally:
        make("stop", cwd=built, **run)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A private key and its public key."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "my private.pem", folder / "my public.pem"
    make_key = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", private]
    subprocess.run(make_key, check=True, capture_output=True)
    take_half = ["openssl", "pkey", "-in", private, "-pubout", "-out", public]
    subprocess.run(take_half, check=True, capture_output=True)
    return private, public


def test_wanted_signature_is_checked_or_refused(built, tmp_path, keys):
    """No command that opens an archive ignores PUBLIC_KEY."""
    private, public = map(str, keys)
    mar = tmp_path / "x.mar"
    shutil.copy(built / "model_store" / "convnet.mar", mar)
    wants = {"MAR": str(mar), "PUBLIC_KEY": public, "RUN": str(tmp_path / "run"), "PORT": str(free_port())}
    images = {"IMAGES": "tests/images", "OUT": str(tmp_path / "answers.csv")}
    for target, more in {
        "predict": {"IMAGE": "tests/images/2.png"},
        "verify": {},
        "serve": {},
        "up": {},
        "flask": {},
    }.items():
        assert "has no signature" in make(target, cwd=built, **wants, **more).stderr, target
    assert "has no signature" in make("predict", cwd=built, **wants, **images).stderr
    for target in ("onnx", "docker", "parity", "bench", "soak"):
        done = make(target, cwd=built, **wants)
        assert f"make {target} checks no signature; leave out PUBLIC_KEY" in done.stderr
    assert make("sign", cwd=built, MAR=str(mar), KEY=private).returncode == 0
    assert make("predict", cwd=built, **wants, IMAGE="tests/images/2.png").stdout == "2\n"
    assert make("predict", cwd=built, **wants, **images).returncode == 0


def test_signature_is_written_over_signatures_alone(built, tmp_path, keys):
    """A link or another file of that name is kept; an earlier signature is replaced."""
    private, _ = map(str, keys)
    mar, signature = tmp_path / "x.mar", tmp_path / "x.mar.sig"
    shutil.copy(built / "model_store" / "convnet.mar", mar)
    foreign(signature)
    refused = make("sign", cwd=built, MAR=str(mar), KEY=private)
    assert f"error: {signature} exists but is not a signature; move it away" in refused.stderr
    signature.unlink()
    signature.symlink_to(foreign(tmp_path / "keys"))
    assert make("sign", cwd=built, MAR=str(mar), KEY=private).returncode != 0
    assert (tmp_path / "keys").read_bytes() == b"somebody's archive"
    signature.unlink()
    for _ in range(2):
        assert make("sign", cwd=built, MAR=str(mar), KEY=private).returncode == 0
    assert signature.stat().st_size == 64


def test_endless_signature_is_not_copied(built, tmp_path):
    """A file beside an archive may be a device."""
    mar = tmp_path / "x.mar"
    shutil.copy(built / "model_store" / "convnet.mar", mar)
    (tmp_path / "x.mar.sig").symlink_to("/dev/zero")
    assert make("verify", cwd=built, MAR=str(mar)).returncode == 0
    assert make("predict", cwd=built, MAR=str(mar), IMAGE="tests/images/2.png").stdout == "2\n"


def test_file_that_comes_while_it_is_built_is_not_written_over(checkout):
    """A user's file that appears during a build is kept."""
    mar = checkout / "model_store" / "late.mar"
    with subprocess.Popen(
        ["make", "archive", "MAR=model_store/late.mar"], cwd=checkout, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as build:  # fmt: skip
        while not list((checkout / "model_store").glob(".build-*")):
            assert build.poll() is None
        foreign(mar)
        _, said = build.communicate(timeout=COMMAND)
    assert "was not made by this checkout and is left as it is" in said
    assert mar.read_bytes() == b"somebody's archive"


@pytest.mark.parametrize("state", ["server.json", "keeper.json"])
def test_state_of_a_stranger_deletes_nothing(built, tmp_path, state):
    """A state file cannot make a folder look temporary: only the folder's own mark can."""
    mine = tmp_path / ("torchserve-mine" if state == "server.json" else "front-door-mine")
    mine.mkdir()
    foreign(mine / "thesis")
    run = tmp_path / "run"
    run.mkdir()
    told = {"pid": 999999, "scratch": str(mine)}
    if state == "server.json":
        told |= {"started": 1, "boot": "x", "inference": "x", "management": "x", "keys": None, "served": []}
    else:
        told["address"] = "http://127.0.0.1:1"
    (run / state).write_text(json.dumps(told))
    make("stop", cwd=built, RUN=str(run))
    assert (mine / "thesis").exists()
