"""A folder of images is answered on all cores, past broken files, and resumed after an interruption."""

import csv
import json
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from PIL import Image
from pyarrow import parquet

from bench.servers.limits import fill, small_disk
from marctl import cli
from marctl.predict.image_folder import find_images
from marctl.predict.table import BadTable, Row, Table, escaped, unescaped
from tests.conftest import DIGITS, MARCTL, ROOT, WITHOUT_RIGHTS, make, marctl
from tests.support.waiting import PATIENCE, wait_for_the_end_of
from training.mnist import load_test

MANY = 6000


@pytest.fixture
def folder(tmp_path):
    """Ten digits, one of them in a subfolder, and three broken files."""
    images = tmp_path / "images"
    (images / "more, and more").mkdir(parents=True)
    for digit, body in DIGITS.items():
        (images / ("more, and more" if digit == "9" else "") / f"{digit}.png").write_bytes(body)
    (images / "broken.png").write_bytes(b"hello")
    (images / "empty.png").touch()
    (images / "dangling.png").symlink_to("/nowhere")
    return images


def rows_of(out):
    match out.suffix:
        case ".csv":
            with out.open(newline="") as file:
                return list(csv.DictReader(file))
        case ".jsonl":
            return [json.loads(line) for line in out.read_text().splitlines()]
        case ".parquet":
            return parquet.read_table(out).to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_folder_is_answered(folder, tmp_path, suffix):
    """Every image has a row, in order; broken files have their reasons and are listed."""
    out = tmp_path / f"answers{suffix}"
    done = make("predict", IMAGES=str(folder), OUT=str(out))
    assert done.returncode != 0
    rows = {row["image"].removeprefix(f"{folder}/"): row for row in rows_of(out)}
    assert list(rows) == sorted(rows)
    for name, row in rows.items():
        if name in ("broken.png", "empty.png"):
            assert row["label"] == ""
            assert row["error"] in done.stderr
        else:
            assert row["label"] == name[-5]
    assert "10 answered, 2 broken, 0 done before" in done.stdout
    assert rows["empty.png"]["error"].startswith("the request has no content")


def test_pattern_chooses(folder, tmp_path):
    """A glob pattern selects what it matches; ** includes subfolders."""
    out = tmp_path / "answers.csv"
    done = make("predict", IMAGES=f"{folder}/**/[789].png", OUT=str(out))
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in rows_of(out)] == ["7", "8", "9"]


def test_done_images_are_not_done_again(folder, tmp_path):
    """A second run answers only new images and keeps the existing rows."""
    out = tmp_path / "answers.csv"
    make("predict", IMAGES=f"{folder}/[0-4].png", OUT=str(out))
    done = make("predict", IMAGES=f"{folder}/[0-8].png", OUT=str(out))
    assert "4 answered, 0 broken, 5 done before" in done.stdout
    assert [row["label"] for row in rows_of(out)] == list("012345678")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_torn_row_is_done_again(folder, tmp_path, suffix):
    """Wherever a killed run cut off its last row, the next run writes it in full."""
    out = tmp_path / f"answers{suffix}"
    make("predict", IMAGES=f"{folder}/[0-4].png", OUT=str(out))
    whole = out.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in (1, 3, 10, last - 2):
        out.write_bytes(whole[:-cut])
        assert make("predict", IMAGES=f"{folder}/[0-4].png", OUT=str(out)).returncode == 0
        assert out.read_bytes() == whole, cut


