"""What a hostile extension tries against the operating system: one function an attack, by name.

The file is code of an extension: it imports the standard library alone, is copied into a code folder, and runs inside a
worker. `attempt(name, target)` answers `leaked` with what was got, `stopped` with what stopped it, or `absent` when the
machine has not what the attack needs. An attack that ends its process never answers; whoever asked sees that.
Nothing here is worse than what it shows: files, sockets and processes are the test's own, and what changes is restored.
"""

# Each call is to be the system call that it looks like.
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208, PTH211, SIM115
from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MIB = 1_048_576
Target = Mapping[str, Any]
"""`secret`, `sibling`, `code_dir`, `data_dir`, `library`: paths; `node_pid`, `victim_pid`; `unix_path`, `abstract`,
`tcp_port`, `udp_port`; `secret_reversed`: what only the node knows, written backwards; `memory_bytes`, `data_bytes`,
`temp_bytes`: what is allowed; `watched_s`: when whoever looks after the data folder must have looked.
"""
_ABSENT = {
    errno.ENOSYS, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP,
    errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT,
}  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_X86 = platform.machine() == "x86_64"
_NUMBERS = {  # x86_64, aarch64
    "add_key": (248, 217), "bpf": (321, 280), "clone": (56, 220), "clone3": (435, 435), "fanotify_init": (300, 262),
    "finit_module": (313, 273), "io_uring_enter": (426, 426), "io_uring_setup": (425, 425), "keyctl": (250, 219),
    "kcmp": (312, 272), "memfd_create": (319, 279), "mount_setattr": (442, 442), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "openat2": (437, 437),
    "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pivot_root": (155, 41), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "rt_tgsigqueueinfo": (297, 240), "semget": (64, 190),
    "setns": (308, 268), "shmget": (29, 194), "shmctl": (31, 195), "syslog": (103, 116), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vmsplice": (278, 75),
}  # fmt: skip


class Attack(NamedTuple):
    """`case` is the number in the list of hostile cases; `needs_root`: without a sandbox only root could do it.
    `escape`: the system call that ends the worker as one that tries to escape; `?`: one that has no name here. What
    leaves it empty is refused, and the worker goes on, or it ends by a limit.
    """

    case: int
    run: Callable[[Target], object]
    needs_root: bool = False
    escape: str = ""


class Stopped(Exception):
    """What was tried had no effect."""


class Broken(Exception):
    """The attack itself does not work, so it shows nothing."""


def attempt(name: str, target: Target) -> tuple[str, str]:
    """Try one attack. Returns: `leaked`, `stopped`, `absent` or `broken`, and how."""
    try:
        got = (ATTACKS.get(name) or INHERITED[name]).run(target)
    except OSError as error:
        kind = "absent" if error.errno in _ABSENT else "stopped"
        return kind, f"{errno.errorcode.get(error.errno or 0, '?')} {error}"
    except (MemoryError, RuntimeError, Stopped, ValueError, KeyError) as error:
        return "stopped", f"{type(error).__name__} {error}"
    except Broken as error:
        return "broken", str(error)
    return "leaked", repr(got)[:200]


def call(name: str, *arguments: Any) -> int:
    """A system call by name. Raises: OSError."""
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc.syscall(ctypes.c_long(_NUMBERS[name][0 if _X86 else 1]), *wide))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def c(name: str, *arguments: Any) -> int:
    """A function of the C library. Raises: OSError."""
    result = int(getattr(_libc, name)(*arguments))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# ---------------------------------------------------------------- files (cases 1 to 7)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(64)


def read_through_openat2(target: Target) -> bytes:
    """A younger way to open."""
    how = struct.pack("QQQ", os.O_RDONLY, 0, 0)
    return os.read(call("openat2", -100, target["secret"].encode(), how, len(how)), 64)


