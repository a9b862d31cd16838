"""Files that nobody else can write: what is read, what counts as missing, and what a fault of the disk does."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from laconic.kernels.cpu.private_folder import PrivateFolder, why_unsafe
from support.deadlines import DEADLINE_S

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
OTHER = 12345  # the id of a user


@pytest.fixture
def folder(tmp_path):
    made = PrivateFolder(tmp_path / "cache" / "kernels")
    made.write("name", b"machine code")
    return made


def test_what_is_written_is_read_by_another_process(folder):
    assert PrivateFolder(folder.path).read("name") == b"machine code"
    assert PrivateFolder(folder.path).read("other") is None


def test_the_folder_and_its_files_are_for_this_user_alone(folder):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder.path, folder.path.parent)}
    assert modes == {0o700}
    assert stat.S_IMODE((folder.path / "name").stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["cut", "a bit", "empty", "longer", "a folder", "a link"])
def test_a_damaged_file_counts_as_missing_and_is_replaced(folder, damage):
    file = folder.path / "name"
    data = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "a link":
        (folder.path / "elsewhere").write_bytes(data)
        file.symlink_to(folder.path / "elsewhere")
    else:
        flipped = data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]
        file.write_bytes({"cut": data[:-1], "a bit": flipped, "empty": b"", "longer": data + b"x"}[damage])
    again = PrivateFolder(folder.path)
    assert again.read("name") is None
    assert str(file) in again.damaged
    again.write("name", b"new")
    assert again.read("name") == (None if damage == "a folder" else b"new")  # a folder stays, and does no harm


def test_a_folder_that_is_emptied_or_removed_while_it_is_used_is_made_again(folder):
    for path in folder.path.iterdir():
        path.unlink()
    folder.path.rmdir()
    folder.path.parent.rmdir()
    assert folder.read("name") is None
    assert not folder.has({"name"})
    with folder.locked():
        folder.write("name", b"again")
    assert folder.read("name") == b"again"
    assert not folder.full


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_folder_that_others_can_write_is_neither_read_nor_written(folder, mode):
    folder.path.chmod(mode)
    again = PrivateFolder(folder.path)
    again.write("more", b"")
    assert again.problem == f"other users can write into {folder.path}"
    assert again.read("name") is None
    assert not again.has({"name"})
    assert not (folder.path / "more").exists()


@pytest.mark.parametrize(("mode", "is_safe"), [(0o777, False), (0o1777, True), (0o755, True), (0o773, False)])
def test_a_parent_that_others_can_write_is_refused_unless_it_is_sticky(folder, mode, is_safe):
    folder.path.parent.chmod(mode)
    assert (PrivateFolder(folder.path).read("name") is not None) is is_safe


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_file_that_others_can_write_counts_as_missing(folder, mode):
    (folder.path / "name").chmod(mode)
    assert folder.read("name") is None
    assert folder.damaged == f"{folder.path / 'name'} can be written by another user"


@AS_ROOT
def test_what_belongs_to_another_user_is_not_read(folder):
    os.chown(folder.path / "name", OTHER, OTHER)
    assert folder.read("name") is None
    os.chown(folder.path / "name", 0, 0)
    assert folder.read("name") == b"machine code"
    for path in (folder.path, folder.path.parent):
        os.chown(path, OTHER, OTHER)
        assert PrivateFolder(folder.path).problem == f"{path} belongs to another user"
        assert PrivateFolder(folder.path).read("name") is None
        os.chown(path, 0, 0)


def test_a_link_to_a_folder_that_others_can_write_is_followed_and_refused(folder, tmp_path):
    folder.path.chmod(0o777)
    (tmp_path / "link").symlink_to(folder.path)
    assert PrivateFolder(tmp_path / "link").problem == f"other users can write into {folder.path}"


@pytest.mark.parametrize("name", ["a file/kernels", "a file"])
def test_a_file_in_place_of_the_folder_is_a_problem_and_no_error(tmp_path, name):
    (tmp_path / "a file").write_text("")
    folder = PrivateFolder(tmp_path / name)
    folder.write("name", b"")
    folder.try_to_write()
    with folder.locked(), folder.making("name", DEADLINE_S):
        assert folder.read("name") is None
    assert "a file" in folder.problem


def test_a_folder_without_a_path_keeps_nothing():
    folder = PrivateFolder(None, "there is no home")
    folder.try_to_write()
    folder.write("name", b"")
    with folder.locked(), folder.making("name", DEADLINE_S):
        assert folder.read("name") is None
    assert folder.problem == "there is no home"


@AS_ROOT
def test_a_full_or_read_only_disk_is_a_reason_not_to_write_and_what_is_there_is_read(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        folder = PrivateFolder(disk / "kernels")
        folder.write("small", b"code")
        folder.write("large", bytes(1 << 17))
        assert folder.full == f"{disk / 'kernels'}: No space left on device"
        assert sorted(path.name for path in folder.path.iterdir()) == ["small"]
        for option, why in (("size=64k", "No space left on device"), ("ro", "Read-only file system")):
            subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)
            again = PrivateFolder(folder.path)
            again.try_to_write()
            assert again.full == f"{folder.path}: {why}"
            with again.locked():
                assert again.read("small") == b"code"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_root_of_all_folders_is_safe():
    assert why_unsafe(Path("/")) == ""


def test_one_process_at_a_time_is_let_in(folder):
    other = "import sys; from pathlib import Path; from laconic.kernels.cpu.private_folder import PrivateFolder\n" + (
        f"folder = PrivateFolder(Path({str(folder.path)!r}))\n"
        "print('started', flush=True)\nwith folder.locked(): print(folder.read('shared'))"
    )
    with folder.locked():
        waiting = subprocess.Popen([sys.executable, "-c", other], stdout=subprocess.PIPE, text=True)
        assert waiting.stdout.readline() == "started\n"
        folder.write("shared", b"written before it was let in")
    assert waiting.communicate()[0] == "b'written before it was let in'\n"


HOLDS = """
import sys
from pathlib import Path
from laconic.kernels.cpu.private_folder import PrivateFolder

with PrivateFolder(Path(sys.argv[1])).making("new", 9.0):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_one_that_makes_a_file_and_stops_is_waited_for_in_patience_and_one_that_died_is_not(folder):
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holding:
        assert holding.stdout.readline() == "in\n"
        lock = folder.path / "new.lock"
        with folder.making("new", 0.0):
            assert lock.exists()
        assert lock.exists()  # the other's
        holding.kill()
        holding.wait()
        with folder.making("new", DEADLINE_S):
            assert lock.exists()
        assert not lock.exists()