def test_broken_images_are_tried_again(folder, tmp_path):
    """A second run fails while an image is broken, and answers it once it is repaired."""
    out = tmp_path / "answers.csv"
    assert make("predict", IMAGES=str(folder), OUT=str(out)).returncode != 0
    assert make("predict", IMAGES=str(folder), OUT=str(out)).returncode != 0
    for name in ("broken.png", "empty.png"):
        (folder / name).write_bytes(DIGITS["4"])
    done = make("predict", IMAGES=str(folder), OUT=str(out))
    assert done.returncode == 0
    assert "2 answered, 0 broken, 10 done before" in done.stdout
    assert len(rows_of(out)) == 12
    assert not [row for row in rows_of(out) if row["error"]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,truth\n1,cat\n2,dog\n"),
        ("a.csv", "one\ntwo\nthree\n"),
        ("a.jsonl", '{"id": 1}\n{"id": 2}\n'),
    ],
)
def test_file_of_somebody_else_is_left_alone(folder, tmp_path, name, text):
    """If OUT holds something else, it is refused and left unchanged."""
    out = tmp_path / name
    out.write_text(text)
    done = make("predict", IMAGES=str(folder), OUT=str(out))
    assert "is not a file of answers; name another OUT" in done.stderr
    assert out.read_text() == text
    assert [file for file in tmp_path.iterdir() if file != folder] == [out]


OURS = "image,label,error,archive\n"
ARCHIVE = "0123456789ab"
TORN = '{"image": "b.png", "label": "4", "error": "", "archive": "0123456789ab"}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.jsonl", '{"image": "a.png", "truth": "3", "who": "me", "when": "now"}\n'),
        ("notes.jsonl", '{"image": "a.png", "truth": "3", "error": "me", "archive": "0123456789ab"}\n'),
        ("notes.jsonl", '{"label": "3", "image": "a.png", "error": "", "archive": "0123456789ab"}\n'),
        ("notes.jsonl", '[["image", "a"], ["label", "3"], ["error", ""], ["archive", "0123456789ab"]]\n'),
        ("notes.jsonl", '{"image": "a.png", "label": 3, "error": "", "archive": "0123456789ab"}\n'),
        ("notes.jsonl", '{"image": "a.png", "truth": "3"}'),
        ("notes.jsonl", '{"image": "a.png", "truth": "3'),
        ("notes.jsonl", f'{TORN}\n{{"id": 1}}'),
        ("notes.jsonl", "{\n"),
        ("notes.jsonl", "\n"),
        ("notes.jsonl", "[" * 100_000 + "\n"),
        ("truth.csv", "image,label\na.png,3\nb.png,4\n"),
        ("truth.csv", "image\na.png\n"),
        ("truth.csv", "image,label\n"),
        ("truth.csv", "image,label,error,archive,mine\n"),
        ("truth.csv", "image,label\na.png,3"),
        ("truth.csv", "x"),
        ("truth.csv", "\n"),
        ("truth.csv", f"{OURS}a.png,3\n"),
        ("truth.csv", f"{OURS}\n"),
        ("truth.csv", f"{OURS}a.png,3,,{ARCHIVE},mine"),
        ("truth.csv", f'{OURS}"a.png,3,,{ARCHIVE}\nb.png,4,,{ARCHIVE}\n'),
        ("truth.csv", f"{OURS}a,3\nb.png,4,,{ARCHIVE}\n"),
    ],
)  # fmt: skip
def test_only_a_table_of_ours_is_gone_on_with(tmp_path, name, text):
    """A user's file with other keys, header or rows is refused, and not a byte of it changes."""
    out = tmp_path / name
    out.write_text(text)
    with pytest.raises(BadTable, match="is not a file of answers; name another OUT"):
        Table(out, ARCHIVE)
    assert out.read_text() == text
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_row_that_is_torn_anywhere_is_passed_over(tmp_path, suffix):
    """Cut at any byte, the complete rows before are kept, and the next run makes the same file."""
    out = tmp_path / f"answers{suffix}"
    rows = [Row("a.png", "3", "", ARCHIVE), Row('b,"\n\r\udcff\u00e9.png', "4", "", ARCHIVE)]
    with Table(out, ARCHIVE) as table:
        table.write(rows)
    whole = out.read_bytes()
    first = whole.index(b"a.png")
    for cut in range(len(whole)):
        out.write_bytes(whole[:cut])
        with Table(out, ARCHIVE) as table:
            assert table.done <= {"a.png"}, cut
            assert (table.done == {"a.png"}) == (b"\n" in whole[first:cut]), cut
            table.write(row for row in rows if row.image not in table.done)
        assert out.read_bytes() == whole, cut
    assert list(tmp_path.iterdir()) == [out]