def read_by_handle(target: Target) -> bytes:
    """A file by its handle, without its path."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    call("name_to_handle_at", -100, target["secret"].encode(), handle, ctypes.byref(mount), 0)
    root = os.open("/", os.O_RDONLY)
    return os.read(call("open_by_handle_at", root, handle, os.O_RDONLY), 64)


def through_symlink(target: Target) -> bytes:
    link = os.path.join(target["data_dir"], "link")
    os.symlink(target["secret"], link)
    return _read(link)


def through_hard_link(target: Target) -> bytes:
    link = os.path.join(target["data_dir"], "hard")
    os.link(target["secret"], link)
    return _read(link)


def _write(path: str) -> str:
    with open(path, "ab") as file:
        file.write(b"x")
    return "written"


def plant_library(target: Target) -> str:
    """Code that every later worker would import."""
    path = os.path.join(target["library"], "planted_by_an_extension.py")
    with open(path, "w") as file:
        file.write("")
    os.unlink(path)
    return "planted"


def empty_code(target: Target) -> str:
    """Opening for reading empties the file when it is asked to."""
    os.close(os.open(os.path.join(target["code_dir"], "prey.py"), os.O_RDONLY | os.O_TRUNC))
    return "emptied"


def truncate_sibling(target: Target) -> str:
    os.truncate(target["sibling"], 0)
    return "emptied"


def change_mode(target: Target) -> str:
    os.chmod(target["secret"], 0o644)
    return "changed"


def change_times(target: Target) -> str:
    os.utime(target["secret"], (1, 1))
    return "changed"


def look_at_metadata(target: Target) -> int:
    return os.stat(target["secret"]).st_size


def remove_sibling(target: Target) -> str:
    os.rename(target["sibling"], target["sibling"] + ".gone")
    os.rename(target["sibling"] + ".gone", target["sibling"])
    return "moved"


def list_node_folder(target: Target) -> list[str]:
    return os.listdir(os.path.dirname(target["secret"]))


def list_processes(target: Target) -> str:
    if str(target["node_pid"]) not in os.listdir("/proc"):
        raise Stopped("not in the list")
    return "seen"


def read_environment_of_node(target: Target) -> bytes:
    return _read(f"/proc/{target['node_pid']}/environ")


def read_memory_of_node(target: Target) -> bytes:
    with open(f"/proc/{target['node_pid']}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{target['node_pid']}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(16)


def make_fifo(target: Target) -> str:
    os.mkfifo(os.path.join(target["data_dir"], "fifo"))
    return "made"


def make_device(target: Target) -> str:
    os.mknod(os.path.join(target["data_dir"], "device"), 0o600 | 0o020000, os.makedev(1, 3))
    return "made"


def read_kernel_log(_target: Target) -> int:
    return call("syslog", 3, ctypes.create_string_buffer(64), 64)


# ---------------------------------------------------------------- processes (cases 8, 9)


def trace_node(target: Target) -> str:
    """PTRACE_SEIZE, which stops nobody."""
    call("ptrace", 0x4206, target["victim_pid"], 0, 0)
    return "traced"


def _iovec() -> tuple[Any, Any]:
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("PP", ctypes.addressof(buffer), 8)
    return ctypes.create_string_buffer(vector, 16), buffer


def _address_in(pid: int) -> int:
    """An address that is mapped in a process of the same program: our own, or what its list says."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            if " rw-p " in line:
                return int(line.split("-")[0], 16)
    return id(None)


def read_other_memory(target: Target) -> int:
    ours, _ = _iovec()
    theirs = ctypes.create_string_buffer(struct.pack("PP", _address_in(target["victim_pid"]), 8), 16)
    return call("process_vm_readv", target["victim_pid"], ours, 1, theirs, 1, 0)


def write_other_memory(target: Target) -> int:
    ours, _ = _iovec()
    theirs = ctypes.create_string_buffer(struct.pack("PP", _address_in(target["victim_pid"]), 8), 16)
    call("process_vm_readv", target["victim_pid"], ours, 1, theirs, 1, 0)
    return call("process_vm_writev", target["victim_pid"], ours, 1, theirs, 1, 0)


def steal_descriptor(target: Target) -> int:
    return call("pidfd_getfd", call("pidfd_open", target["victim_pid"], 0), 0, 0)


def compare_with_node(target: Target) -> int:
    return call("kcmp", os.getpid(), target["victim_pid"], 3, 0, 0)


def signal_node(target: Target) -> str:
    os.kill(target["victim_pid"], signal.SIGCONT)
    return "sent"


