"""The marctl command: its help, its exit codes and how it prints errors."""

import errno
import os
import signal
import subprocess
import sys

import psutil
import pytest

from classifier.contract import BadContract
from marctl import cli
from marctl.archive.mar import BadArchive
from marctl.errors import UserError
from tests.conftest import MARCTL
from tests.support.waiting import PATIENCE, wait_until

LISTED = [name for name, command in cli.COMMANDS.items() if command.help]
# Modules that are slow to import and that few commands need.
HEAVY = ("numpy", "torch", "onnxruntime", "PIL", "ts", "flask", "httpx")
PROBE = """
import sys
from marctl.cli import main
status = main(sys.argv[1:])
print("imported:", *(name for name in {heavy} if name in sys.modules))
sys.exit(status)
"""


@pytest.fixture(autouse=True)
def _as_before():
    """Restore SIGTERM's handler: the command sets its own, and here it runs in this process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MARCTL, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    """--help works for each command, listed or not."""
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: marctl {name}")


def test_help_lists_all_commands_with_a_line_each(capsys):
    """Commands for internal use are not listed."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    printed = capsys.readouterr().out
    for name in LISTED:
        assert f"\n    {name} " in printed or f"\n    {name}\n" in printed
    assert "seal" not in printed


def test_help_names_the_variables_of_make(capsys):
    """Users of `make serve PORT=9080` can find the option, and vice versa."""
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Variables of make serve: RUN is --run, PUBLIC_KEY is --public-key" in printed
    assert "MAR, NAME or MODEL select the archive" in printed


def test_version_is_printed():
    """The program reads it from the installed package."""
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("marctl ")


@pytest.mark.parametrize("name", ["stop", "status", "logs", "token", "deploy"])
def test_what_looks_at_a_server_imports_little(name, tmp_path):
    """Only the given command's module is imported: these commands need neither numpy nor torch."""
    words = [name, "--run", str(tmp_path), *(["none.mar"] if name == "deploy" else [])]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE.format(heavy=HEAVY), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "imported:\n" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["verify"], "the following arguments are required: archive"),
        (["stop", "--port", "1"], "unrecognized arguments: --port 1"),
        (["export", "pickle", "x.mar"], "invalid choice: 'pickle'"),
    ],
    ids=["no-command", "no-such-command", "no-file", "no-such-option", "no-such-format"],
)
def test_wrong_usage_ends_with_2(words, sentence, capsys):
    """The usage is printed, with what was wrong."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("the port is taken; try another"), "the port is taken; try another"),
        (BadArchive("x.mar is damaged"), "x.mar is damaged"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a\x1bb"), r"a\x1bb: No such file"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (BadContract("input.size is None"), "input.size is None"),
        (
            ModuleNotFoundError("No module named 'flask'", name="flask"),
            "this needs flask, which is not installed; install it: pip install 'marctl[flask]'",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_its_user_can_mend_is_one_sentence(error, sentence, capsys):
    """An error that users can fix is printed on stderr without a traceback; the exit status is 1."""

    def program():
        raise error

    assert cli.reported(program) == 1
    assert capsys.readouterr() == ("", f"error: {sentence}\n")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), ModuleNotFoundError("x", name="x")])
def test_bug_shows_its_traceback(error):
    """An unexpected error is not reduced to a sentence that hides where it came from."""

    def program():
        raise error

    with pytest.raises(type(error)):
        cli.reported(program)


def test_ctrl_c_ends_with_130():
    """130 is what a shell reports; nothing more is printed."""

    def program():
        raise KeyboardInterrupt

    assert cli.reported(program) == 130


def living_in(group: int) -> list[psutil.Process]:
    """Return the processes of a group that are still running; zombies have ended."""
    return [one for one in psutil.process_iter(["status"]) if is_of(one.pid, group)
            and one.info["status"] != psutil.STATUS_ZOMBIE]  # fmt: skip


def is_of(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def test_sigterm_ends_with_143(tmp_path):
    """SIGTERM ends the command, whatever it is doing, and its child processes."""
    os.mkfifo(tmp_path / "pipe")
    waiting = ["sh", "-c", f"echo begun > {tmp_path / 'pipe'}; exec sleep 60"]
    command = [*MARCTL, "once", f"--out={tmp_path / 'out'}", "--", *waiting]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        with (tmp_path / "pipe").open() as pipe:
            assert pipe.readline() == "begun\n"
        running.send_signal(signal.SIGTERM)
        assert running.stderr.readline() == "stopped by SIGTERM\n"
        assert running.wait(PATIENCE) == 143
    wait_until(lambda: not living_in(running.pid))


def test_reader_that_goes_is_no_fault():
    """A closed pipe is not an error, as in `marctl --help | head -1`."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        command = [*MARCTL, "path", "x.mar"]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_that_the_tool_starts_itself_are_not_offered(capsys):
    """They are in neither the help nor the error for an unknown command, but can be run."""
    for words in (["--help"], ["nope"]):
        with pytest.raises(SystemExit):
            cli.main(words)
        said = "".join(capsys.readouterr())
        assert "verify" in said
        assert not [
            name for name, command in cli.COMMANDS.items() if not command.help and name in said.split()
        ]
        assert "to-tensorflow" not in said
    with pytest.raises(SystemExit) as ended:
        cli.main(["path", "--help"])
    assert ended.value.code == 0
