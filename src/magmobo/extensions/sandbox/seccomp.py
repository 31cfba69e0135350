"""The filter of system calls: rules, their program in BPF, and putting it on.

Rules are data and programs are bytes, so that tests read both without a kernel. Invariant: what no rule names fails
with EPERM, or with ENOSYS when it is newer than our tables (the C library then falls back); a call of another
architecture's convention ends the process. Source: the kernel's Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import fcntl
import platform
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from msgspec import Struct

from magmobo.extensions.sandbox import libc
from magmobo.extensions.sandbox.syscalls import ABSENT, ALLOW, KILL, MACHINES, Machine

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_NEWEST_KNOWN = 450
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_GET_SECCOMP, _FILTERED = 21, 2
_RECEIVE, _NOTICE_BYTES, _NOTICE_CALL_AT = 0xC0502100, 80, 16

_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020000
_OPEN_WAYS, _TRUNCATE = 0o1003, 0o1000
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)
"""F_DUPFD to F_SETLKW, OFD locks, F_DUPFD_CLOEXEC. F_SETOWN is not one: it sends signals to others."""
_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_PRCTLS = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA."""
_AF_UNIX = 1
_WORD_BYTES = 8
ANY_PID = 0x7E57ABCD
"""Stands for the process that a program is put on, which is not known when the program is made."""


class Verdict(IntEnum):
    """What becomes of a call."""

    KILL = 0x80000000
    REPORT = 0x7FC00000
    """The call waits for whoever listens, who ends the process."""
    DENY = 0x00050000 | errno.EPERM
    ABSENT = 0x00050000 | errno.ENOSYS
    ALLOW = 0x7FFF0000


class If(Struct, frozen=True):
    """A test of one argument: `value & mask == equals` with `is_equal`, the opposite without. Numbers of 64 bits;
    `is_wide` looks at all of them, otherwise at the lower half, as the kernel does for an int.
    """

    argument: int
    equals: int
    mask: int = 0xFFFFFFFF
    is_equal: bool = True
    is_wide: bool = False


class Rule(Struct, frozen=True):
    """What becomes of a call when all tests hold. Rules of one call count in their order."""

    call: str
    verdict: Verdict
    tests: Sequence[If] = ()


class Program(Struct, frozen=True):
    """Instructions as the kernel takes them, of `_WORD_BYTES` each."""

    code: bytes

    @property
    def instructions(self) -> int:
        """How many there are."""
        return len(self.code) // _WORD_BYTES

    def of_process(self, pid: int) -> Program:
        """The same with `pid` in place of `ANY_PID`."""
        return Program(self.code.replace(struct.pack("I", ANY_PID), struct.pack("I", pid)))


def worker_rules(*, with_threads: bool, forbidden: Verdict = Verdict.KILL) -> Sequence[Rule]:
    """The rules of a worker, to which its own process is `ANY_PID`. `forbidden`: what becomes of calls that no honest
    worker makes.
    """
    rules = [Rule(name, Verdict.ALLOW) for name in ALLOW if name not in ("open", "openat")]
    # Opening for reading and emptying at once: Landlock says nothing to it before its third version.
    for name, argument in (("open", 1), ("openat", 2)):
        rules.append(Rule(name, Verdict.ALLOW, [If(argument, _TRUNCATE, _OPEN_WAYS, is_equal=False)]))
    rules += [Rule(name, Verdict.ABSENT) for name in ABSENT]
    rules += _forbidden(forbidden)
    if with_threads:
        rules.append(Rule("clone", Verdict.ALLOW, [If(0, _THREAD, _THREAD)]))
    rules += [Rule("fcntl", Verdict.ALLOW, [If(1, command)]) for command in _FCNTLS]
    rules += [Rule("ioctl", Verdict.ALLOW, [If(1, command)]) for command in _IOCTLS]
    rules += [Rule("prctl", Verdict.ALLOW, [If(0, option)]) for option in _PRCTLS]
    rules.append(Rule("prlimit64", Verdict.ALLOW, [If(0, 0), If(2, 0, 0xFFFFFFFFFFFFFFFF, is_wide=True)]))  # reading
    rules.append(Rule("getpgid", Verdict.ALLOW, [If(0, 0)]))  # getpgrp, on aarch64
    rules.append(Rule("socketpair", Verdict.ALLOW, [If(0, _AF_UNIX)]))
    rules.append(Rule("tgkill", Verdict.ALLOW, [If(0, ANY_PID)]))
    return rules


class Programs(Struct, frozen=True):
    """The programs of workers: what to do with forbidden calls is said by `reporting`, beside which the one of
    `beside_reporting` is put, or by `alone`; both by whether there may be threads.
    """

    reporting: Program
    beside_reporting: Mapping[bool, Program]
    alone: Mapping[bool, Program]


