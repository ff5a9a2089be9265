"""The patched class is TorchServe 0.12.0's, with the two known edits."""

from marctl.serve.torchserve.patches import greedy_batches


def test_installed_torchserve_is_the_known_one(tmp_path):
    """The class has the known bytes, and each edit changes exactly what it should."""
    assert greedy_batches.install(tmp_path)
    changed, original = (tmp_path / greedy_batches.CLASS).read_bytes(), greedy_batches._original()
    (load, zero), (branch, other_branch) = greedy_batches.EDITS
    after_load, after_branch = load + len(zero), branch + len(other_branch)
    between = original[after_load:branch]
    assert changed == original[:load] + zero + between + other_branch + original[after_branch:]
    # aload_0, getfield, i2l, lstore; and lload, lconst_0, lcmp, ifgt.
    assert (original[load], original[load + 1], original[load + 4 : load + 6]) == (0x2A, 0xB4, b"\x85\x37")
    assert original[branch - 4 : branch + 1] == b"\x16\x06\x09\x94\x9d"
    assert other_branch == b"\x9c"


def test_unknown_torchserve_is_left_alone(tmp_path, monkeypatch):
    """Another version's class is not patched, and a class patched earlier is not used for it."""
    greedy_batches.install(tmp_path)
    monkeypatch.setattr(greedy_batches, "SHA256", "0" * 64)
    assert not greedy_batches.install(tmp_path)
    assert not (tmp_path / greedy_batches.CLASS).exists()
