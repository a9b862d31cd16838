"""Fetches the files of a published data set from an address that the user gives: resumed, and checked by checksum.

A file is written beside its place, with the ending `.part`, and gets its name only when its checksum is the published
one. What a broken connection leaves there is where the next call goes on.
"""

from __future__ import annotations

import http.client
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from laconic.errors import DatasetError, Named
from laconic.lab.atomic import named_in_errors
from laconic.lab.datasets.dataset import DataOptionError
from laconic.lab.datasets.published import ARCHIVES, PUBLISHED, checksum

MAX_BYTES = 1 << 31  # of one file; the longest published one has 170 MB
_CHUNK = 1 << 16
_TIMEOUT_S = 60.0


def fetch(name: str, folder: Path, url: str, say: Callable[[str], None]) -> None:
    """Fetch the files of a data set that are not there yet, one after the other, and unpack them if need be.

    Args:
        name: A key of PUBLISHED.
        folder: Where they go; it is made if it is missing.
        url: The address of the folder that holds them, http or https.
        say: Gets a line for each file.

    Raises:
        DatasetError: The address is none, a file cannot be fetched, or its checksum is not the published one.
        OSError: A file cannot be written.
    """
    if not _is_address(url):
        raise DataOptionError(
            Named("url", url, quoted=True), " must be an address such as https://example.org/data, in ASCII without "
            "blanks",
        )  # fmt: skip
    archive = ARCHIVES.get(name)
    if archive is None:
        _fetch_all(PUBLISHED[name], folder, url, say)
        return
    inner = folder / archive.folder
    if all(_is_there(inner / file, known) for file, known in PUBLISHED[name].items()):
        say(f"{inner}: all files are there already")
        return
    _fetch_all({archive.file: archive.checksum}, folder, url, say)
    _unpack(folder / archive.file, archive.folder, PUBLISHED[name], folder)
    say(f"{inner}: unpacked")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return parts.scheme in ("http", "https") and bool(parts.netloc) and is_plain


def _fetch_all(files: Mapping[str, str], folder: Path, url: str, say: Callable[[str], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, known in files.items():
        path = folder / file
        if _is_there(path, known):
            say(f"{path}: is there already")
            continue
        if path.exists() and not path.is_file():
            raise DatasetError(f"{path}: is there and no file; move it away")
        start = fetch_file(f"{url.rstrip('/')}/{quote(file)}", path, known)
        say(f"{path}: fetched{f', from byte {start:,} on' if start else ''}")


def _is_there(path: Path, known: str) -> bool:
    return path.is_file() and checksum(path, known.partition(":")[0]) == known


def fetch_file(url: str, path: Path, known: str) -> int:
    """Fetch one file. Returns the byte at which it went on.

    Args:
        url: Its address.
        path: Where it goes.
        known: Its checksum: the kind, a colon and the value.

    Raises:
        DatasetError: It cannot be fetched, or has another checksum.
    """
    part = path.with_name(f"{path.name}.part")
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                start = 0  # the server sends all of it
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                remedy = f"; remove {part}" if start else ""
                raise DatasetError(f"{url}: answers with another part than byte {start:,} on{remedy}")
            _write(response, part, start, url)
    except DatasetError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise _unfetched(url, f"{error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _unfetched(url, error.reason) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:  # in place of an answer
        raise _unfetched(url, str(error) or type(error).__name__) from None
    found = checksum(part, known.partition(":")[0])
    if found != known:
        part.unlink()
        raise DatasetError(f"{url}: the checksum is {found}, must be {known}; it is another file, and was not kept")
    os.replace(part, path)
    return start


def _unfetched(url: str, why: object) -> DatasetError:
    """Return the error for what a server says, or what is said of it: in one line."""
    return DatasetError(f"{url}: cannot be fetched: {' '.join(str(why).split()):.300}")


def _write(response: http.client.HTTPResponse, part: Path, start: int, url: str) -> None:
    """Write what comes behind the first `start` bytes of a file."""
    length, n = response.length, 0
    with named_in_errors(part), part.open("r+b" if start else "wb") as stream:
        if start:
            stream.truncate(start)
            stream.seek(start)
        while chunk := _read(response, url, start + n):
            n += len(chunk)
            if start + n > MAX_BYTES:
                raise DatasetError(f"{url}: is longer than {MAX_BYTES:,} bytes; is it another file?")
            stream.write(chunk)
    if length is not None and n < length:
        raise DatasetError(_broken_off(url, start + n, f"{start + length:,} were announced"))


def _read(response: http.client.HTTPResponse, url: str, n: int) -> bytes:
    """Return what comes behind the first `n` bytes; none at the end."""
    try:
        return response.read(_CHUNK)
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise DatasetError(_broken_off(url, n, " ".join(str(error).split()))) from None


def _broken_off(url: str, n: int, why: str) -> str:
    return f"{url}: broke off after {n:,} bytes ({why}); the same command goes on from there"


def _unpack(archive: Path, inner: str, files: Mapping[str, str], folder: Path) -> None:
    """Unpack the files that are known, and no others, wherever else the archive would put some."""
    with tarfile.open(archive) as tar:
        for file, known in files.items():
            try:
                stream = tar.extractfile(f"{inner}/{file}")
            except KeyError:
                stream = None
            if stream is None:
                raise DatasetError(f"{archive}: holds no file {inner}/{file}")
            path = folder / inner / file
            path.parent.mkdir(exist_ok=True)
            with named_in_errors(path), stream, path.open("wb") as copy:
                while chunk := stream.read(_CHUNK):
                    copy.write(chunk)
            if not _is_there(path, known):
                raise DatasetError(f"{path}: does not have the published checksum {known}; fetch it again")
