"""A run folder belongs to the servers that are started in it, several at once included."""

import threading

from marctl.serve.torchserve.instance import Instance

STARTS = 200


def test_folder_that_another_start_claims_is_not_foreign(tmp_path):
    """Starts at the same time never see each other's files without the mark."""
    for number in range(STARTS):
        instance = Instance(tmp_path / str(number))
        found = []
        done = threading.Event()

        def start(instance=instance, done=done):
            instance.claim()
            (instance.folder / "state.json").write_text("{}")
            instance.claim()
            done.set()

        other = threading.Thread(target=start)
        other.start()
        while not done.is_set():
            found.append(instance.is_foreign)
        other.join()
        assert not any(found)
        assert not instance.is_foreign


def test_folder_of_somebody_else_is_foreign(tmp_path):
    """Its files could be replaced, or run."""
    (tmp_path / "notes.txt").write_text("mine")
    assert Instance(tmp_path).is_foreign
