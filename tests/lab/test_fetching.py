"""`laconic data check` and `fetch`: checksums, and a fetch that breaks off and goes on, from a server on loopback."""

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from laconic.errors import DatasetError
from laconic.lab.datasets import published
from laconic.lab.datasets.fetching import fetch, fetch_file
from support.cifar_batches import batch
from support.command_line import laconic
from support.inputs import over_inputs

CONTENT = bytes(range(256)) * 40
KNOWN = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves files from memory; a file in `breaking` ends after that many bytes, once."""

    def __init__(self, files: dict[str, bytes], *, with_ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.with_ranges = files, with_ranges
        self.breaking: dict[str, int] = {}
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        data = self.server.files.get(self.path.removeprefix("/"))
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if data is None:
            self.send_error(404)
            return
        if not data:
            self.close_connection = True  # without an answer
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.with_ranges else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : self.server.breaking.pop(self.path.removeprefix("/"), len(data))])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes], **options: bool) -> Iterator[Server]:
    with Server(files, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("with_ranges", [True, False])
def test_a_fetch_that_breaks_off_goes_on_where_it_was_or_begins_again_if_the_server_cannot(tmp_path, with_ranges):
    path = tmp_path / "file"
    with serving({"file": CONTENT}, with_ranges=with_ranges) as server:
        server.breaking["file"] = 3000
        with pytest.raises(DatasetError, match=r"broke off after 3,000 bytes .*the same command goes on from there"):
            fetch_file(f"{server.url}file", path, KNOWN)
        assert not path.exists()
        assert fetch_file(f"{server.url}file", path, KNOWN) == (3000 if with_ranges else 0)
        assert server.ranges == [None, "bytes=3000-"]
    assert path.read_bytes() == CONTENT
    assert not path.with_name("file.part").exists()


@pytest.mark.slow
def test_a_fetch_that_broke_off_after_the_last_byte_is_finished(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    with serving({"file": CONTENT}) as server:
        fetch_file(f"{server.url}file", tmp_path / "file", KNOWN)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.slow
def test_a_file_with_another_checksum_is_named_with_both_and_removed(tmp_path):
    with serving({"file": CONTENT[:-1]}) as server, pytest.raises(DatasetError, match="the checksum is") as caught:
        fetch_file(f"{server.url}file", tmp_path / "file", KNOWN)
    assert KNOWN in str(caught.value)
    assert hashlib.sha256(CONTENT[:-1]).hexdigest() in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_missing_file_a_dead_server_and_a_strange_address_are_one_line_each(tmp_path):
    with serving({}) as server:
        with pytest.raises(DatasetError, match="cannot be fetched: 404"):
            fetch_file(f"{server.url}file", tmp_path / "file", KNOWN)
        url = server.url
    with pytest.raises(DatasetError, match=r"cannot be fetched: .*refused"):
        fetch_file(f"{url}file", tmp_path / "file", KNOWN)
    for strange in (
        "file:///etc",
        "example.org/data",
        "http://[::1",
        "http://a b/",
        "http://a\nb/",
        "http://a/\u00fc",
        "",
    ):
        with pytest.raises(DatasetError, match="must be an address such as"):
            fetch("mnist", tmp_path, strange, print)


@pytest.mark.slow
def test_the_commands_fetch_what_is_missing_unpack_it_and_check_it(tmp_path, monkeypatch):
    files = {"train": batch(3, n_classes=100), "test": batch(2, n_classes=100), "meta": b"names"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in {
            **{f"cifar-100-python/{name}": data for name, data in files.items()},
            "../trap": b"x",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    sums = {name: f"md5:{hashlib.md5(data).hexdigest()}" for name, data in files.items()}
    monkeypatch.setitem(published.PUBLISHED, "cifar100", sums)  # the published files have 170 MB
    archive = published.Archive(
        file="c.tar.gz", checksum=f"md5:{hashlib.md5(packed.getvalue()).hexdigest()}", folder="cifar-100-python"
    )
    monkeypatch.setitem(published.ARCHIVES, "cifar100", archive)
    folder = tmp_path / "data"
    missing = laconic("data", "check", "cifar100", "--data", str(folder))
    assert (missing.code, missing.out.count("missing ")) == (1, 3)
    with serving({"c.tar.gz": packed.getvalue()}) as server:
        fetched = laconic("data", "fetch", "cifar100", "--data", str(folder), "--url", server.url)
        again = laconic("data", "fetch", "cifar100", "--data", str(folder), "--url", server.url)
        assert len(server.ranges) == 1
    assert (fetched.code, again.code) == (0, 0), fetched.err + again.err
    assert "all files are there already" in again.out
    assert not (tmp_path / "trap").exists()
    right = laconic("data", "check", "cifar100", "--data", str(folder))
    assert right.code == 0
    assert right.out.splitlines()[-1] == "cifar100: 3 train and 2 test examples of shape 3x32x32, 100 classes"
    (folder / "cifar-100-python" / "meta").write_bytes(b"other")
    wrong = laconic("data", "check", "cifar100", "--data", str(folder))
    assert wrong.code == 1
    assert "differs " in wrong.out
    assert sums["meta"] in wrong.out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hangs up", "speaks another protocol"])
def test_a_server_without_an_answer_is_named(tmp_path, kind):
    if kind == "hangs up":
        with serving({"file": b""}) as server, pytest.raises(DatasetError, match="file: cannot be fetched: "):
            fetch_file(f"{server.url}file", tmp_path / "file", KNOWN)
        return
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=greet, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/file"
        with pytest.raises(DatasetError, match=r"file: cannot be fetched: SSH-2\.0"):
            fetch_file(url, tmp_path / "file", KNOWN)
        thread.join()


def greet(listening: socket.socket, answer: bytes = b"SSH-2.0-OpenSSH\r\n") -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(answer)


@pytest.mark.slow
@over_inputs(("answer", "words"), [
    (b"\0\1\n\n2", "cannot be fetched: \0\1"), (b"HTTP/1.1 999 so\x1b[31m\r\n\r\n", "cannot be fetched: 999 so"),
    (b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", "is not allowed"),
    (b"HTTP/1.1 416 x\r\nContent-Length: 0\r\n\r\n", "cannot be fetched: 416 x"),
    (b"HTTP/1.1 206 x\r\n\r\nhello", "answers with another part than byte 0 on"),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello", "broke off after 0 bytes"),
    (b"HTTP/1.1 200 x\r\nContent-Length: 9999999999999999999999\r\n\r\nhello", "broke off after 5 bytes"),
])  # fmt: skip
def test_whatever_a_server_answers_is_one_line_with_the_address(answer, words, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=greet, args=(listening, answer))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/file"
        with pytest.raises(DatasetError) as caught:
            fetch_file(url, tmp_path / "file", KNOWN)
        thread.join()
    assert words in str(caught.value)
    assert str(caught.value).startswith(url)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "file").exists()


@pytest.mark.slow
def test_a_full_disk_and_a_place_that_is_taken_are_named(tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with serving({"file": CONTENT}) as server:
        with pytest.raises(OSError, match="No space left on device") as caught:
            fetch_file(f"{server.url}file", tmp_path / "file", KNOWN)
        assert caught.value.filename == str(tmp_path / "file.part")
        (tmp_path / "train-images-idx3-ubyte.gz").mkdir()
        with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte.gz: is there and no file; move it away"):
            fetch("mnist", tmp_path, server.url, print)
        assert len(server.ranges) == 1, "nothing more was asked for"