def programs(target: Machine) -> Programs:
    """Every program that a worker could need, made once."""

    def both(forbidden: Verdict) -> Mapping[bool, Program]:
        return {
            threads: assemble(worker_rules(with_threads=threads, forbidden=forbidden), target)
            for threads in (False, True)
        }

    reporting = assemble(reporting_rules(), target, Verdict.ALLOW)
    return Programs(reporting, both(Verdict.ALLOW), both(Verdict.KILL))


def reporting_rules() -> Sequence[Rule]:
    """Rules of a program of its own that has forbidden calls wait for whoever listens; of `worker_rules` they must then
    be allowed, because the sterner of two programs counts.
    """
    return _forbidden(Verdict.REPORT)


def _forbidden(verdict: Verdict) -> list[Rule]:
    """Of calls that no honest worker makes."""
    namespaces = If(0, 0, _NEW_NAMESPACES, is_equal=False)
    return [*(Rule(name, verdict) for name in KILL), Rule("clone", verdict, [namespaces])]


def machine() -> Machine | None:
    """The architecture we run on; None: we have no table of its calls."""
    return MACHINES.get(platform.machine())


class _Word(NamedTuple):
    """One instruction. A jump that is None goes on to the next alternative of the same call."""

    code: int
    operand: int
    if_true: int | None = 0
    if_false: int | None = 0


def assemble(rules: Sequence[Rule], target: Machine, otherwise: Verdict = Verdict.DENY) -> Program:
    """The program of these rules. Names that the architecture does not have are left out."""
    words = [_Word(_LOAD, _MACHINE_AT), _Word(_EQUAL, target.audit, 1, 0), _Word(_RETURN, Verdict.KILL)]
    words.append(_Word(_LOAD, _NUMBER_AT))
    if target.foreign:
        words += [_Word(_AT_LEAST, target.foreign, 0, 1), _Word(_RETURN, Verdict.KILL)]
    by_call: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.call in target.numbers:
            by_call.setdefault(rule.call, []).append(rule)
    for name, alternatives in by_call.items():
        block = [word for rule in alternatives for word in _alternative(rule)]
        if alternatives[-1].tests:
            block.append(_Word(_RETURN, otherwise))
        words += [_Word(_EQUAL, target.numbers[name], 0, len(block)), *block]
    if otherwise is Verdict.DENY:
        words += [_Word(_AT_LEAST, _NEWEST_KNOWN, 0, 1), _Word(_RETURN, Verdict.ABSENT)]
    words.append(_Word(_RETURN, otherwise))
    code = b"".join(struct.pack("HBBI", word.code, word.if_true, word.if_false, word.operand) for word in words)
    return Program(code)


def _alternative(rule: Rule) -> list[_Word]:
    """One rule of a call. It returns or goes on behind itself; the word that it loads need not be the number then."""
    words = [word for test in rule.tests for word in _test(test)]
    words.append(_Word(_RETURN, rule.verdict))
    return [_aimed(word, len(words) - 1 - at) for at, word in enumerate(words)]


def _test(test: If) -> list[_Word]:
    words: list[_Word] = []
    for half in range(2 if test.is_wide else 1):
        mask, equals = (number >> 32 * half & 0xFFFFFFFF for number in (test.mask, test.equals))
        words.append(_Word(_LOAD, _ARGUMENTS_AT + 8 * test.argument + 4 * half))
        if mask != 0xFFFFFFFF:
            words.append(_Word(_AND, mask))
        words.append(_Word(_EQUAL, equals, 0, None) if test.is_equal else _Word(_EQUAL, equals, None, 0))
    return words


def _aimed(word: _Word, left: int) -> _Word:
    """The word with its open jump closed: over the words that are `left` of this alternative."""
    if word.if_true is None:
        return word._replace(if_true=left)
    return word._replace(if_false=left) if word.if_false is None else word


def is_filtered() -> bool:
    """Whether a program is on this process already: it is in a container, or a service that is confined."""
    return libc.prctl(_GET_SECCOMP) == _FILTERED


def install(program: Program, target: Machine) -> None:
    """Put a program on this process, which has one thread, for good. `no_new_privs` must be on, or the capability be
    there. Raises: OSError.
    """
    _set(program, target, 0)


def listen(program: Program, target: Machine) -> int:
    """As `install`. Returns: the descriptor by which `Verdict.REPORT` is heard. Raises: OSError."""
    return _set(program, target, _NEW_LISTENER)


def _set(program: Program, target: Machine, flags: int) -> int:
    loaded = struct.pack("HP", program.instructions, libc.address_of(program.code))
    return libc.syscall(target.numbers["seccomp"], _SET_MODE_FILTER, flags, loaded)


def heard(descriptor: int) -> str:
    """The call that waits at a listening descriptor, by its name. Raises: OSError when it does not wait any more."""
    notice = bytearray(_NOTICE_BYTES)
    fcntl.ioctl(descriptor, _RECEIVE, notice)
    (number,) = struct.unpack_from("=i", notice, _NOTICE_CALL_AT)
    here = machine()
    names = {known: name for name, known in here.numbers.items()} if here else {}
    return names.get(number, f"system call {number}")
