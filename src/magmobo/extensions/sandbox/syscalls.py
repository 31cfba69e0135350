"""System calls by name: their numbers on x86_64 and aarch64, and which of them a worker makes.

Data, no code that calls anything. What is in neither list fails with EPERM; what `ALLOW` and `KILL` do not say in
general, `seccomp.py` decides by the arguments. Invariant: a name that an architecture does not have is not in its
table. Source: the kernel's uapi headers `asm/unistd_64.h` and `asm-generic/unistd.h` (a test compares both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct


def _names(text: str) -> Sequence[str]:
    return tuple(text.split())


def _numbers(text: str) -> Mapping[str, int]:
    pairs = (pair.split("=") for pair in text.split())
    return {name: int(number) for name, number in pairs}


ALLOW = _names(
    # Bytes of descriptors.
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile copy_file_range close "
    "close_range dup dup2 dup3 pipe pipe2 flock fsync fdatasync ftruncate fadvise64 "
    # Waiting.
    "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 eventfd2 "
    "nanosleep clock_nanosleep restart_syscall "
    # Sockets that are there; without sendmsg no descriptor leaves or arrives.
    "sendto recvfrom shutdown getsockname getpeername getsockopt "
    # Memory.
    "mmap munmap mremap mprotect madvise msync brk membarrier "
    # Files; Landlock and the minimal root say which.
    "open openat stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents "
    "getdents64 getcwd mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 umask fstatfs "
    # Threads, signals to oneself.
    "futex set_robust_list get_robust_list rseq sched_yield sched_getaffinity getcpu rt_sigaction rt_sigprocmask "
    "rt_sigreturn sigaltstack exit exit_group "
    # Who and when.
    "getpid gettid getppid getpgrp getuid geteuid getgid getegid getresuid getresgid getgroups getrlimit getrusage "
    "times time gettimeofday clock_gettime clock_getres uname sysinfo getrandom "
)
"""What CPython, asyncio and uvloop need, whatever the arguments."""

ABSENT = _names("clone3 io_uring_setup")
"""What libraries try first and do without: the arguments of clone3 lie in memory, where no filter looks, and libuv asks
for a ring whatever its settings say.
"""

KILL = _names(
    # Other processes.
    "ptrace process_vm_readv process_vm_writev pidfd_getfd "
    # Other programs.
    "execve execveat personality modify_ldt "
    # Namespaces and mounts.
    "unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr "
    "open_by_handle_at quotactl quotactl_fd swapon swapoff acct sethostname setdomainname "
    # Other identities.
    "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset "
    # The kernel's own machinery.
    "bpf userfaultfd perf_event_open io_uring_enter io_uring_register fanotify_init keyctl add_key "
    "request_key init_module finit_module delete_module kexec_load kexec_file_load reboot iopl ioperm mknod mknodat "
)
"""What no honest handler ever asks for: the worker ends at once, and the node hears of an escape attempt."""


class Machine(Struct, frozen=True):
    """One architecture. `audit` is its number in seccomp's data; `foreign` are numbers from which on calls belong to
    another convention (x32), 0 where there is none.
    """

    name: str
    audit: int
    foreign: int
    numbers: Mapping[str, int]


_X86_64 = _numbers(
    "read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10 munmap=11 brk=12 "
    "rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 ioctl=16 pread64=17 pwrite64=18 readv=19 writev=20 access=21 "
    "pipe=22 select=23 sched_yield=24 mremap=25 msync=26 madvise=28 dup=32 dup2=33 nanosleep=35 getpid=39 sendfile=40 "
    "sendto=44 recvfrom=45 shutdown=48 getsockname=51 getpeername=52 socketpair=53 "
    "getsockopt=55 clone=56 execve=59 exit=60 uname=63 fcntl=72 flock=73 fsync=74 fdatasync=75 ftruncate=77 "
    "getdents=78 getcwd=79 rename=82 mkdir=83 rmdir=84 unlink=87 readlink=89 umask=95 gettimeofday=96 getrlimit=97 "
    "getrusage=98 sysinfo=99 times=100 ptrace=101 getuid=102 getgid=104 setuid=105 setgid=106 geteuid=107 getegid=108 "
    "getppid=110 getpgrp=111 setreuid=113 setregid=114 getgroups=115 setgroups=116 setresuid=117 getresuid=118 "
    "setresgid=119 getresgid=120 getpgid=121 setfsuid=122 setfsgid=123 capget=125 capset=126 sigaltstack=131 mknod=133 "
    "personality=135 fstatfs=138 modify_ldt=154 pivot_root=155 prctl=157 chroot=161 acct=163 mount=165 umount2=166 "
    "swapon=167 swapoff=168 reboot=169 sethostname=170 setdomainname=171 iopl=172 ioperm=173 init_module=175 "
    "delete_module=176 quotactl=179 gettid=186 time=201 futex=202 sched_getaffinity=204 epoll_create=213 "
    "getdents64=217 restart_syscall=219 fadvise64=221 clock_gettime=228 clock_getres=229 clock_nanosleep=230 "
    "exit_group=231 epoll_wait=232 epoll_ctl=233 tgkill=234 kexec_load=246 add_key=248 request_key=249 keyctl=250 "
    "openat=257 mkdirat=258 mknodat=259 newfstatat=262 unlinkat=263 renameat=264 readlinkat=267 faccessat=269 "
    "pselect6=270 ppoll=271 unshare=272 set_robust_list=273 get_robust_list=274 epoll_pwait=281 eventfd2=290 "
    "epoll_create1=291 dup3=292 pipe2=293 preadv=295 pwritev=296 perf_event_open=298 fanotify_init=300 prlimit64=302 "
    "open_by_handle_at=304 setns=308 getcpu=309 process_vm_readv=310 process_vm_writev=311 finit_module=313 "
    "renameat2=316 seccomp=317 getrandom=318 kexec_file_load=320 bpf=321 execveat=322 userfaultfd=323 membarrier=324 "
    "copy_file_range=326 preadv2=327 pwritev2=328 statx=332 rseq=334 io_uring_setup=425 io_uring_enter=426 "
    "io_uring_register=427 open_tree=428 move_mount=429 fsopen=430 fsconfig=431 fsmount=432 fspick=433 clone3=435 "
    "close_range=436 pidfd_getfd=438 faccessat2=439 epoll_pwait2=441 mount_setattr=442 quotactl_fd=443 "
    "landlock_create_ruleset=444 landlock_add_rule=445 landlock_restrict_self=446 "
)

_AARCH64 = _numbers(
    "getcwd=17 eventfd2=19 epoll_create1=20 epoll_ctl=21 epoll_pwait=22 dup=23 dup3=24 fcntl=25 ioctl=29 flock=32 "
    "mknodat=33 mkdirat=34 unlinkat=35 renameat=38 umount2=39 mount=40 pivot_root=41 fstatfs=44 ftruncate=46 "
    "faccessat=48 chroot=51 openat=56 close=57 pipe2=59 quotactl=60 getdents64=61 lseek=62 read=63 write=64 readv=65 "
    "writev=66 pread64=67 pwrite64=68 preadv=69 pwritev=70 sendfile=71 pselect6=72 ppoll=73 readlinkat=78 "
    "newfstatat=79 fstat=80 fsync=82 fdatasync=83 acct=89 capget=90 capset=91 personality=92 exit=93 exit_group=94 "
    "unshare=97 futex=98 set_robust_list=99 get_robust_list=100 nanosleep=101 kexec_load=104 init_module=105 "
    "delete_module=106 clock_gettime=113 clock_getres=114 clock_nanosleep=115 ptrace=117 sched_getaffinity=123 "
    "sched_yield=124 restart_syscall=128 tgkill=131 sigaltstack=132 rt_sigaction=134 rt_sigprocmask=135 "
    "rt_sigreturn=139 reboot=142 setregid=143 setgid=144 setreuid=145 setuid=146 setresuid=147 getresuid=148 "
    "setresgid=149 getresgid=150 setfsuid=151 setfsgid=152 times=153 getpgid=155 getgroups=158 setgroups=159 uname=160 "
    "sethostname=161 setdomainname=162 getrlimit=163 getrusage=165 umask=166 prctl=167 getcpu=168 gettimeofday=169 "
    "getpid=172 getppid=173 getuid=174 geteuid=175 getgid=176 getegid=177 gettid=178 sysinfo=179 socketpair=199 "
    "getsockname=204 getpeername=205 sendto=206 recvfrom=207 getsockopt=209 shutdown=210 "
    "brk=214 munmap=215 mremap=216 add_key=217 request_key=218 keyctl=219 clone=220 execve=221 mmap=222 fadvise64=223 "
    "swapon=224 swapoff=225 mprotect=226 msync=227 madvise=233 perf_event_open=241 prlimit64=261 fanotify_init=262 "
    "open_by_handle_at=265 setns=268 process_vm_readv=270 process_vm_writev=271 finit_module=273 renameat2=276 "
    "seccomp=277 getrandom=278 bpf=280 execveat=281 userfaultfd=282 membarrier=283 copy_file_range=285 preadv2=286 "
    "pwritev2=287 statx=291 rseq=293 kexec_file_load=294 io_uring_setup=425 io_uring_enter=426 io_uring_register=427 "
    "open_tree=428 move_mount=429 fsopen=430 fsconfig=431 fsmount=432 fspick=433 clone3=435 close_range=436 "
    "pidfd_getfd=438 faccessat2=439 epoll_pwait2=441 mount_setattr=442 quotactl_fd=443 landlock_create_ruleset=444 "
    "landlock_add_rule=445 landlock_restrict_self=446 "
)

MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine("x86_64", 0xC000003E, 0x40000000, _X86_64),
    "aarch64": Machine("aarch64", 0xC00000B7, 0, _AARCH64),
}
"""By what `uname -m` says."""
