"""What the first process of a container does between its birth and the program, and one that joins it later.

Nothing is executed in between: it is a fork of who makes the container, in Python. It must not be a way out: nobody in the
container may look into it (not dumpable), it closes what it inherited before it goes anywhere, checks that its working
directory is inside (CVE-2024-21626), and executes no link of /proc, which would be the program that runs us (CVE-2019-5736).
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
import struct
import termios
from contextlib import suppress
from errno import EACCES, ELOOP, ENOENT, ENOEXEC, ENOTDIR, EPERM
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from doctor.linux import mounting, privileges, syscalls
from doctor.runtime import control, rootfs, userns
from doctor.runtime import process as processes

if TYPE_CHECKING:
    import socket

    from doctor.runtime.mounts import Overlay
    from doctor.runtime.oci import Config, ConsoleSize, Process

ENGINE, CANNOT, ABSENT, BROKEN = 125, 126, 127, 255
"""Exit codes: what is made is at fault; a program that cannot be executed, none of that name, and one refused too late."""

SHORT = 1 << 13
"""Bytes of what is said between a container that is made and its maker."""

_SCRIPTS = 5
"""Interpreters of interpreters that the kernel follows (exec.c, bprm_execve)."""

_LINE = 256
_TIOCGPTPEER = 0x5441
_INFINITE = (1 << 64) - 1


class LaunchError(Exception):
    """A program that cannot be started: the words of runc, and docker's exit code."""

    def __init__(self, text: str, code: int) -> None:
        """Keep both."""
        super().__init__(text)
        self.text, self.code = text, code


def be_first(
    config: Config,
    root: str,
    overlay: Overlay | None,
    sync: socket.socket,
    stdio: tuple[int, int, int],
    network: int,
    *,
    init: bool,
) -> None:
    """Be the first process of a container, up to its program; `network` is its namespace where that is new, or -1."""
    code, said = ENGINE, ""
    try:
        os.setsid()
        rootfs.enter(config, root, overlay)
        if config.hostname:
            syscalls.sethostname(config.hostname)
        if config.domainname:
            syscalls.setdomainname(config.domainname)
        handles = [*([network] if network >= 0 else ()), *_wire(config.process, stdio, is_first=True)]
        path = find(config.process)
        control.send(sync, {"created": True, "network": network >= 0}, handles)
        for handle in handles:
            os.close(handle)
        message, _ = control.receive(sync, SHORT)
        if message.get("do") != "start":
            return
        become(config.process, path, sync, joins=False, init=init)
    except LaunchError as error:
        code, said = error.code, error.text
    except OSError as error:
        said = syscalls.words(error)
    except (ValueError, TypeError) as error:
        said = str(error)
    _tell(sync, code, said)


def join(process: Process, sync: socket.socket, stdio: tuple[int, int, int]) -> None:
    """Be a process that joins a container, up to its program."""
    code, said = ENGINE, ""
    try:
        os.chdir("/")
        os.setsid()
        handles = _wire(process, stdio, is_first=False)
        path = find(process)
        if handles:
            control.send(sync, {"joined": True}, handles)
        for handle in handles:
            os.close(handle)
        become(process, path, sync, joins=True)
    except LaunchError as error:
        code, said = error.code, error.text
    except OSError as error:
        code, said = CANNOT, f"exec: {syscalls.words(error)}"
    except (ValueError, TypeError) as error:
        said = str(error)
    _tell(sync, code, said)


def _tell(sync: socket.socket, code: int, said: str) -> NoReturn:
    if code == BROKEN:
        with suppress(OSError):
            os.write(2, f"{said}\n".encode(errors="replace"))
    with suppress(OSError):
        control.send(sync, {"error": said, "code": code})
    os._exit(code)


def _wire(process: Process, stdio: tuple[int, int, int], *, is_first: bool) -> list[int]:
    """Give the process its descriptors 0, 1 and 2: those it was handed, or a terminal, whose master is given."""
    masters: list[int] = []
    handles = stdio
    if process.terminal:
        master, slave = terminal(process.console_size)
        if is_first:
            console(slave)
        handles, masters = (slave, slave, slave), [master]
    # Above the numbers that they go to, or one would overwrite another.
    high = [os.dup(one) if one > 2 else _above(one) for one in handles]  # noqa: PLR2004 - stderr
    for number, handle in enumerate(high):
        os.dup2(handle, number)
    for handle in high:
        os.close(handle)
    if process.terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        with suppress(OSError):
            os.fchown(0, process.user.uid, -1)
    return masters


