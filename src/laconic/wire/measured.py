"""What is known of values that are made, or come, one part behind the other."""

from typing import final

from laconic.kernels.api import joined_checksum


@final
class Measured:
    """The largest magnitude and the CRC-32 of parts, in their order."""

    def __init__(self, checksum: int = 0) -> None:
        """Begin behind bytes of which `checksum` is the CRC-32."""
        self.largest = 0.0
        """NaN if a value is NaN."""
        self.checksum: int | None = checksum
        """None if a part's is not known."""

    def add(self, largest: float, checksum: int | None, n_bytes: int) -> None:
        """Add a part of `n_bytes`."""
        if self.largest == self.largest and not largest <= self.largest:  # NaN stays
            self.largest = largest
        known = self.checksum is not None and checksum is not None
        self.checksum = joined_checksum(self.checksum, checksum, n_bytes) if known else None  # type: ignore[arg-type]