def signal_by_pidfd(target: Target) -> str:
    call("pidfd_send_signal", call("pidfd_open", target["victim_pid"], 0), signal.SIGCONT, None, 0)
    return "sent"


def signal_thread_of_node(target: Target) -> str:
    information = ctypes.create_string_buffer(struct.pack("iii", signal.SIGCONT, 0, -1), 128)
    call("rt_tgsigqueueinfo", target["victim_pid"], target["victim_pid"], signal.SIGCONT, information)
    return "sent"


def signal_as_owner(target: Target) -> str:
    """Have the kernel send a signal when a descriptor becomes readable."""
    import fcntl

    ours, theirs = socket.socketpair()
    fcntl.fcntl(ours, fcntl.F_SETOWN, target["victim_pid"])
    fcntl.fcntl(ours, 10, signal.SIGCONT)  # F_SETSIG
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
    theirs.send(b"x")
    return "sent"


def limit_node(target: Target) -> str:
    resource.prlimit(target["victim_pid"], resource.RLIMIT_CORE, (0, 0))
    return "limited"


# ---------------------------------------------------------------- what was inherited (case 10)


def use_descriptors(target: Target) -> list[int]:
    """Anything open but the null device and the one socket."""
    found = []
    for number in range(256):
        with contextlib.suppress(OSError):
            if os.fstat(number).st_rdev != os.makedev(1, 3):
                found.append(number)
    if len(found) == 1:  # the socket
        raise Stopped(f"only {found}")
    return found


def read_environment(target: Target) -> str:
    block = ctypes.POINTER(ctypes.c_char_p).in_dll(_libc, "environ")
    texts = [name.encode() for name in os.environ]
    at = 0
    while block and (text := block[at]):
        texts.append(text)
        at += 1
    if not any(text.startswith(b"MAG_HOSTILE_SECRET") for text in texts):
        raise Stopped("not there")
    return "found"


def search_own_memory(target: Target) -> str:
    """All memory near objects, the heap and the stack, found without a map of it: the kernel says what is mapped. What
    is sought is never spelled as a whole here, or the search would find itself.
    """
    backwards = target["secret_reversed"].encode()
    wanted = backwards[8:][::-1], backwards[:8][::-1]
    planted = os.urandom(16).hex().encode()
    reading, writing = os.pipe()
    bases = {id(one) & ~4095 for one in (object(), planted, os, sys.modules, _libc, attempt)}
    bases.add(ctypes.addressof(ctypes.create_string_buffer(64)) & ~4095)
    found_planted, seen = False, set()
    for base, step in ((base, step) for base in bases for step in (4096, -4096)):
        at, near = base, b""
        while (
            abs(at - base) < 64 * MIB
            and (at == base or at not in seen)
            and _libc.write(writing, ctypes.c_void_p(at), 4096) == 4096
        ):
            seen.add(at)
            page = os.read(reading, 4096)
            text = near + page if step > 0 else page + near  # it may lie across the border of two pages
            if _holds(text, *wanted):
                return "found"
            found_planted = found_planted or _holds(text, planted[:16], planted[16:])
            at, near = at + step, page
    if not found_planted:
        raise Broken("the search does not even find what is there")
    raise Stopped(f"not in {len(seen)} pages")


def _holds(text: bytes, first: bytes, second: bytes) -> bool:
    at = text.find(first)
    while at >= 0 and not text.startswith(second, at + len(first)):
        at = text.find(first, at + 1)
    return at >= 0


# ---------------------------------------------------------------- networks (cases 11 to 14)


def connect_unix(target: Target) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(target["unix_path"])
    return "connected"


def connect_abstract(target: Target) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + target["abstract"])
    return "connected"


def connect_tcp(target: Target) -> str:
    with socket.create_connection(("127.0.0.1", target["tcp_port"]), timeout=2):
        return "connected"


def send_udp(target: Target) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return sender.sendto(b"secret", ("127.0.0.1", target["udp_port"]))


def listen_tcp(_target: Target) -> str:
    """Reachable only if somebody else can reach it, which takes an interface that is up."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=2):
            return "listening"


def talk_to_routes(_target: Target) -> str:
    """Ask for the network interfaces."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        netlink.send(struct.pack("IHHIIB3x", 20, 18, 0x301, 1, 0, 0))
        return f"{len(netlink.recv(65_536))} bytes"


