"""Damaged records claim nothing."""

from marctl import records as build_records


def foreign(path):
    """Write a user's file, which this project did not make."""
    path.write_bytes(b"somebody's archive")
    return path


def test_records_that_cannot_be_read_are_none(tmp_path):
    """A file whose record is damaged counts as the user's."""
    kept = build_records.Records(tmp_path / "records")
    made = tmp_path / "made"
    with kept.making(made):
        kept.write(made, build_records.digest_of(["x"]), "inputs")
        [record] = (tmp_path / "records").glob("*.json")
        for text in ("", "{", "[]", '{"path": 1}', "null"):
            record.write_text(text)
            assert kept.of(made) is None
            foreign(made)
            assert not kept.is_ours(made)
