"""One word a thing, and the field's: the words that docs/glossary.md replaces name nothing here."""

import ast
import functools
import io
import re
import tokenize
from dataclasses import fields
from pathlib import Path

import laconic
from laconic.contract import ALGORITHMS
from support.inputs import over_inputs
from support.sources import share_trees, tree_of

pytestmark = share_trees

ROOT = Path(__file__).parents[1]
FILES = sorted([*Path(laconic.__file__).parent.rglob("*.py"), *Path(__file__).parent.rglob("*.py")])
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md"), *ROOT.glob("tests/**/*.md")])

WORDS = """
debt debts owe owes owed owing wish wishes heard unheard void voids spoil spoiled notice notices places rooms room
least most spare lent handed whole kept among peak peaks knob knobs plain truth hub card cards crew crews member
members charge charges charged toy first lap laps leave told said tell tells uncut cut cuts rehearsal halves board
lie lies mishap mishaps topology topologies rate rates schedule schedules way ways entry entries head heads body
bodies coin coins codec drawn scene scenes fact facts question questions opening everybody everyone theirs settle
settled tally tallies due ramp spread piece pieces push pop live
"""
REFUSED = set(WORDS.split())
COMPOUNDS = (("learning", "rate"), ("learning", "rates"), ("lr", "schedule"), ("lr", "schedules"),
             ("message", "schedule"), ("message", "schedules"))  # fmt: skip

PYTHONS = "Python's own or another package's name"
EXCEPTIONS = {  # (word, file): reason. No more than 15
    ("plain", "*"): f"{PYTHONS}: rich.text.Text.plain",
    ("schedule", "*/network/*.py"): "the module network/schedule_file.py, which reads message schedules",
    ("pop", "*"): f"{PYTHONS}: dict.pop, list.pop",
    ("head", "*"): f"{PYTHONS}: rich.box.SIMPLE_HEAD; wire/head.py is the file of the header's bytes",
    ("body", "*"): f"{PYTHONS}: the statements of a node of ast",
    ("codec", "*"): "the module wire/codec.py, which encodes and decodes frames",
    ("tell", "*"): f"{PYTHONS}: the position in a file",
    ("void", "*/quantized_sums.py"): f"{PYTHONS}: llvmlite.ir.VoidType",
    ("void", "*/llvm/*.py"): f"{PYTHONS}: llvmlite.ir.VoidType",
    ("member", "*"): f"{PYTHONS}: torch.distributed.GroupMember",
}


def words_of(identifier: str) -> list[str]:
    """The words of an identifier, split at underscores and capitals, in lower case."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    return [part.lower() for part in parts]


def refused_in(identifier: str) -> set[str]:
    words = words_of(identifier)
    pairs = list(zip(["", *words], words, strict=False))
    return {word for before, word in pairs if word in REFUSED and (before, word) not in COMPOUNDS}


@functools.cache
def tokens_of(path: Path) -> tuple[set[str], list[str], list[str]]:
    """The names, the strings and the comments of a file."""
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text()).readline))
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    strings, comments = (
        [token.string for token in tokens if token.type == kind] for kind in (tokenize.STRING, tokenize.COMMENT)
    )
    return names, strings, comments


@functools.cache
def identifiers_of(path: Path) -> set[str]:
    """Every name in a file, those within f-strings too, and the file's own."""
    names, strings, _ = tokens_of(path)
    found = {path.stem, *names}
    for string in strings:
        if string[:1] in "fF":
            for inside in re.findall(r"\{([^{}]*)\}", string):
                found |= set(re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'|\"[^\"]*\"", "", inside)))
    return found


def allowed(word: str, path: Path) -> bool:
    return any(word == known and path.match(file) for known, file in EXCEPTIONS)


def test_no_identifier_and_no_file_name_has_a_word_that_was_replaced():
    wrong = [
        f"{path.relative_to(ROOT)}: {identifier} ({word})"
        for path in FILES
        for identifier in sorted(identifiers_of(path))
        for word in sorted(refused_in(identifier))
        if not allowed(word, path)
    ]
    assert not wrong, "\n".join(["", *wrong])


def test_no_hyperparameter_and_no_memory_has_a_word_that_was_replaced():
    for name, cls in ALGORITHMS.items():
        for field in fields(cls):
            assert not refused_in(field.name), f"{name}: {field.name}"
    for path in FILES:
        for node in ast.walk(tree_of(path)) if "memory" in path.read_text() else ():  # to parse all takes seconds
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Constant)
                and "memory" in ast.unparse(node.value)
            ):
                assert not refused_in(str(node.slice.value)), f"{path}: memory {node.slice.value!r}"


def test_the_exceptions_are_few_and_each_is_needed():
    assert len(EXCEPTIONS) <= 15
    found = {(word, path) for path in FILES for name in identifiers_of(path) for word in refused_in(name)}
    for word, file in EXCEPTIONS:
        assert any(word == known and path.match(file) for known, path in found), f"{word} in {file}: no longer there"


# Phrases of the old pages and messages, each with what is said now.
PHRASES = {
    r"\bdebts?\b": "residual",
    r"\bowe[sd]?\b|\bowing\b": "keep as residual",
    r"\bwish(es)?\b": "corrected gradient",
    r"\bunheard\b|\bnot heard\b|\bheard of\b": "not delivered",
    r"\bcall(s|ed|ing)? (the|a|this) round off\b|\bcalled off\b": "abort the round",
    r"\bspoil(s|ed|t)?\b": "not finite",
    r"\bvoid (round|notice|frame)s?\b|\bskip notices?\b": "aborted round; control frame",
    r"\bknobs?\b": "hyper-parameter",
    r"\bhubs?\b": "server",
    r"\bcrews?\b": "ranks",
    r"\btoy\b": "small",
    r"\bnotices? of\b": "control frame",
    r"\beverybody\b|\beverybody's\b": "all workers",
    r"\btall(y|ies)\b": "vote counts",
    r"\buncut\b": "unsplit",
    r"\brehears(al|ed|ing)\b": "dry run",
    r"\bmishaps?\b": "fault",
    r"\bthe way (up|down)\b|\bon the way (up|down)\b|\bboth ways\b": "upload, download",
    r"\btopolog(y|ies)\b": "layout, graph",
    r"\bhalves\b(?! of)": "worker session, server session",
    r"\bramps?\b": "warm-up",
    r"\bcoins?\b": "Bernoulli draw",
    r"\bheads? and bod(y|ies)\b|\bframes' bodies\b": "header and payload",
    r"\bplain torch is the truth\b|\bthe truth\b": "reference",
    r"\bsettled\b": "committed",
}


@functools.cache
def prose_of(path: Path) -> str:
    """The comments, docstrings and other texts of a file; a page as it is, without code between backticks."""
    if path.suffix == ".md":
        return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL))
    _, strings, comments = tokens_of(path)
    # One word alone is a name, such as a stream of random numbers.
    texts = [text for text in strings + comments if " " in text]
    return re.sub(r"`[^`\n]*`", "", "\n".join(texts))


@over_inputs("pattern", PHRASES)
def test_no_sentence_uses_a_word_that_was_replaced(pattern):
    wrong = [
        f"{path.relative_to(ROOT)}: ...{text[max(0, hit.start() - 40) : hit.end() + 30]!r}"
        for path in [*FILES, *PAGES]
        if path != Path(__file__) and path.name not in ("CHANGELOG.md", "glossary.md")
        for text in [prose_of(path)]
        for hit in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert not wrong, "\n".join([f"say {PHRASES[pattern]}:", *wrong])
