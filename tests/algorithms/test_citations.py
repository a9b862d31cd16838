"""What the files of methods, compressors and published tables cite: papers by authors and title, places that exist."""

import io
import re
import tokenize
from pathlib import Path

import laconic
from laconic.contract import ALGORITHMS
from support.inputs import over_inputs

PACKAGE = Path(laconic.__file__).parent

MONOGRAPH = "Liu, Zhang: Distributed Learning Systems with First-Order Methods"
SASG = (
    "Deng, Li, Sun, Lu: Communication-Efficient Distributed Learning via Sparse and Adaptive Stochastic Gradient (SASG)"
)
VOTING = "Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting"
DROPSIGN = "Phong, Phuong: Distributed SignSGD With Improved Accuracy and Network-Fault Tolerance"
COMPSKIP = "Phuong, Phong, Fukushima: Distributed Stochastic Gradient Descent With Compressed and Skipped Communication"

# By file: the papers that its docstring names, and what stands at every place that it cites. Read against the papers.
CITED: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "algorithms/asgd.py": ((MONOGRAPH,), {
        "sections 4.1 and 4.2": "the asynchronous parameter server, and its analysis",
        "(4.10)": "the learning rate", "(4.8)": "its condition, L gamma tau <= 1/2",
    }),
    "algorithms/compskip.py": ((COMPSKIP,), {
        "Algorithm 1": "CompSkipDSGD", "Lemma 1": "the corrected iterate, with c' = c|S|/M",
        "Line 11": "x_{t+1} = x_t - eta_t Delta_t", "line 10": "receive Delta_t",
        "lines 6-9 and 12": "momentum, corrected gradient, signs or a skip, new residual, by the prose's numbers",
        "lines 15-18": "the server's mean, signs or a skip, and its new residual",
        "Table 2": "gigabytes that skips save, and accuracies",
    }),
    "algorithms/csgd.py": ((MONOGRAPH,), {
        "section 3.1.2": "SGD with lossy compression", "(3.2)": "Q(1/N sum Q(g_n))", "(3.3)": "the ring, a sum",
    }),
    "algorithms/csgd_ring.py": ((MONOGRAPH,), {
        "section 3.1.2": "SGD with lossy compression", "(3.3)": "Q(...Q(Q(g_1) + g_2)... + g_N)",
        "section 1.3": "the communication model, with the ring of 1.3.3",
    }),
    "algorithms/dist_ef.py": (("Zheng, Huang, Kwok: Communication-Efficient Distributed Blockwise Momentum SGD",), {
        "Algorithm 2": "dist-EF-blockwiseSGD with momentum",
    }),
    "algorithms/dropsign.py": ((DROPSIGN,), {
        "Algorithm 1": "DropSignSGD", "Lemma 7": "the corrected iterate: x - eta/c (e~ + mean e)",
        "Line 11": "x_{t+1} = x_t - eta_t Delta_t", "lines 10-11": "pull, and the update",
        "lines 6-8 and 12": "momentum, corrected gradient, signs, and the new residual",
        "lines 15-17": "the server's mean, signs, and new residual",
    }),
    "algorithms/dsgd.py": ((MONOGRAPH,), {"sections 5.1 and 5.2": "the system; X_{t+1} = (X_t - gamma G) W is (5.2)"}),
    "algorithms/ec_sgd.py": ((MONOGRAPH,), {
        "section 3.3": "EC-SGD for arbitrary compression", "equations (3.8)": "v^(n) = gradient + delta^(n)",
        "(3.9)": "delta^(n) = v^(n) - Q(v^(n))", "(3.10)": "v = mean of Q(v^(n)) + delta", "(3.11)": "delta = v - Q(v)",
        "(3.12)": "x_{t+1} = x_t - gamma Q(v)", "Algorithm 1": "DoubleSqueeze",
    }),
    "algorithms/lag.py": (("Chen, Giannakis, Sun, Yin: LAG", "Deng, Li, Sun, Lu (SASG)"), {
        "rule (5)": "LAG's rule for stochastic gradients, of two different samples: ineffective",
    }),
    "algorithms/lasg.py": (("Chen, Sun, Yin: LASG", "Deng, Li, Sun, Lu (SASG)"), {
        "equation (6)": "the rule of two gradients of the same sample",
    }),
    "algorithms/powersgd.py": (("Vogels, Karimireddy, Jaggi: PowerSGD",), {
        "Algorithms 1 and 2": "rank-r compression, and SGD with error feedback and momentum",
    }),
    "algorithms/sasg.py": ((SASG,), {
        "Algorithm 1": "SASG", "(6)": "the rule of two gradients of the same sample", "(8)": "the update of the server",
        "Equation (16)": "the auxiliary sequence, false as printed where a worker skips and k < d",
    }),
    "algorithms/sgd.py": ((MONOGRAPH,), {"section 2.1.2": "data-parallel SGD: gradient aggregation, a sum"}),
    "algorithms/sgd_model.py": ((MONOGRAPH,), {"section 2.1.2": "data-parallel SGD: model aggregation"}),
    "algorithms/sgd_server.py": ((MONOGRAPH,), {"section 2.1.2": "data-parallel SGD: global model replica"}),
    "algorithms/signsgd_mv.py": (("signSGD with Majority Vote is Communication Efficient and Fault Tolerant",), {
        "Algorithm 1": "signSGD with majority vote",
    }),
    "algorithms/diloco.py": (("DiLoCo, Distributed Low-Communication Training of Language Models",), {
        "Algorithm 1": "DiLoCo",
    }),
    "algorithms/sparse.py": ((SASG, "Stich, Cordonnier, Jaggi: Sparsified SGD with Memory"), {}),
    "algorithms/sparseloco.py": (("Communication Efficient LLM Pre-training with SparseLoCo",), {}),
    "algorithms/ssgd_mv.py": ((VOTING,), {
        "Algorithm 1": "SSGD-MV", "line 9": "the change plus the residual",
        "lines 20-22": "what is sent on the mask, and the new residual",
        "line 26": "the sum of the workers' values",
    }),
    "algorithms/ssgd_mv_ad.py": ((VOTING,), {
        "Algorithm 2": "majority voting with add-drop", "lines 11-12": "what is added", "lines 10-15": "the new list",
    }),
    "algorithms/ssgd_mv_rs.py": ((VOTING,), {
        "section 2": "sparse communication with majority voting: both strategies", "Algorithm 1": "SSGD-MV",
        "line 15": "the mask sampled at random, weighted", "section 4.2": "the scenarios, with SSGD-MV-RS",
    }),
    "algorithms/ssgd_topk.py": ((VOTING,), {
        "section 2": "top-K sparsification, (6) and (7)", "Table 1": "accuracies and bits of 15 rows",
        "Algorithm 1": "SSGD-MV", "line 26": "the sum of the workers' values",
    }),
    "compressors/fractional.py": ((VOTING,), {"section 4.3.2": "the fractional quantizer"}),
    "compressors/qsgd.py": ((), {"section 3.1": "QSGD's quantizer"}),
    "compressors/quantized.py": ((MONOGRAPH,), {"section 3.1.1": "randomized quantization"}),
    "compressors/selected_sign.py": ((DROPSIGN, "Phuong, Phong: Distributed SGD with Flexible Gradient Compression"), {
        "Table 1": "costs and accuracies: Phuong-Phong [10], (0.3d + 32) + (d + 32)",
    }),
    "compressors/short_floats.py": ((MONOGRAPH,), {"section 3.2": "the analysis, which lists compressors: clipping"}),
    "compressors/sparsified.py": ((MONOGRAPH,), {"section 3.2": "the same list: randomized sparsification"}),
    "compressors/ternary.py": (("TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning",), {
        "equation (1)": "s sign(g) b, with b Bernoulli of |g| / s",
    }),
    "policies/skip_policies.py": ((), {"section II": "CompSkipDSGD and its analysis: flags at random, or by the link"}),
    "reproduce/sasg_memory.py": (("Deng, Li, Sun, Lu: SASG",), {
        "Table III": "times, extra computation and memory", "section VI": "the experiments",
    }),
    "reproduce/sasg_mnist.py": ((SASG,), {
        "Table II": "rounds and bits to an accuracy", "section VI": "the experiments",
    }),
    "reproduce/ssgdmv_bits.py": ((VOTING,), {
        "Table 1": "accuracies and bits of 15 rows", "section 4.3": "positions and quantized values",
    }),
}  # fmt: skip
SOURCES = {  # the place in a method's `source`, which `laconic show` prints
    "ec-sgd": "3.3; DoubleSqueeze, Alg. 1", "lasg": "SASG, (6)", "ssgd-mv-rs": "Majority Voting, 2", "csgd": "3.1.2",
    "csgd-ring": "(3.3)", "asgd": "4.1", "dsgd": "5.1", "sgd": "2.1.2", "sgd-model": "2.1.2", "sgd-server": "2.1.2",
    "compskip": "Algorithm 1", "dropsign": "Algorithm 1", "sasg": "Deng, Li, Sun & Lu, SASG, Algorithm 1",
    "sparse": "Deng, Li, Sun & Lu, SASG, baseline", "ssgd-mv": "Algorithm 1", "ssgd-mv-ad": "Algorithm 2",
    "ssgd-topk": "Table 1",
}  # fmt: skip

