"""Programs of system calls, run here by a small machine of our own: what they say, for any call and any arguments."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.extensions.sandbox import seccomp
from magmobo.extensions.sandbox.seccomp import If, Program, Rule, Verdict
from magmobo.extensions.sandbox.syscalls import ABSENT, ALLOW, KILL, MACHINES, Machine

X86, ARM = MACHINES["x86_64"], MACHINES["aarch64"]
PID = 4711
machines = st.sampled_from([X86, ARM])
words = st.integers(0, 2**64 - 1)


def run(program: Program, target: Machine, number: int, arguments: Sequence[int] = (), audit: int | None = None) -> int:
    """What the kernel would answer. Raises: AssertionError for a program that it would not take."""
    data = struct.pack("=iIQ6Q", number, audit or target.audit, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    code = [struct.unpack_from("HBBI", program.code, at) for at in range(0, len(program.code), 8)]
    register, at = 0, 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                (register,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                register &= operand
            case 0x15:
                at += if_true if register == operand else if_false
            case 0x35:
                at += if_true if register >= operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"operation {operation:#x}")


def worker(target: Machine, *, threads: bool = True) -> Program:
    return seccomp.assemble(seccomp.worker_rules(with_threads=threads), target).of_process(PID)


def answer(target: Machine, call: str, *arguments: int, threads: bool = True) -> int:
    return run(worker(target, threads=threads), target, target.numbers[call], arguments)


@given(machines, st.integers(0, 2**31 - 1), st.lists(words, max_size=6))
def test_a_call_that_no_rule_names_is_refused(target: Machine, number: int, arguments: list[int]) -> None:
    verdict = run(worker(target), target, number, arguments)

    if target.foreign and number >= target.foreign:
        assert verdict == Verdict.KILL
    elif number not in target.numbers.values():
        assert verdict in (Verdict.DENY, Verdict.ABSENT)


@given(machines, st.lists(words, max_size=6), st.sampled_from(ALLOW))
def test_what_is_allowed_is_whatever_the_arguments(target: Machine, arguments: list[int], name: str) -> None:
    if name in target.numbers and name not in ("open", "openat"):
        assert answer(target, name, *arguments) == Verdict.ALLOW


@given(machines, st.lists(words, max_size=6), st.sampled_from(KILL))
def test_what_is_forbidden_ends_the_worker_whatever_the_arguments(
    target: Machine, arguments: list[int], name: str
) -> None:
    if name in target.numbers:
        assert answer(target, name, *arguments) == Verdict.KILL


@given(machines, st.sampled_from([0x40000003, 0xC00000F3, 0, 0xFFFFFFFF]), st.integers(0, 500))
def test_the_calls_of_another_architecture_end_it(target: Machine, audit: int, number: int) -> None:
    assert run(worker(target), target, number, audit=audit or 1) == Verdict.KILL


@given(machines, words)
def test_threads_and_nothing_else_are_cloned(target: Machine, flags: int) -> None:
    verdict = answer(target, "clone", flags)

    if flags & 0x7E020000:
        assert verdict == Verdict.KILL
    else:
        assert verdict == (Verdict.ALLOW if flags & 0x10000 else Verdict.DENY)
        assert answer(target, "clone", flags, threads=False) == Verdict.DENY


@given(machines, words)
def test_reading_a_file_does_not_empty_it(target: Machine, flags: int) -> None:
    empties_unwritten = flags & 0o1000 and not flags & 3

    assert (answer(target, "openat", 0, 0, flags) == Verdict.DENY) == bool(empties_unwritten)


@given(machines, words, words)
def test_limits_of_oneself_are_read_and_of_nobody_else(target: Machine, pid: int, new: int) -> None:
    is_reading_own = pid & 0xFFFFFFFF == 0 and new == 0

    assert (answer(target, "prlimit64", pid, 7, new) == Verdict.ALLOW) == is_reading_own


@pytest.mark.parametrize("target", [X86, ARM], ids=["x86_64", "aarch64"])
@pytest.mark.parametrize("new", [1, 1 << 32, 1 << 63])
def test_both_halves_of_a_pointer_count(target: Machine, new: int) -> None:
    assert answer(target, "prlimit64", 0, 7, new) == Verdict.DENY


@given(machines, st.integers(0, 2**32 - 1))
def test_signals_go_to_oneself_alone(target: Machine, pid: int) -> None:
    assert (answer(target, "tgkill", pid, 1, 9) == Verdict.ALLOW) == (pid == PID)


@given(machines, st.integers(0, 2**32 - 1))
def test_of_commands_to_descriptors_few_are_allowed(target: Machine, command: int) -> None:
    set_owner, set_signal = 8, 10

    assert answer(target, "fcntl", 0, set_owner) == answer(target, "fcntl", 0, set_signal) == Verdict.DENY
    if command not in seccomp._FCNTLS:
        assert answer(target, "fcntl", 0, command) == Verdict.DENY
    if command not in seccomp._IOCTLS:
        assert answer(target, "ioctl", 0, command) == Verdict.DENY


@pytest.mark.parametrize("target", [X86, ARM], ids=["x86_64", "aarch64"])
def test_calls_of_the_future_are_absent_so_that_libraries_fall_back(target: Machine) -> None:
    assert run(worker(target), target, 9_999) == Verdict.ABSENT
    assert {answer(target, name) for name in ABSENT} == {Verdict.ABSENT}


@given(machines, st.integers(0, 2**31 - 1), words, st.booleans())
def test_two_programs_together_allow_no_more_than_the_one(
    target: Machine, number: int, argument: int, threads: bool
) -> None:
    """The kernel takes the sterner answer; a call that waits for the node is not done."""
    programs = seccomp.programs(target)
    alone = run(programs.alone[threads], target, number, [argument])
    beside = run(programs.beside_reporting[threads], target, number, [argument])
    reporting = run(programs.reporting, target, number, [argument])

    if alone == Verdict.KILL and Verdict.KILL not in (beside, reporting):
        assert (beside, reporting) == (Verdict.ALLOW, Verdict.REPORT)
    else:
        assert alone == beside


@given(machines, words, words, st.integers(0, 5), st.booleans(), st.booleans())
def test_a_test_of_an_argument_says_what_it_is_read_as(
    target: Machine, value: int, equals: int, argument: int, is_equal: bool, is_wide: bool
) -> None:
    is_equal = is_equal or is_wide
    mask = 2**64 - 1 if is_wide else 0xFF
    rule = Rule("read", Verdict.ALLOW, [If(argument, equals & mask, mask, is_equal, is_wide)])
    arguments = [0] * argument + [value]

    verdict = run(seccomp.assemble([rule], target), target, target.numbers["read"], arguments)

    assert (verdict == Verdict.ALLOW) == ((value & mask == equals & mask) == is_equal)


@pytest.mark.parametrize("target", [X86, ARM], ids=["x86_64", "aarch64"])
def test_the_kernel_would_take_the_programs(target: Machine) -> None:
    """At most 4096 instructions, and every jump lands inside."""
    programs = seccomp.programs(target)
    for program in (programs.reporting, *programs.alone.values(), *programs.beside_reporting.values()):
        assert 0 < program.instructions <= 4096
        for at in range(program.instructions):
            operation, if_true, if_false, _ = struct.unpack_from("HBBI", program.code, at * 8)
            assert operation == 0x06 or at + 1 + max(if_true, if_false) < program.instructions


@pytest.mark.parametrize("target", [X86, ARM], ids=["x86_64", "aarch64"])
def test_the_lists_do_not_contradict_each_other(target: Machine) -> None:
    assert not set(ALLOW) & set(KILL)
    assert not set(ABSENT) & (set(ALLOW) | set(KILL))
    assert len(set(target.numbers.values())) == len(target.numbers)
    assert {"read", "write", "openat", "mmap", "futex", "execve", "ptrace", "seccomp"} <= set(target.numbers)


YOUNGER = {
    "access": "faccessat", "dup2": "dup3", "epoll_create": "epoll_create1", "epoll_wait": "epoll_pwait",
    "getdents": "getdents64", "getpgrp": "getpgid", "lstat": "newfstatat", "mkdir": "mkdirat", "open": "openat",
    "pipe": "pipe2", "poll": "ppoll", "readlink": "readlinkat", "rename": "renameat", "rmdir": "unlinkat",
    "select": "pselect6", "stat": "newfstatat", "time": "clock_gettime", "unlink": "unlinkat",
}  # fmt: skip
"""Calls that aarch64 does not have, and what the C library makes there instead, with zeros for what is not said."""


def test_what_stands_for_an_old_call_is_allowed_where_there_are_no_old_ones() -> None:
    assert {name for name in ALLOW if name not in ARM.numbers} == set(YOUNGER)
    assert {answer(ARM, younger) for younger in YOUNGER.values()} == {Verdict.ALLOW}
    assert answer(ARM, "getpgid", PID) == answer(X86, "getpgid", PID) == Verdict.DENY


HEADERS = [
    (machine, path)
    for machine, names in (
        (X86, ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"]),
        (ARM, ["/usr/include/asm-generic/unistd.h"]),
    )
    for path in names
    if Path(path).exists()
]


@pytest.mark.parametrize(("target", "path"), HEADERS)
def test_numbers_are_those_of_the_kernels_headers(target: Machine, path: str) -> None:
    known: dict[str, int] = {}
    for line in Path(path).read_text().splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[1].startswith("__NR") and parts[2].isdigit():
            known[parts[1].removeprefix("__NR3264_").removeprefix("__NR_")] = int(parts[2])
    known.setdefault("newfstatat", known.get("fstatat", 0))

    assert {name: known.get(name) for name in target.numbers} == dict(target.numbers)
