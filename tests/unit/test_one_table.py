"""One list of conditions, formats, precisions and saliency methods each; all else derives from it."""

import ast
import re

import pytest
from PIL import Image

from tests.edited import edited
from tests.unit.test_house import GRAPH, MODULES, ROOT

CONDITION = """Condition(
    code="SCC", name="squamous cell carcinoma", ham10000_dx="scc", marmal88_dx="squamous", isic2017=None,
    isic2019="SCC", snomed=None, risk=RiskLevel.HIGH, group=ConformalGroup.CARCINOMA,
    prompts=("a scaly red nodule",), paraphrases=("a", "b", "c", "d", "e"),
)"""


def literals(home, table):
    """What stands in one column of a table, read from its source: no package needs to be installed."""
    for node in ast.walk(ast.parse(MODULES[home].read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == table[0]:
            found = next(keyword.value for keyword in node.keywords if keyword.arg == table[1])
            constants = (part for part in ast.walk(found) if isinstance(part, ast.Constant))
            yield from (part.value for part in constants if isinstance(part.value, str))


def tables():
    """By name: the module that has the table, what it lists, and how many of them a statement may name."""
    conditions, formats = "derma_semantics.domain.conditions", "derma_semantics.domain.formats"
    precisions, methods = "derma_serving.runtime.precisions", "derma_saliency.methods"
    for column in ("code", "ham10000_dx", "marmal88_dx", "name"):
        yield f"condition {column}", (conditions, set(literals(conditions, ("Condition", column))), 2)
    yield "formats", (formats, set(literals(formats, ("Format", "name"))), 2)
    yield "suffixes", (formats, set(literals(formats, ("Format", "suffixes"))), 1)
    yield "precisions", (precisions, {"fp32", *literals(precisions, ("Precision", "name"))}, 2)
    yield "methods", (methods, set(literals(methods, ("Method", "name"))), 1)


TABLES = dict(tables())
SOURCES = {**MODULES, "locustfile": ROOT / "benchmarks" / "locustfile.py"} | {
    str(path): path for path in (ROOT / "model_repository").rglob("*.py")
}


def statements(tree):
    """Statements with what they hold themselves, docstrings aside: bodies are statements of their own."""
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not is_text:
            own = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.stmt)]
            yield node.lineno, [part for child in own for part in ast.walk(child)]


def named(parts, words):
    """Which of the words a statement's strings are, or hold as words."""
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return {word for word in words for text in texts if word in (text, *re.findall(r"[\w-]+", text))}


@pytest.mark.parametrize("table", TABLES)
def test_no_second_list_stands_elsewhere(table):
    home, words, most = TABLES[table]
    assert len(words) >= 4
    found = [
        f"{name}:{line} names {', '.join(sorted(hit))}"
        for name, path in SOURCES.items()
        if name != home
        for line, parts in statements(ast.parse(path.read_text()))
        if len(hit := named(parts, words)) > most
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["X = ('MEL', 'NV', 'BCC')", "f(*'MEL NV BCC'.split())", "a if b == 'MEL' else 'NV' if c else 'BCC'"],
)
def test_a_second_list_would_be_found(code):
    ((_, parts),) = statements(ast.parse(code))
    assert named(parts, TABLES["condition code"][1]) == {"MEL", "NV", "BCC"}


@pytest.mark.parametrize("package", ["derma_serving", "derma_export"])
def test_serving_and_export_ask_the_table_what_a_precision_needs(package):
    """No ``precision == "fp16"``: another such precision would not be treated alike."""
    home, words, _ = TABLES["precisions"]
    compared = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        if name.split(".")[0] == package and name != home
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and named(ast.walk(node), words)
    ]
    assert compared == []


def test_exit_codes_of_commands_have_names():
    bare = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        if "click" in GRAPH[name]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.exit"
        if any(isinstance(part, ast.Constant) and part.value for part in node.args)
    ]
    assert bare == []


def test_another_format_is_read_everywhere(tmp_path):
    Image.new("RGB", (300, 200), "brown").save(tmp_path / "a.gif")
    with edited("derma_semantics.domain.formats", "FORMATS", 'Format(name="GIF", suffixes=(".gif",))'):
        from derma_semantics.bulk.sources import images
        from derma_semantics.domain.formats import CLIENT_SUFFIXES
        from derma_semantics.imaging.folders import images_in, located
        from derma_semantics.imaging.preprocess import preprocess

        assert images_in(tmp_path) == located([tmp_path], ["a"]) == [tmp_path / "a.gif"]
        assert list(images([str(tmp_path)])) == [str(tmp_path / "a.gif")]
        assert preprocess((tmp_path / "a.gif").read_bytes()).shape == (224, 224, 3)
        assert ".gif" in CLIENT_SUFFIXES
    from derma_semantics.imaging.folders import images_in

    assert images_in(tmp_path) == []


def test_another_condition_reaches_contract_reports_and_tables(tmp_path):
    header = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC,SCC"
    (tmp_path / "truth.csv").write_text(f"{header}\na,0,0,0,0,0,0,0,1\n")
    with edited("derma_semantics.domain.conditions", "CONDITIONS", CONDITION):
        from derma_semantics.commands.explain import explain
        from derma_semantics.domain.contract import CLASSIFIER
        from derma_semantics.evaluation.truth import read_truth
        from derma_semantics.imaging.dicom.codes import MEANINGS

        assert CLASSIFIER.outputs["PROBABILITIES"].shape == (8,)
        assert MEANINGS["SCC"] in MEANINGS["P_SCC"]
        assert read_truth(tmp_path / "truth.csv")[0].condition == 7
        choices = {option.name: option.type for option in explain.params}["condition"].choices
        assert "SCC" in choices


def test_another_condition_is_in_no_configuration_that_people_wrote():
    """Sizes that the table decides are -1 there: export states them."""
    sized = re.compile(r'name: "(PROBABILITIES|PREDICTION_SET)"[^}]*dims: \[ (-?\d+) \]')
    found = [
        match[1]
        for path in (ROOT / "model_repository").rglob("*.pbtxt")
        for match in sized.finditer(path.read_text())
        if match[2] != "-1"
    ]
    assert found == []