_PLACE = re.compile(
    r"(?:[Ss]ections?|Tables?|Algorithms?|Lemma|Theorem|[Ll]ines?|[Ee]quations?|rule) "
    r"\(?(?:\d[\d.]*\d|\d|[IVX]+)\)?(?:-\d+)?(?: and \d[\d.]*)?|\(\d+(?:\.\d+)?\)"
)


def _cited_in(path: Path) -> set[str]:
    """The places that comments and texts of a file cite."""
    found: set[str] = set()
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text()).readline))
    for token in tokens:
        if token.type in (tokenize.COMMENT, tokenize.STRING) and "FORMAT.md" not in token.string:
            found |= set(_PLACE.findall(" ".join(token.string.split())))
    return {place if "(" in place else place.rstrip(").") for place in found - {"(0)"}}  # sgn(0) is none


def _citations(path: Path) -> set[str]:
    found = _cited_in(path)
    return {place for place in found if not any(place != other and place in other for other in found)}


@over_inputs("name", CITED)
def test_a_file_names_its_papers_and_cites_only_what_was_read(name):
    papers, cited = CITED[name]
    path = PACKAGE / name
    text = " ".join(path.read_text().split())
    for paper in papers:
        assert paper in text
    assert _citations(path) == set(cited)


def test_every_file_that_cites_something_is_in_the_table():
    folders = ("algorithms", "compressors", "policies", "reproduce")
    cites = {
        str(path.relative_to(PACKAGE))
        for folder in folders
        for path in sorted((PACKAGE / folder).glob("*.py"))
        if any(not place.startswith(("(0)", "(1)", "(2)")) for place in _citations(path))
    }
    assert cites <= set(CITED)


def test_the_source_that_a_user_sees_names_the_section():
    for name, place in SOURCES.items():
        assert ALGORITHMS[name].source.endswith(place) or place in ALGORITHMS[name].source, name


def test_the_readme_and_the_glossary_name_the_same_papers():
    root = PACKAGE.parents[1]
    readme = " ".join((root / "README.md").read_text().split()).replace("ü", "u")
    for paper in (MONOGRAPH, SASG, VOTING, DROPSIGN, COMPSKIP):
        authors, title = paper.split(": ", 1)
        assert authors in readme
        assert title in readme.replace("[", "")
    glossary = (root / "docs" / "glossary.md").read_text()
    assert "### SASG (Deng, Li, Sun, Lu)" in glossary
    assert "paper 00" not in (PACKAGE / "wire" / "FORMAT.md").read_text()
