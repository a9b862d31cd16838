"""Text from a user or a file, as it may be shown on a terminal, a page or a picture.

A name can hold escape sequences, line ends and marks that turn the direction of writing. Shown as they are, they move
the cursor, forge lines and reorder what stands around them. Here each becomes text such as `\\x1b` or `\\u202e`.
"""

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    """Return the text in one line, with all that is not a letter, mark, sign or space written as its code."""
    return text if text.isprintable() else "".join(map(_shown, text))


def visible_lines(text: str) -> str:
    """Return the same of a text that may have several lines, such as a message of ours or a docstring."""
    return "\n".join(visible(line) for line in text.split("\n"))


def for_matplotlib(text: str) -> str:
    """Return the text as matplotlib shows it letter for letter, in a label or a title.

    Between two `$`, matplotlib reads `_`, `^` and `\\` as formulas, so each `$` is escaped. A label that begins with
    `_` would be left out of the legend, so it begins with a space.
    """
    shown = visible(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _shown(letter: str) -> str:
    # No letter, but harmless: the wide space of Chinese and Japanese, and those that do not break.
    if letter.isprintable() or letter in "\u00a0\u2007\u202f\u3000":
        return letter
    code = ord(letter)
    if letter in _SHORT:
        return _SHORT[letter]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
