"""Each layer matters: with it, certain attacks are stopped; with it alone taken away, they succeed.

Layers cover for each other, so most rows first leave out those that would stop the same attacks as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.hostile.extensions.sandbox_plays import IS_ROOT, play

BY_USERS: list[tuple[str, str, Sequence[str], Sequence[str]]] = [
    # profile, layer, left out beside it, what the layer stops
    ("user", "limits", (), ("memory", "shared_memory", "large_file", "many_descriptors", "threads")),
    (
        "user", "seccomp", (),
        ("pass_descriptor", "fork", "fork_by_clone", "memory_file", "reserve_disk", "change_personality",
         "raise_limits", "share_memory_by_key", "splice_memory", "talk_to_routes"),
    ),
    ("user", "root", (), ("look_at_metadata",)),
    (
        "user", "landlock", ("root",),
        ("read_secret", "list_node_folder", "traverse", "read_sibling", "write_sibling", "write_own_code",
         "list_processes"),
    ),
    ("user", "root", ("landlock",), ("read_secret", "write_own_code", "read_sibling")),
    ("user", "namespaces", ("root", "landlock", "seccomp"), ("connect_tcp", "connect_abstract", "send_udp")),
    ("user", "pids", ("root", "landlock", "seccomp"), ("signal_node", "signal_by_pidfd", "limit_node")),
    ("user", "privileges", ("landlock", "seccomp"), ("mount_over", "change_root", "change_host_name")),
    (
        "container", "landlock", (),
        ("read_secret", "through_root_of_self", "read_environment_of_node", "read_memory_of_node", "write_own_code"),
    ),
    ("container", "seccomp", (), ("change_mode", "signal_as_owner", "limit_node", "connect_unix", "threads", "fork")),
]  # fmt: skip
BY_ROOT: list[tuple[str, str, Sequence[str], Sequence[str]]] = [
    ("root", "cgroup", ("limits",), ("memory", "shared_memory", "threads")),
    ("container-root", "user", ("landlock", "seccomp"), ("read_secret", "write_own_code")),
    ("root", "seccomp", (), ("new_user_namespace", "fork", "pass_descriptor", "raise_limits")),
]


@pytest.mark.parametrize(("profile", "layer", "beside", "attacks"), [*BY_USERS, *(BY_ROOT if IS_ROOT else [])])
def test_a_layer_stops_what_gets_through_without_it(
    profile: str, layer: str, beside: Sequence[str], attacks: Sequence[str]
) -> None:
    kept = play(profile, attacks=attacks, without=beside)
    open_ = play(profile, attacks=attacks, without=[*beside, layer])

    assert layer in kept.layers
    assert layer not in open_.layers
    assert not kept.those("leaked", "failed"), kept.told(set(attacks))
    assert open_.those("leaked") == set(attacks), open_.told(set(attacks))
