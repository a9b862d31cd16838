"""The scripts of the page of a comparison, run by node, without a browser."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import laconic

SCRIPTS = Path(laconic.__file__).parent / "report" / "comparison_page"
needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="there is no node here, which runs the page's scripts"
)


def run_by_node(expression: str, given: Any) -> Any:
    """What an expression in JavaScript gives; `given` is the name of the data in it."""
    scripts = "\n".join((SCRIPTS / f"{name}.js").read_text() for name in ("clock", "figures"))
    last = f"process.stdout.write(JSON.stringify({expression}));"
    program = f"{scripts}\nconst given = JSON.parse(require('fs').readFileSync(0));\n{last}\n"
    ended = subprocess.run(
        ["node", "-e", program], input=json.dumps(given), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)