def _above(handle: int) -> int:
    return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 3)


def find(process: Process) -> str:
    """Look the program up as runc does, from inside the container. Raises LaunchError."""
    name = process.args[0] if process.args else ""
    if "/" in name:
        path = os.path.join(process.cwd, name)  # noqa: PTH118 - a path may be any text
        why = _why_not(path)
        if why:
            raise LaunchError(f'exec: "{name}": {why[0].format(name=name)}', why[1])
        return path
    folders = next((one[5:] for one in process.env if one.startswith("PATH=")), "").split(":")
    refused = ""
    for folder in folders:
        path = os.path.join(process.cwd, folder, name)  # noqa: PTH118 - as above
        why = _why_not(path)
        if not why:
            return path
        if why[1] == CANNOT and "directory" not in why[0]:
            refused = refused or why[0]
    if refused:
        raise LaunchError(f'exec: "{name}": {refused}', CANNOT)
    raise LaunchError(f'exec: "{name}": executable file not found in $PATH', ABSENT)


def _why_not(path: str) -> tuple[str, int] | None:
    try:
        about = os.stat(path)  # noqa: PTH116 - as above
    except OSError as error:
        said = os.strerror(error.errno or 0).lower()
        return f"stat {{name}}: {said}", ABSENT if error.errno in {ENOENT, ENOTDIR} else CANNOT
    if stat.S_ISDIR(about.st_mode):
        return "is a directory", CANNOT
    if not about.st_mode & 0o111:
        return "permission denied", CANNOT
    return None


def check(path: str) -> tuple[int, list[str]]:
    """Open a program, and the interpreters that it names, never through a link of /proc/PID.

    Gives a descriptor of what is to be executed, closed on exec, and the arguments that go before the program's own: none,
    or interpreter, its argument and the script. Raises LaunchError.
    """
    before: list[str] = []
    for _ in range(_SCRIPTS):
        handle = _open(path)
        line = _first_line(path)
        if not line.startswith(b"#!"):
            return handle, before
        os.close(handle)
        words = line[2:].strip().split(None, 1)
        if not words:
            raise LaunchError(f"exec {path}: exec format error", BROKEN)
        before = [*(os.fsdecode(one) for one in words), path, *before[1:]]
        path = os.fsdecode(words[0])
    raise LaunchError(f"exec {path}: too many levels of symbolic links", CANNOT)


def _open(path: str) -> int:
    try:
        return syscalls.open_plainly(path)
    except OSError as error:
        if error.errno == ELOOP:
            raise LaunchError(f'exec: "{path}": leads through /proc to a program outside', CANNOT) from None
        raise LaunchError(f"exec {path}: {error.strerror}", ABSENT if error.errno == ENOENT else CANNOT) from None


