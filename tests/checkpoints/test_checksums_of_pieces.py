"""Checksums that several processes compute in pieces: those of the host arrays, by member and without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.checkpoints.checksums import checksum_of_pieces, hash_own_pieces, matches

TREE = {
    "kernel": jnp.arange(6.0).reshape(2, 3),
    "steps": jnp.zeros(2, jnp.int32),
    "half": jnp.ones((2, 4), jnp.bfloat16),
    "of all members": jnp.float32(3),
}


@pytest.mark.parametrize("by_member", [False, True])
def test_pieces_match_the_arrays_they_are_of_and_no_others(by_member: bool):
    checksum = checksum_of_pieces(hash_own_pieces(TREE, by_member))
    host = jax.tree.map(np.array, TREE)
    assert matches(host, checksum, by_member)
    for name in TREE:
        changed = {**host, name: np.array(host[name] + 1, host[name].dtype)}
        assert not matches(changed, checksum, by_member)
    assert not matches({**host, "steps": host["steps"].astype(np.uint32)}, checksum, by_member)