def open_vsock(_target: Target) -> str:
    socket.socket(40, socket.SOCK_STREAM).close()
    return "opened"


def open_packets(_target: Target) -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    return "opened"


def open_raw(_target: Target) -> str:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "opened"


def open_alg(_target: Target) -> str:
    """The kernel's cryptography, which has had holes."""
    socket.socket(38, socket.SOCK_SEQPACKET, 0).close()
    return "opened"


def pass_descriptor(_target: Target) -> str:
    """Descriptors that wait in a socket are counted by no limit of the process."""
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [0])
    socket.recv_fds(theirs, 1, 1)
    return "passed"


# ---------------------------------------------------------------- bombs (cases 16 to 20)


def _reap(pid: int) -> str:
    if pid == 0:
        _libc._exit(0)
    with contextlib.suppress(OSError):  # whether one may wait for it is not the question
        os.waitpid(pid, 0)
    return "forked"


def fork(_target: Target) -> str:
    return _reap(os.fork())


def fork_by_clone(_target: Target) -> str:
    return _reap(call("clone", signal.SIGCHLD, 0, 0, 0, 0))


def fork_by_clone3(_target: Target) -> str:
    arguments = struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    return _reap(call("clone3", arguments, len(arguments)))


def spawn_program(_target: Target) -> str:
    subprocess.run(["/bin/true"], check=True)
    return "ran"


def threads(_target: Target) -> str:
    """300 threads at once, with the least stack that aarch64 lets them have."""
    threading.stack_size(131_072)
    stop = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(300):
            thread = threading.Thread(target=stop.wait)
            thread.start()
            started.append(thread)
    finally:
        stop.set()
        for thread in started:
            thread.join()
    return f"{len(started)} threads"


def memory(target: Target) -> str:
    hoard = bytearray(target["memory_bytes"] + 128 * MIB)
    hoard[:: mmap.PAGESIZE] = b"x" * len(hoard[:: mmap.PAGESIZE])
    return f"{len(hoard)} bytes"


def shared_memory(target: Target) -> str:
    size = target["memory_bytes"] + 128 * MIB
    with mmap.mmap(-1, size) as shared:
        for at in range(0, size, mmap.PAGESIZE):
            shared[at] = 1
    return f"{size} bytes"


def memory_file(_target: Target) -> str:
    descriptor = call("memfd_create", b"x", 0)
    os.ftruncate(descriptor, MIB)
    return "made"


def many_descriptors(_target: Target) -> str:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(600)]
    for descriptor in held:
        os.close(descriptor)
    return f"{len(held)} open"


