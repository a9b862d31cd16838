"""The files of published data sets and their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from laconic.lab.datasets.idx import FASHION_MNIST, MNIST


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The one file in which a data set was published."""

    file: str
    checksum: str
    folder: str
    """What it unpacks to."""


# Data set -> file -> kind of checksum and its value.
PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "cifar10": {
        "batches.meta": "sha256:f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
        "data_batch_1": "sha256:54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
        "data_batch_2": "sha256:766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
        "data_batch_3": "sha256:0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
        "data_batch_4": "sha256:3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
        "data_batch_5": "sha256:d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
        "test_batch": "sha256:f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    },
    "cifar100": {
        "meta": "md5:7973b15100ade9c7d40fb424638fde48",
        "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
        "train": "md5:16019d7e3df5f24257cddd939b257f8d",
    },
    **{
        collection.name: {file: f"sha256:{value}" for file, value in collection.sha256.items()}
        for collection in (MNIST, FASHION_MNIST)
    },
}
ARCHIVES: Mapping[str, Archive] = {
    "cifar10": Archive(
        file="cifar-10-python.tar.gz", checksum="md5:c58f30108f718f92721af3b95e74349a", folder="cifar-10-batches-py"
    ),
    "cifar100": Archive(
        file="cifar-100-python.tar.gz", checksum="md5:eb9058c3a382ffc7106e4002c42a8d85", folder="cifar-100-python"
    ),
}


def checksum(path: Path, kind: str) -> str:
    """Return the checksum of a file: its kind, a colon and the value."""
    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"


def differing(name: str, paths: Iterable[Path]) -> list[str]:
    """Return the names of files whose checksum is not the published one."""
    known = PUBLISHED[name]
    return [path.name for path in paths if checksum(path, known[path.name].partition(":")[0]) != known[path.name]]