def test_users_files_beside_the_table_stay(tmp_path):
    """They stay whatever their names, also where rows for Parquet are collected."""
    ends = ["whole", "part", "part.csv", "abcdefgh.part.csv", "tmp", "12345678.part.csv"]
    mine = [tmp_path / f"{name}.{end}" for name in ("t.csv", "t.jsonl", "t.parquet") for end in ends]
    for file in mine:
        file.write_text("" if file.name.startswith("t.parquet.1") else "mine")
    for suffix in (".csv", ".jsonl", ".parquet"):
        out = tmp_path / f"t{suffix}"
        with Table(out, ARCHIVE) as table:
            table.write([Row("a.png", "3", "", ARCHIVE), Row("b.png", "", "broken", ARCHIVE)])
        with Table(out, ARCHIVE) as table:
            assert table.done == {"a.png"}
            table.write([Row("b.png", "4", "", ARCHIVE)])
            table.finish()
        assert [row["label"] for row in rows_of(out)] == ["3", "4"]
    assert all(file.read_text() in ("mine", "") for file in mine)
    assert len(list(tmp_path.iterdir())) == len(mine) + 3


def test_file_that_came_meanwhile_is_not_replaced(tmp_path):
    """A file that appears under the Parquet output's name during a run is kept."""
    out = tmp_path / "t.parquet"
    with Table(out, ARCHIVE) as table:
        table.write([Row("a.png", "3", "", ARCHIVE)])
        out.write_text("mine")
        with pytest.raises(BadTable, match="exists and is complete"):
            table.finish()
    assert out.read_text() == "mine"
    out.unlink()
    with Table(out, ARCHIVE) as table:
        assert table.done == {"a.png"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_of_strangers_is_no_end_of_a_row(tmp_path, suffix):
    """Labels and errors with line breaks, commas and quotation marks stay in one row each."""
    odd = 'a\r\n"b",\u2028\x0b\x85{}\t'
    out = tmp_path / f"t{suffix}"
    rows = [Row(f"{name}.png", odd * many, "", ARCHIVE) for name, many in (("a", 1), ("b", 50_000))]
    with Table(out, ARCHIVE) as table:
        table.write([*rows, Row("c.png", "", odd, ARCHIVE)])
    with Table(out, ARCHIVE) as table:
        assert table.done == {"a.png", "b.png"}
    assert [row["label"] for row in rows_of(out)] == [odd, odd * 50_000]


def test_half_characters_are_written_all_the_same(tmp_path):
    """A lone surrogate in a server's label, valid in JSON but not in a file, ends no run."""
    for suffix in (".csv", ".jsonl", ".parquet"):
        with Table(tmp_path / f"t{suffix}", ARCHIVE) as table:
            table.write([Row("a.png", "\ud83d", "", ARCHIVE), Row("b.png", "", "\udcff", ARCHIVE)])
            table.finish()
        assert [row["image"] for row in rows_of(tmp_path / f"t{suffix}")] == ["a.png", "b.png"]


def test_names_are_printed_as_they_can_be(folder, tmp_path):
    """File names are escaped when printed, so that they cannot control a terminal."""
    (folder / "\x1b[2J\u202e\udcff.png").write_bytes(b"hello")
    out = tmp_path / "\x1b]0;a\x07.csv"
    done = make("predict", IMAGES=str(folder / "*2J*"), OUT=str(out))
    assert f"  {folder}/\\x1b[2J\\u202e\\udcff.png: cannot read" in done.stderr
    assert f"wrote {tmp_path}/\\x1b]0;a\\x07.csv" in done.stdout
    out.write_text(f"{OURS}a.png,3,,\x1b[2J\n")
    images = [str(folder / name) for name in ("\x1b[2J\u202e\udcff.png", "\x1bnone.png", "2.png")]
    said = [done, make("predict", IMAGES=str(folder), OUT=str(out)), make("predict", IMAGE=images[0])]
    mar = ROOT / "model_store" / "convnet.mar"
    said.append(marctl("predict", mar, *images))
    assert "was begun with the archive \\x1b[2J" in said[1].stderr
    assert "\\x1bnone.png: No such file" in said[3].stderr
    for one in said:
        assert "Traceback" not in one.stderr
        assert not {"\x1b", "\x07", "\u202e"} & set(one.stdout + one.stderr)


def test_no_process_of_the_pool_outlives_the_run(folder, tmp_path, archive):
    """The pool has ended when the run has: Python's own end raced with it for a pipe, and lost at times."""
    assert cli.main(["predict", str(archive), str(folder / "2.png"), "--out", str(tmp_path / "t.csv")]) == 0
    assert not multiprocessing.active_children()


def test_table_keeps_its_permissions(tmp_path):
    """A rewritten table has the same permissions as before."""
    out = tmp_path / "t.csv"
    with Table(out, ARCHIVE):
        out.chmod(0o640)
    with Table(out, ARCHIVE):
        assert out.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", ["link", "dangling", "loop", "folder", "pipe", "device"])
def test_out_that_is_no_file_is_refused(folder, tmp_path, suffix, kind):
    """Nothing is written through a link, and a pipe is not waited for."""
    out, other = tmp_path / f"out{suffix}", tmp_path / "other"
    match kind:
        case "link":
            other.write_text("")
            out.symlink_to(other)
        case "dangling":
            out.symlink_to(other)
        case "loop":
            out.symlink_to(out)
        case "folder":
            out.mkdir()
        case "pipe":
            os.mkfifo(out)
        case "device":
            os.mknod(out, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    words = "is a link" if out.is_symlink() else "is not a regular file"
    with pytest.raises(BadTable, match=f"OUT={out} {words}"):
        Table(out, ARCHIVE)
    assert find_images(str(folder), out).files
    assert os.path.lexists(out)
    assert not other.exists() or other.read_text() == ""


def test_odd_names_keep_their_rows(tmp_path):
    """Names with quotes, commas, line breaks or bytes that are not UTF-8 have one row each."""
    images = tmp_path / "images"
    images.mkdir()
    names = [
        b"a,b.png",
        b'a"b.png',
        b"a\nb.png",
        b"Icon\r",
        b"a\xff.png",
        rb"a\xff.png",
        rb"a\\b",
        b" a .png",
    ]
    names.append("\u00e9.png".encode())
    for name in names:
        (images / os.fsdecode(name)).write_bytes(DIGITS["7"])
    tables = [tmp_path / f"a{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    for out in tables:
        done = make("predict", IMAGES=str(images), OUT=str(out))
        assert "9 answered, 0 broken, 0 done" in done.stdout, done.stderr
    for out in tables[:2]:
        done = make("predict", IMAGES=str(images), OUT=str(out))
        assert "0 answered, 0 broken, 9 done" in done.stdout, done.stderr
    told = [[row["image"].removeprefix(f"{images}/") for row in rows_of(out)] for out in tables]
    assert told[0] == told[1] == told[2]
    assert {os.fsencode(unescaped(name)) for name in told[0]} == set(names)
    assert {r"a\xff.png", r"a\\xff.png", r"a\\\\b"} < set(told[0])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"2.png", "2.png"),
        (b"\xc3\xa9\xff", "\u00e9\\xff"),
        (rb"\xff", r"\\xff"),
        (b"\\\xff", r"\\\xff"),
        (rb"a\b\\c", r"a\\b\\\\c"),
        (b"\xe2\x82", r"\xe2\x82"),
    ],
)
def test_name_is_escaped_and_comes_back(name, told):
    """A backslash is doubled, so that an escaped byte cannot be confused with another name."""
    assert escaped(os.fsdecode(name)) == told
    assert os.fsencode(unescaped(told)) == name


