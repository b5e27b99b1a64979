"""Finding and entering namespaces, and the system calls beneath."""

from __future__ import annotations

import os
import threading
from errno import EBADF, ENOENT, ESRCH
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doctor.linux import namespaces, syscalls

if TYPE_CHECKING:
    from tests.linux.spaces import Space


def here() -> int:
    """Give the network namespace of the calling thread."""
    return namespaces.namespace_id(f"/proc/self/task/{threading.get_native_id()}/ns/net")


@pytest.mark.root
def test_inside_calls_there_and_leaves_us_here(bare: Space) -> None:
    """The function runs in the namespace, what it returns and raises comes back, and we have not moved."""
    before = here()
    assert namespaces.inside(bare.path, here) == namespaces.namespace_id(bare.path) != before
    assert namespaces.inside(bare.handle, here) == namespaces.namespace_id(bare.path)
    with pytest.raises(ZeroDivisionError):
        namespaces.inside(bare.path, lambda: 1 // 0)
    assert here() == before


@pytest.mark.root
def test_a_thread_goes_from_one_to_the_next(bare: Space, far: Space) -> None:
    """One thread enters namespace after namespace and stays in the last."""
    seen = []

    def work() -> None:
        for place in (bare, far, bare):
            namespaces.enter(place.path, expected=namespaces.namespace_id(place.path))
            seen.append(here())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [namespaces.namespace_id(place.path) for place in (bare, far, bare)]


@pytest.mark.root
def test_another_namespace_than_expected_is_not_entered(bare: Space) -> None:
    """A pid that was given away leads elsewhere: the thread stays."""
    before = here()
    with pytest.raises(ProcessLookupError) as caught:
        namespaces.enter(bare.path, expected=before)
    assert (caught.value.errno, caught.value.filename) == (ESRCH, bare.path)
    assert here() == before


@pytest.mark.root
@pytest.mark.parametrize("kind", ["fifo", "file", "absent"])
def test_what_is_no_namespace_is_refused(kind: str, tmp_path: Path) -> None:
    """A FIFO or a plain file in its place neither holds the thread nor moves it, and no descriptor is left."""
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "file":
        path.touch()
    before, handles = here(), sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match=str(path)):
        namespaces.enter(str(path))
    assert (here(), sorted(Path("/proc/self/fd").iterdir())) == (before, handles)


def test_nsfs_is_told_from_a_file(tmp_path: Path) -> None:
    """A sandbox file that nothing is mounted on is a plain file."""
    left_over = tmp_path / "91836cc6ba05"
    left_over.touch()
    assert namespaces.is_nsfs("/proc/self/ns/net")
    assert not namespaces.is_nsfs(str(left_over))


def test_statfs_tells_the_file_system() -> None:
    """Magic numbers are those of linux/magic.h; errors name the path."""
    assert syscalls.statfs_type("/proc") == 0x9FA0
    assert syscalls.statfs_type("/sys") == 0x62656572
    with pytest.raises(FileNotFoundError) as caught:
        syscalls.statfs_type("/nowhere/at all")
    assert (caught.value.errno, caught.value.filename) == (ENOENT, "/nowhere/at all")


def test_setns_says_why_not() -> None:
    """A descriptor that is not open is EBADF."""
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        syscalls.setns(999_999, syscalls.CLONE_NEWNET)
    assert caught.value.errno == EBADF


@pytest.mark.root
def test_the_kernel_log_is_read_and_stays() -> None:
    """Two looks give the same log, as far as the first went: reading takes nothing away."""
    one, other = syscalls.klogctl_read(), syscalls.klogctl_read()
    assert one.startswith(b"<")
    assert one.splitlines()[-1] in other