def large_file(target: Target) -> str:
    """At once: whoever looks after the folder would end what takes longer."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open(os.path.join(target["data_dir"], "large"), "wb") as file:
        file.seek(target["data_bytes"] + 16 * MIB)
        file.write(b"x")
    return f"{target['data_bytes'] + 16 * MIB} bytes"


def many_files(target: Target) -> str:
    """Each file is small enough; together they are four times what is allowed, and they stay a while."""
    for number in range(4 * target["data_bytes"] // MIB):
        with open(os.path.join(target["data_dir"], f"part{number}"), "wb") as file:
            file.write(bytes(MIB))
    _stay(target)
    return f"{4 * target['data_bytes']} bytes"


def nameless_files(target: Target) -> str:
    """Files that are open and in no folder."""
    held = []
    for number in range(4 * target["data_bytes"] // MIB):
        path = os.path.join(target["data_dir"], f"part{number}")
        held.append(open(path, "wb", buffering=0))
        held[-1].write(bytes(MIB))
        os.unlink(path)
    _stay(target)
    return f"{4 * target['data_bytes']} bytes"


def hidden_files(target: Target) -> str:
    """In a folder that nobody may list."""
    folder = os.path.join(target["data_dir"], "closed")
    os.mkdir(folder, 0o300)
    for number in range(4 * target["data_bytes"] // MIB):
        with open(os.path.join(folder, f"part{number}"), "wb") as file:
            file.write(bytes(MIB))
    _stay(target)
    return f"{4 * target['data_bytes']} bytes"


def _stay(target: Target) -> None:
    """Be busy until whoever watches has had time to look."""
    end = time.monotonic() + target["watched_s"]
    while time.monotonic() < end:
        sum(range(10_000))


def fill_temp(target: Target) -> str:
    """Twice what is allowed, where temporary files go."""
    made: list[str] = []
    try:
        for number in range(2 * target["temp_bytes"] // MIB):
            made.append(os.path.join(tempfile.gettempdir(), f"mag-hostile-{os.getpid()}-{number}"))
            with open(made[-1], "wb") as file:
                file.write(bytes(MIB))
        _stay(target)
    finally:
        for path in made:
            os.unlink(path)
    return f"{2 * target['temp_bytes']} bytes"


def reserve_disk(target: Target) -> str:
    with open(os.path.join(target["data_dir"], "reserved"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, MIB)
        if os.fstat(file.fileno()).st_blocks * 512 < MIB:
            raise Stopped("nothing was reserved")
    return "reserved"


def raise_priority(_target: Target) -> int:
    return os.nice(-5)


def become_real_time(_target: Target) -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "real time"


# ---------------------------------------------------------------- programs and privileges (cases 21, 22, 24)


def run_program(_target: Target) -> None:
    """What it becomes ends with status 0, without an answer."""
    os.execv("/bin/true", ["true"])


def run_memory_file(_target: Target) -> None:
    """A program that is in no folder."""
    descriptor = call("memfd_create", b"x", 0)
    with open("/bin/true", "rb") as program:
        os.write(descriptor, program.read())
    os.execve(descriptor, ["true"], {})


def new_user_namespace(_target: Target) -> str:
    call("unshare", 0x10000000)
    return "entered"


def clone_into_user_namespace(_target: Target) -> str:
    return _reap(call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0))


def enter_namespace_of_node(target: Target) -> int:
    return call("setns", call("pidfd_open", target["victim_pid"], 0), 0x4000000)


def mount_over(target: Target) -> str:
    folder = os.path.join(target["data_dir"], "mounted")
    os.mkdir(folder)
    c("mount", b"none", folder.encode(), b"tmpfs", ctypes.c_ulong(0), None)
    c("umount2", folder.encode(), 2)
    return "mounted"


def make_writable_again(target: Target) -> str:
    """Remount one's own code for writing."""
    folder = target["code_dir"].encode()
    try:
        c("mount", None, folder, None, ctypes.c_ulong(32 | 4096), None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        c("mount", folder, folder, None, ctypes.c_ulong(4096), None)  # it is no mount of its own: make it one
        c("umount2", folder, 2)
    return "mounted"


def change_root(_target: Target) -> str:
    c("chroot", b"/")
    return "changed"


def become_root(_target: Target) -> str:
    os.setuid(0)
    return f"uid {os.getuid()}"


def change_groups(_target: Target) -> str:
    os.setgroups([0, 4])
    return "changed"


def call_as_32_bits(_target: Target) -> str:
    """getpid by the calls of another architecture, which other numbers mean other things in."""
    if not _X86:
        raise OSError(errno.ENOSYS, "of x86_64 alone")
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return f"pid {ctypes.CFUNCTYPE(ctypes.c_int)(start)()}"


def call_as_x32(_target: Target) -> str:
    """getpid by the x32 convention; a kernel without it says so, to those who may ask."""
    if not _X86:
        raise OSError(errno.ENOSYS, "of x86_64 alone")
    result = _libc.syscall(ctypes.c_long(0x40000000 | 39))
    return f"the kernel answered {result}"


def raise_limits(_target: Target) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft - 1, 1), hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return "changed"


def change_personality(_target: Target) -> str:
    call("personality", 0x0040000)
    return "changed"


def change_host_name(_target: Target) -> str:
    socket.sethostname(socket.gethostname())
    return "changed"


# ---------------------------------------------------------------- the kernel's own machinery (case 23)


def make_ring(_target: Target) -> int:
    return call("io_uring_setup", 8, ctypes.create_string_buffer(120))