def _first_line(path: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""  # what may be executed and not read is no script
    try:
        return os.read(handle, _LINE).split(b"\n", 1)[0]
    finally:
        os.close(handle)


def terminal(size: ConsoleSize) -> tuple[int, int]:
    """Open a terminal of the container's own devpts; gives master and slave."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, termios.TIOCSPTLCK if hasattr(termios, "TIOCSPTLCK") else 0x40045431, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size.height or size.width:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size.height, size.width, 0, 0))
    return master, slave


def console(slave: int) -> None:
    """Let /dev/console be the terminal of the container."""
    with suppress(OSError):
        os.close(os.open("/dev/console", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600))
        mounting.attach(mounting.tree(os.ttyname(slave)), "/dev/console")


def become(process: Process, path: str, sync: socket.socket, *, joins: bool, init: bool = False) -> NoReturn:
    """Turn into the program: limits, user, capabilities, and exec. Raises LaunchError, OSError."""
    env = _environment(process)
    handle, before = check(path)
    _limit(process)
    kept = {handle, sync.fileno()}
    processes.close_others(kept)
    inside = _go(process.cwd)
    if init:
        _split(("/sbin/docker-init", "--", *process.args))
    _give_up(process)
    if not inside:
        os.chdir(process.cwd)
        _is_inside()
    processes.default_signals()
    if joins:
        # Who is in the container already may change what the path leads to: what was checked is executed.
        argv = [*before, *process.args[1:]] if before else list(process.args)
        syscalls.execveat(handle, argv, env, path)
    try:
        os.execve(path, list(process.args), env)  # noqa: S606 - that is what a container is for
    except OSError as error:
        said = "exec format error" if error.errno == ENOEXEC else os.strerror(error.errno or 0).lower()
        raise LaunchError(f"exec {path}: {said}", BROKEN) from None


def _environment(process: Process) -> dict[str, str]:
    """Read the environment; HOME is the user's where none is given, as runc sets it."""
    env = dict(one.split("=", 1) for one in process.env if "=" in one)
    if process.terminal:
        env.setdefault("TERM", "xterm")
    if not env.get("HOME"):
        env["HOME"] = _home(process.user.uid)
    return env


def _home(uid: int) -> str:
    with suppress(OSError):
        for line in processes.small("/etc/passwd").splitlines():
            fields = line.split(":")
            if len(fields) >= 6 and fields[2] == str(uid):  # noqa: PLR2004 - passwd(5)
                return fields[5]
    return "/root" if uid == 0 else "/"


def _limit(process: Process) -> None:
    for one in process.rlimits:
        number = getattr(resource, one.type, None)
        if number is None:
            raise LaunchError(f"invalid rlimit type {one.type}", CANNOT)
        soft, hard = (-1 if value >= _INFINITE else value for value in (one.soft, one.hard))
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            raise LaunchError(f"error setting rlimit type {one.type}: {error}", CANNOT) from None
    if process.oom_score_adj is not None:
        with suppress(PermissionError):
            Path("/proc/self/oom_score_adj").write_text(str(process.oom_score_adj), encoding="utf-8")


def _go(cwd: str) -> bool:
    """Go to the working directory; False when only its user may."""
    try:
        os.chdir(cwd)
    except PermissionError:
        return False
    except OSError as error:
        raise LaunchError(f'chdir to cwd ("{cwd}") set in config.json failed: {_said(error)}', CANNOT) from None
    _is_inside()
    return True


def _is_inside() -> None:
    """Refuse a working directory that is not below the root: a descriptor of the host's led there (CVE-2024-21626)."""
    try:
        inside = os.getcwd().startswith("/")  # noqa: PTH109 - getcwd(2) itself says so
    except OSError:
        inside = False
    if not inside:
        raise LaunchError("current working directory is outside of container mount namespace root", CANNOT)


def _give_up(process: Process) -> None:
    """Become the user, with the capabilities that are given, and none beside."""
    user, given = process.user, process.capabilities
    if process.no_new_privileges:
        privileges.no_new_privs()
    if given is not None:
        privileges.drop_bounding(privileges.bits(given.bounding))
    changes = (user.uid, user.gid) != (os.geteuid(), os.getegid()) or user.additional_gids or os.getgroups()
    if changes:
        privileges.keep_capabilities(on=True)
        _change(user.uid, user.gid, user.additional_gids)
    if user.umask is not None:
        os.umask(user.umask)
    if given is not None:
        effective, permitted, inheritable = (
            privileges.bits(one) for one in (given.effective, given.permitted, given.inheritable)
        )
        ambient = privileges.bits(given.ambient)
        # What is ambient must be inheritable as well; runc 1.1 raises what it can and passes over the rest.
        privileges.capset(effective, permitted, inheritable)
        privileges.ambient(ambient & permitted & inheritable)


def _change(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    for number, kind in ((uid, "uid"), (gid, "gid")):
        if not userns.is_mapped(number, "uid" if kind == "uid" else "gid"):
            raise LaunchError(
                f"{kind} {number} does not exist in this user namespace: it has no such range of ids", CANNOT
            )
    try:
        os.setgroups(groups)
    except OSError as error:
        if (
            error.errno != EPERM or groups
        ):  # where one id is all there is, groups may not be given up (user_namespaces(7))
            raise LaunchError(f"setgroups: {_said(error)}", CANNOT) from None
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _said(error: OSError) -> str:
    return os.strerror(error.errno or EACCES).lower()


def _split(argv: tuple[str, ...]) -> None:
    """Be the init of a container: the program is a child (in which this returns), orphans are reaped, signals handed on."""
    child = os.fork()
    if child == 0:
        os.setsid() if not os.isatty(0) else os.setpgid(0, 0)
        if os.isatty(0):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    processes.close_others(())
    processes.set_title("docker-init", argv)
    own = {signal.SIGCHLD, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP}
    waited = signal.valid_signals() - (own - {signal.SIGCHLD})
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    while True:
        with suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG))[0]:
                if pid[0] == child:
                    code = os.waitstatus_to_exitcode(pid[1])
                    os._exit(code if code >= 0 else 128 - code)
        number = signal.sigwait(waited)
        if number != signal.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(child, number)