FORMULAS = ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "'=1", "''=1", "\uff1d1", "=1,2", '=a("b")']
TEXTS = ["'a'", "'", "''", "a=1", " =1", "'a=1", "3", ""]


def test_no_cell_is_a_formula(tmp_path):
    """In CSV, cells that a spreadsheet would run get an apostrophe; a resumed run knows its rows."""
    texts = FORMULAS + TEXTS
    rows = [Row(f"{text}{index}.png", text, "", ARCHIVE) for index, text in enumerate(texts)]
    outs = [tmp_path / f"t{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    for out in outs:
        with Table(out, ARCHIVE) as table:
            table.write([*rows, Row("error.png", "", "=1", ARCHIVE)])
        with Table(out, ARCHIVE) as table:
            assert table.done == {row.image for row in rows}, out
            table.write([Row("error.png", "", "=1", ARCHIVE)])
            table.finish()
    told = [[row["label"] for row in rows_of(out)] for out in outs]
    assert told[0] == ["'" + text for text in FORMULAS] + TEXTS + [""]
    assert told[1] == told[2] == [*texts, ""]
    assert rows_of(outs[0])[0]["image"] == "'=1+10.png"
    assert [rows_of(out)[-1]["error"] for out in outs] == ["'=1", "=1", "=1"]


@pytest.mark.parametrize("name", ["img[1].png", "img*.png", "a?"])
def test_name_with_brackets_is_taken_as_it_is(tmp_path, name):
    """A file or folder of exactly that name takes precedence over the pattern's matches."""
    for other in (name, "img1.png", "ab"):
        (tmp_path / other).write_bytes(DIGITS["7"])
    assert find_images(str(tmp_path / name), tmp_path / "t.csv").files == [str(tmp_path / name)]
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    (tmp_path / name / "8.png").write_bytes(DIGITS["8"])
    assert find_images(str(tmp_path / name), tmp_path / "t.csv").files == [str(tmp_path / name / "8.png")]
    (tmp_path / name / "8.png").unlink()
    (tmp_path / name).rmdir()
    others = {"img[1].png": ["img1.png"], "img*.png": ["img1.png"], "a?": ["ab"]}
    assert find_images(str(tmp_path / name), tmp_path / "t.csv").files == [
        str(tmp_path / other) for other in others[name]
    ]


@pytest.fixture
def closed_folders(tmp_path):
    """Images, and folders that cannot be listed, entered, or either; they are opened again at the end."""
    images = tmp_path / "images"
    (images / "open").mkdir(parents=True)
    (images / "open" / "1.png").write_bytes(DIGITS["1"])
    for name, mode in (("unlisted", 0o300), ("unentered", 0o600), ("closed", 0o000)):
        (images / name / "below").mkdir(parents=True)
        for place in (images / name, images / name / "below"):
            (place / "2.png").write_bytes(DIGITS["2"])
        (images / name).chmod(mode)
    yield images
    for name in ("unlisted", "unentered", "closed"):
        (images / name).chmod(0o700)


@pytest.mark.parametrize(
    ("pattern", "suffix"),
    [("", ".csv"), ("/**/*.png", ".csv"), ("/*/*.png", ".csv"), ("", ".jsonl"), ("/**", ".parquet")],
)
def test_folder_that_cannot_be_searched_is_named(closed_folders, tmp_path, pattern, suffix):
    """It gets a row and a line; everything else is answered, and the next run tries it again."""
    out = tmp_path / f"t{suffix}"
    where = {"IMAGES": f"{closed_folders}{pattern}", "OUT": str(out)}
    done = make("predict", within=WITHOUT_RIGHTS, **where)
    assert done.returncode != 0
    assert done.stdout.startswith(
        "1 answered, 0 broken, 0 done before; folders that could not be searched: 3\n"
    )
    rows = {row["image"]: row for row in rows_of(out)}
    assert rows.pop(f"{closed_folders}/open/1.png")["label"] == "1"
    assert sorted(rows) == [f"{closed_folders}/{name}" for name in ("closed", "unentered", "unlisted")]
    for folder, row in rows.items():
        assert row["error"] == "the folder cannot be searched: Permission denied"
        assert f"  {folder}: {row['error']}\n" in done.stderr
    if suffix == ".parquet":  # complete: never rewritten
        return
    for folder in rows:
        Path(folder).chmod(0o700)
    done = make("predict", within=WITHOUT_RIGHTS, **where)
    assert done.returncode == 0, done.stderr
    assert "0 broken, 1 done before\n" in done.stdout
    assert len(rows_of(out)) == (4 if pattern == "/*/*.png" else 7)


def test_only_unsearched_folders_are_said_at_once(closed_folders, tmp_path):
    """If nothing can be read, no table is written; a pattern needs only the rights it uses."""
    for where in ("closed", "unentered", "closed/below", "closed/*.png"):
        done = make(
            "predict", within=WITHOUT_RIGHTS, IMAGES=f"{closed_folders}/{where}", OUT=f"{tmp_path}/t.csv"
        )
        sentence = r"error: IMAGES=\S+ matches no readable file: \S+/(un)?(closed|entered): Permission denied"
        assert re.match(sentence + "; grant access to it\n", done.stderr)
    assert not (tmp_path / "t.csv").exists()
    named = make(
        "predict", within=WITHOUT_RIGHTS, IMAGES=f"{closed_folders}/unlisted/2.png", OUT=f"{tmp_path}/t.csv"
    )
    assert named.returncode == 0, named.stderr


def write_all(out: Path, rows: list[Row]) -> None:
    with Table(out, ARCHIVE) as table:
        for row in rows:
            table.write([row])
        table.finish()


@pytest.mark.root
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_full_disk_ends_with_a_sentence(tmp_path, suffix):
    """Wherever the disk fills up: one error, written rows are kept, and a later run resumes."""
    rows = [Row(f"{'long' * 50}{index}.png", "3", "", ARCHIVE) for index in range(2000)]
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        out = disk / f"t{suffix}"
        sentence = (
            f"OUT={out} cannot be written: No space left on device; correct that and run the same command"
        )
        with Table(out, ARCHIVE) as table:
            table.write(rows[:10])
        full = fill(disk)
        with pytest.raises(BadTable, match=sentence):
            write_all(out, rows[10:])
        full.unlink()
        with pytest.raises(BadTable, match=sentence):  # too many for the disk, full or not
            write_all(out, rows[10:])
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        with Table(out, ARCHIVE) as table:
            assert {row.image for row in rows[:10]} < table.done
            done = table.done
        write_all(out, [row for row in rows if row.image not in done])
        assert [row["image"] for row in rows_of(out)] == [row.image for row in rows]


def test_answers_among_the_images_are_no_image(folder):
    """OUT can be in the folder of the images; an image that a pattern matches twice counts once."""
    out = folder / "answers.csv"
    for count in ("1 answered, 0 broken, 0 done", "0 answered, 0 broken, 1 done"):
        done = make("predict", IMAGES=f"{folder}/**/**/[7a]*", OUT=str(out))
        assert count in done.stdout, done.stderr


def test_huge_file_is_not_read(tmp_path):
    """A file above the server's own limit costs no memory."""
    (tmp_path / "images").mkdir()
    with (tmp_path / "images" / "film.mp4").open("wb") as file:
        file.truncate(10 * 2**30)
    done = make("predict", IMAGES=str(tmp_path / "images"), OUT=str(tmp_path / "a.csv"))
    assert "the file has 10,737,418,240 bytes; at most 33,554,432 are read" in done.stderr


def test_archive_that_does_not_load_says_why(archive, folder, tmp_path):
    """The archive's fault is reported once, in one sentence."""
    bad = tmp_path / "bad.mar"
    with zipfile.ZipFile(archive) as mar, zipfile.ZipFile(bad, "w") as changed:
        for info in mar.infolist():
            changed.writestr(info, mar.read(info).replace(b"mean: [0.1302]", b"mean: [0.2302]"))
    answers = tmp_path / "a.csv"
    for words in ([bad, folder, "--out", answers], [bad, "x"]):
        done = marctl("predict", *words)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {bad} does not load: GoldenMismatch: golden image 0.png")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_broken_rows_are_of_no_archive(tmp_path, suffix):
    """Broken images are tried again, whichever archive failed on them, even one with no known digest."""
    out = tmp_path / f"answers{suffix}"
    with Table(out, "") as table:
        table.write([Row("a.png", "", "broken", ""), Row("b.png", "", "broken", "fedcba987654")])
        table.write([Row("c.png", "3", "", "0123456789ab")])
    with Table(out, "0123456789ab") as table:
        assert table.done == {"c.png"}


def test_rows_of_another_archive_are_not_mixed(folder, tmp_path):
    """An output that another archive began is refused and left unchanged."""
    out = tmp_path / "answers.csv"
    out.write_text("image,label,error,archive\na.png,1,,0123456789ab\n")
    done = make("predict", IMAGES=str(folder), OUT=str(out))
    assert "was begun with the archive 0123456789ab" in done.stderr
    assert out.read_text().endswith("a.png,1,,0123456789ab\n")


@pytest.mark.parametrize(
    ("images", "out", "sentence"),
    [
        ("/nowhere", "a.csv", "IMAGES=/nowhere matches no file; give a folder, or a pattern in quotes"),
        ("tests/images", "a.txt", "must end with .csv, .jsonl or .parquet"),
        ("tests/images", "none/a.csv", "cannot be written"),
    ],
)
def test_bad_call_is_refused(tmp_path, images, out, sentence):
    """The error says what came and what to give instead."""
    done = make("predict", IMAGES=images, OUT=str(tmp_path / out))
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Thousands of real digits, as PNG files."""
    folder = tmp_path_factory.mktemp("many")
    for index, image in enumerate(load_test()[0][:MANY]):
        Image.fromarray(image).save(folder / f"{index:05d}.png")
    return folder


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_stopped_run_is_gone_on_with(many, archive, tmp_path, how):
    """After Ctrl-C or kill -9 no process is left, and a resumed run gives the same file as a full one."""
    out = tmp_path / "answers.csv"
    command = [*MARCTL, "predict", archive, many, "--out", out]
    # A terminal sends Ctrl-C to every process of the group.
    said = tmp_path / "stderr"
    with said.open("w") as stderr:
        running = subprocess.Popen(command, start_new_session=True, stderr=stderr)
    while not (out.exists() and out.stat().st_size > 10_000):
        time.sleep(0.02)
        assert running.poll() is None
    family = psutil.Process(running.pid).children(recursive=True)
    if how == signal.SIGINT:
        os.killpg(running.pid, how)
    else:
        running.kill()
    assert running.wait(PATIENCE) in (130, -signal.SIGKILL)
    wait_for_the_end_of(family)
    assert "Traceback" not in said.read_text()
    stopped_at = len(rows_of(out))
    assert 0 < stopped_at < MANY
    assert make("predict", IMAGES=str(many), OUT=str(out)).returncode == 0
    labels = [row["label"] for row in rows_of(out)]
    truth = [str(label) for label in load_test()[1][:MANY]]
    assert len(labels) == MANY
    assert sum(a == b for a, b in zip(labels, truth, strict=True)) > MANY * 0.99
    assert [row["image"] for row in rows_of(out)] == sorted(str(path) for path in many.iterdir())