def enter_ring(_target: Target) -> int:
    """A ring that is not there: a kernel that looks says EBADF, which is an answer."""
    try:
        return call("io_uring_enter", 0, 0, 0, 0, None, 0)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EBADF):
            return 0
        raise


def load_bpf(_target: Target) -> int:
    """A map is the least that can be asked for; without the right to it, the kernel has looked all the same."""
    return call("bpf", 0, struct.pack("IIIII", 2, 4, 4, 1, 0).ljust(128, b"\0"), 128)


def handle_page_faults(_target: Target) -> int:
    return call("userfaultfd", 1)


def count_events(_target: Target) -> int:
    attributes = struct.pack("IIQ", 1, 112, 0).ljust(112, b"\0")
    attributes = attributes[:40] + struct.pack("Q", 0b1100000) + attributes[48:]
    return call("perf_event_open", attributes, 0, -1, -1, 0)


def use_keyring(_target: Target) -> int:
    return call("add_key", b"user", b"mag-hostile", b"x", 1, -2)


def search_keyring(_target: Target) -> int:
    return call("keyctl", 0, -3, 0)


def share_memory_by_key(_target: Target) -> int:
    segment = call("shmget", 0, 4096, 0o1600)
    call("shmctl", segment, 0, None)
    return segment


def make_queue(target: Target) -> str:
    name = f"mag-hostile-{target['node_pid']}".encode()
    queue = call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, None)
    os.close(queue)
    _libc.syscall(ctypes.c_long(241 if _X86 else 181), name)
    return "made"


def watch_files(_target: Target) -> int:
    return call("fanotify_init", 0, 0)


def load_module(_target: Target) -> str:
    """A module that is none: who may ask hears ENOEXEC."""
    try:
        call("finit_module", 0, b"", 0)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise
    return "asked"


def splice_memory(_target: Target) -> int:
    _reading, writing = os.pipe()
    vector, _buffer = _iovec()
    return call("vmsplice", writing, vector, 1, 0)


