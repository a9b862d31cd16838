"""What mkdocstrings shows of a class with hyper-parameters: plain defaults in its signature, and a list of meanings."""

import ast
from typing import Any

import griffe


class Hyperparameters(griffe.Extension):
    """Reads `hyperparameter(default, "meaning", ...)`, which griffe takes for the default itself."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:  # noqa: ANN401 - the face of griffe
        """Put defaults in place of the calls, and their meanings below the text of the class."""
        meanings = []
        for parameter in cls.parameters:
            call = parameter.default
            if isinstance(call, griffe.ExprCall) and str(call.function) == "hyperparameter":
                parameter.default, *others = call.arguments
                meanings.append(f"    {parameter.name}: {_meaning(others)}")
        if meanings:
            text = cls.docstring.value if cls.docstring else ""
            cls.docstring = griffe.Docstring("\n".join([text, "", "Args:", *meanings]), parent=cls)


def _meaning(arguments: "list[Any]") -> str:
    """Return what stands behind the default as one line: meaning, range, unit, choices."""
    named = {one.name: str(one.value) for one in arguments if isinstance(one, griffe.ExprKeyword)}
    meaning = next((str(one) for one in arguments if not isinstance(one, griffe.ExprKeyword)), named.get("about"))
    parts = [ast.literal_eval(meaning or "")]
    if "within" in named:
        parts.append(f"in {ast.literal_eval(named['within'])}")
    if "unit" in named:
        parts.append(f"in {ast.literal_eval(named['unit'])}")
    if named.get("choices", "").startswith("("):
        parts.append("one of " + ", ".join(repr(one) for one in ast.literal_eval(named["choices"])))
    return "; ".join(parts)
