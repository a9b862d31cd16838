"""JSON that carries its own checksum: not one byte of it can change without being seen."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from laconic.drivers.gathered import Schema, misfit
from laconic.errors import CheckpointError

_SEAL = "checksum"
_DIGEST_BYTES = 16


def sealed(content: Mapping[str, Any]) -> bytes:
    """Return the JSON of some content, which has no key "checksum"."""
    text = _text(content)
    return _text({**content, _SEAL: _checksum(text)})


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the content that `sealed` was given.

    Raises:
        CheckpointError: the bytes are others than it returned.
    """
    try:
        content = json.loads(data)
        checksum = content.pop(_SEAL)
        text = _text(content)
        is_same = checksum == _checksum(text) and data == _text({**content, _SEAL: checksum})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its description is damaged or of another program: {error!r:.100}") from None
    if not is_same:
        raise CheckpointError("its description is damaged: its bytes are not those that were written")
    return dict(content)


def check_content(content: Mapping[str, Any], schema: Mapping[str, Schema]) -> None:
    """Raise CheckpointError if content that was read does not fit a schema; see `drivers/gathered.py`."""
    if problem := misfit(content, schema, "its description"):
        raise CheckpointError(problem)


def checksum_in(data: bytes) -> str:
    """Return the checksum that sealed bytes carry."""
    return str(json.loads(data)[_SEAL])


def _text(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def _checksum(text: bytes) -> str:
    return blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()
