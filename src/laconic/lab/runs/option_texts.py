"""Texts that are values of options: what is wrong with one, before torch is loaded."""

import re


def device_name(text: str) -> None:
    """Raise ValueError for what names no device."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", text):
        near = "; did you mean cuda?" if text.lower().startswith(("gpu", "cud", "nvidia")) else ""
        raise ValueError(f"must be cpu, cuda, or cuda with the number of a GPU, such as cuda:1{near}")


def text_encoding(name: str) -> None:
    """Raise ValueError for what names no encoding."""
    try:
        "".encode(name)
    except LookupError:
        raise ValueError("must be the name of an encoding, such as utf-8, latin-1 or cp1252") from None