ATTACKS: Mapping[str, Attack] = {
    "read_secret": Attack(1, lambda target: _read(target["secret"])),
    "read_through_openat2": Attack(1, read_through_openat2),
    "read_by_handle": Attack(1, read_by_handle, needs_root=True),
    "list_node_folder": Attack(1, list_node_folder),
    "traverse": Attack(2, lambda target: _read(f"{target['data_dir']}/../node/{os.path.basename(target['secret'])}")),
    "through_root_of_self": Attack(2, lambda target: _read("/proc/self/root" + target["secret"])),
    "through_symlink": Attack(3, through_symlink),
    "through_hard_link": Attack(3, through_hard_link),
    "read_sibling": Attack(4, lambda target: _read(target["sibling"])),
    "write_sibling": Attack(4, lambda target: _write(target["sibling"])),
    "remove_sibling": Attack(4, remove_sibling),
    "truncate_sibling": Attack(4, truncate_sibling),
    "write_own_code": Attack(5, lambda target: _write(os.path.join(target["code_dir"], "prey.py"))),
    "empty_own_code": Attack(5, empty_code),
    "plant_library": Attack(5, plant_library, needs_root=True),
    "change_mode": Attack(6, change_mode),
    "change_times": Attack(6, change_times),
    "look_at_metadata": Attack(6, look_at_metadata),
    "list_processes": Attack(7, list_processes),
    "read_environment_of_node": Attack(7, read_environment_of_node),
    "read_memory_of_node": Attack(7, read_memory_of_node),
    "read_kernel_log": Attack(7, read_kernel_log, needs_root=True),
    "trace_node": Attack(8, trace_node, escape="ptrace"),
    "read_other_memory": Attack(8, read_other_memory, escape="process_vm_readv"),
    "write_other_memory": Attack(8, write_other_memory, escape="process_vm_readv"),
    "steal_descriptor": Attack(8, steal_descriptor),
    "compare_with_node": Attack(8, compare_with_node),
    "signal_node": Attack(9, signal_node),
    "signal_by_pidfd": Attack(9, signal_by_pidfd),
    "signal_thread_of_node": Attack(9, signal_thread_of_node),
    "signal_as_owner": Attack(9, signal_as_owner),
    "limit_node": Attack(9, limit_node),
    "connect_unix": Attack(11, connect_unix),
    "connect_abstract": Attack(12, connect_abstract),
    "connect_tcp": Attack(12, connect_tcp),
    "send_udp": Attack(14, send_udp),
    "listen_tcp": Attack(14, listen_tcp),
    "talk_to_routes": Attack(14, talk_to_routes),
    "open_vsock": Attack(14, open_vsock),
    "open_packets": Attack(14, open_packets, needs_root=True),
    "open_raw": Attack(14, open_raw, needs_root=True),
    "open_alg": Attack(14, open_alg),
    "pass_descriptor": Attack(20, pass_descriptor),
    "fork": Attack(16, fork),
    "fork_by_clone": Attack(16, fork_by_clone),
    "fork_by_clone3": Attack(16, fork_by_clone3),
    "spawn_program": Attack(16, spawn_program),
    "threads": Attack(17, threads),
    "memory": Attack(18, memory),
    "shared_memory": Attack(18, shared_memory),
    "memory_file": Attack(18, memory_file),
    "raise_priority": Attack(19, raise_priority, needs_root=True),
    "become_real_time": Attack(19, become_real_time, needs_root=True),
    "large_file": Attack(20, large_file),
    "many_files": Attack(20, many_files),
    "nameless_files": Attack(20, nameless_files),
    "hidden_files": Attack(20, hidden_files),
    "fill_temp": Attack(20, fill_temp),
    "reserve_disk": Attack(20, reserve_disk),
    "many_descriptors": Attack(20, many_descriptors),
    "make_fifo": Attack(20, make_fifo, escape="mknodat"),
    "make_device": Attack(22, make_device, needs_root=True, escape="mknodat"),
    "run_program": Attack(21, run_program, escape="execve"),
    "run_memory_file": Attack(21, run_memory_file),
    "new_user_namespace": Attack(22, new_user_namespace, escape="unshare"),
    "clone_into_user_namespace": Attack(22, clone_into_user_namespace, escape="clone"),
    "enter_namespace_of_node": Attack(22, enter_namespace_of_node, needs_root=True),
    "mount_over": Attack(22, mount_over, needs_root=True, escape="mount"),
    "make_writable_again": Attack(22, make_writable_again, needs_root=True, escape="mount"),
    "change_root": Attack(22, change_root, needs_root=True, escape="chroot"),
    "become_root": Attack(22, become_root, needs_root=True, escape="setuid"),
    "change_groups": Attack(22, change_groups, needs_root=True, escape="setgroups"),
    "call_as_32_bits": Attack(22, call_as_32_bits, escape="?" if _X86 else ""),
    "call_as_x32": Attack(22, call_as_x32, escape="?" if _X86 else ""),
    "change_personality": Attack(22, change_personality, escape="personality"),
    "change_host_name": Attack(22, change_host_name, needs_root=True, escape="sethostname"),
    "raise_limits": Attack(24, raise_limits),
    "make_ring": Attack(23, make_ring),
    "enter_ring": Attack(23, enter_ring, escape="io_uring_enter"),
    "load_bpf": Attack(23, load_bpf, needs_root=True, escape="bpf"),
    "handle_page_faults": Attack(23, handle_page_faults, escape="userfaultfd"),
    "count_events": Attack(23, count_events, escape="perf_event_open"),
    "use_keyring": Attack(23, use_keyring, escape="add_key"),
    "search_keyring": Attack(23, search_keyring, escape="keyctl"),
    "share_memory_by_key": Attack(23, share_memory_by_key),
    "make_queue": Attack(23, make_queue),
    "watch_files": Attack(23, watch_files, needs_root=True, escape="fanotify_init"),
    "load_module": Attack(23, load_module, needs_root=True, escape="finit_module"),
    "splice_memory": Attack(23, splice_memory),
}
INHERITED: Mapping[str, Attack] = {
    "use_descriptors": Attack(10, use_descriptors),
    "read_environment": Attack(10, read_environment),
    "search_own_memory": Attack(10, search_own_memory),
}
"""Stopped by how the zygote comes to be, which is no layer that could be left out."""
