"""The commit that an archive names: what git reports for the model's files, or why it cannot."""

import subprocess

import pytest

from marctl.build.commit import UNKNOWN, source_of

# Makes git treat every repository as another user's.
DISTRUST = ("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def git(folder, *arguments):
    command = ["git", *IDENTITY, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def model(tmp_path):
    """The weights of a model in its own repository with one commit, of Unix time 1,000,000,000."""
    folder = tmp_path / "its own"
    folder.mkdir()
    weights = folder / "weights.pth"
    weights.write_bytes(b"1")
    git(folder, "init", "-q", ".")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "weights", "--date=1000000000 +0000")
    return weights


def test_commit_is_that_of_the_models_repository(model, monkeypatch, tmp_path):
    """The commit is found from any working directory, and through a link to the folder."""
    commit, time = git(model.parent, "log", "-1", "--format=%H %ct").split()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(model.parent)
    for weights in (model, tmp_path / "link" / model.name):
        source = source_of([weights])
        assert (source.commit, source.created, source.doubt) == (commit, int(time), "")


def test_changed_or_unknown_file_is_dirty(model, tmp_path):
    """A changed file, an untracked one and one outside the repository each make it dirty."""
    (model.parent / "new.json").write_text("{}")
    (tmp_path / "elsewhere.json").write_text("{}")
    for other in (model.parent / "new.json", tmp_path / "elsewhere.json"):
        assert source_of([model, other]).commit.endswith("-dirty")
    model.write_bytes(b"2")
    assert source_of([model]).commit.endswith("-dirty")


def test_without_a_repository_there_is_nothing_to_doubt(tmp_path):
    """A downloaded folder has no commit, and that is not an error."""
    (tmp_path / "weights.pth").write_bytes(b"1")
    source = source_of([tmp_path / "weights.pth"])
    assert (source.commit, source.created, source.doubt) == (UNKNOWN, 0, "")


def test_distrusted_repository_is_told(model, monkeypatch):
    """Git does not read another user's repository; its reason and the remedy are reported."""
    monkeypatch.setenv(*DISTRUST)
    source = source_of([model])
    assert source.commit == UNKNOWN
    assert source.doubt == (
        f"git does not trust {model.parent}, which belongs to another user; to trust it: "
        f"git config --global --add safe.directory '{model.parent}'"
    )


def test_missing_git_is_told(model, monkeypatch):
    """There is a repository, but git is missing."""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert source_of([model]).doubt == "git cannot be run (No such file or directory); install git"


def test_damaged_repository_is_told(model):
    """Any other error of git is reported in one line."""
    (model.parent / ".git" / "refs" / "heads" / git(model.parent, "branch", "--show-current")).write_text(
        "x\n"
    )
    assert source_of([model]).doubt.startswith(f"git fails in {model.parent}: fatal: ")


def test_nothing_of_a_distrusted_repository_is_run(model, monkeypatch, tmp_path):
    """The programs that its settings name for status and log are not run."""
    ran = tmp_path / "ran"
    for setting in ("core.fsmonitor", "gpg.program", "filter.own.clean"):
        git(model.parent, "config", setting, f"touch {ran}; cat")
    git(model.parent, "config", "log.showSignature", "true")
    (model.parent / ".gitattributes").write_text("* filter=own\n")
    model.write_bytes(b"2")
    monkeypatch.setenv(*DISTRUST)
    assert source_of([model]).doubt
    assert not ran.exists()
