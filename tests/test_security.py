"""What the source must never do: each rule walks every file of the four packages, and is shown to fire."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("samo", "samo_audio", "samo_text", "cli")

# Modules whose loading executes what a file says, or that hand a line to a shell.
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "commands"}
# Functions by the name they are called by, once imports are resolved.
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "pandas.read_pickle",
    "xml.etree.ElementTree.parse", "xml.etree.ElementTree.fromstring", "ssl._create_unverified_context",
}  # fmt: skip
# Of functions that have a dangerous and a safe way: the argument that must be there.
MUST_SAY = {"torch.load": ("weights_only", True)}
# Arguments that no call may have.
NEVER_SAY = {
    ("shell", True), ("allow_pickle", True), ("verify", False), ("trust_remote_code", True), ("weights_only", False),
    ("autoescape", False),
}  # fmt: skip


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def names_of(nodes: list[ast.AST]) -> dict[str, str]:
    """What each imported name stands for."""
    known: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                known[each.asname or each.name.partition(".")[0]] = (
                    each.name if each.asname else each.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            known.update({each.asname or each.name: f"{node.module}.{each.name}" for each in node.names})
    return known


def full_name(node: ast.expr, known: dict[str, str]) -> str:
    """The dotted name of what is called, its first part as imported; empty where it is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([known.get(node.id, node.id), *reversed(parts)])


def arguments(call: ast.Call) -> dict[str, object]:
    """Keywords whose value is written out."""
    return {each.arg: each.value.value for each in call.keywords if each.arg and isinstance(each.value, ast.Constant)}


def modules(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            # An exception that torch.load raises, to be caught.
            only_error = {each.name for each in node.names} == {"UnpicklingError"}
            found = [] if only_error else [node.module or ""]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            # import_module("pickle"), load_object("pickle:loads")
            name = full_name(node.func, {}).rpartition(".")[2]
            if name in ("import_module", "load_object"):
                found = [str(node.args[0].value).partition(":")[0]]
        for name in found:
            if name.partition(".")[0] in FORBIDDEN_MODULES:
                yield node.lineno, f"imports {name}"  # type: ignore[attr-defined]


def calls(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    known = names_of(nodes)
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        name, given = full_name(node.func, known), arguments(node)
        if name in FORBIDDEN_CALLS:
            yield node.lineno, f"calls {name}"
        if name in MUST_SAY and given.get(MUST_SAY[name][0]) is not MUST_SAY[name][1]:
            yield node.lineno, f"calls {name} without {MUST_SAY[name][0]}={MUST_SAY[name][1]}"
        yield from (
            (node.lineno, f"says {argument}={value}")
            for argument, value in NEVER_SAY
            if given.get(argument, ...) is value
        )
        if name == "numpy.load" and given.get("allow_pickle") is not False:
            yield node.lineno, "calls numpy.load without allow_pickle=False"


def handed_on(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """A forbidden function that is named without being called, as in ``map(eval, lines)``."""
    known = names_of(nodes)
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in called:
            name = full_name(node, known)
            if name in FORBIDDEN_CALLS - {"compile"} or name in MUST_SAY:
                yield node.lineno, f"hands on {name}"


def guards(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """``assert`` with a message is a check that ``python -O`` leaves out; one without tells a type checker a fact."""
    for node in nodes:
        if isinstance(node, ast.Assert) and node.msg is not None:
            yield node.lineno, "guards with assert"


RULES: dict[str, Callable[[list[ast.AST]], Iterator[tuple[int, str]]]] = {
    "modules": modules,
    "calls": calls,
    "handed on": handed_on,
    "guards": guards,
}


def found(text: str) -> list[tuple[int, str]]:
    """Line and name of each thing that breaks a rule; the tree is walked once for all rules."""
    nodes = list(ast.walk(ast.parse(text)))
    return [each for rule in RULES.values() for each in rule(nodes)]


def test_the_source_keeps_every_rule() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in files()
        for line, what in found(path.read_text(encoding="utf-8"))
    ]
    assert len(files()) > 200
    assert broken == []


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        ("import pickle", "imports pickle"),
        ("from pickle import UnpicklingError, loads", "imports pickle"),
        ("def f():\n    from joblib import load", "imports joblib"),
        ("import marshal as m", "imports marshal"),
        ("import_module('dill')", "imports dill"),
        ("load_object('pickle:loads')", "imports pickle"),
        ("import torch\ntorch.load(path)", "calls torch.load without weights_only=True"),
        ("from torch import load\nload(path, weights_only=safe)", "calls torch.load without weights_only=True"),
        ("import torch as t\nt.load(path, weights_only=False)", "says weights_only=False"),
        ("import yaml\nyaml.load(text)", "calls yaml.load"),
        ("from yaml import load as read\nread(text)", "calls yaml.load"),
        ("eval(text)", "calls eval"),
        ("exec(text)", "calls exec"),
        ("list(map(eval, lines))", "hands on eval"),
        ("import torch\nopen_with(torch.load)", "hands on torch.load"),
        ("import os\nos.system('ls')", "calls os.system"),
        ("from os import popen\npopen('ls')", "calls os.popen"),
        ("import subprocess\nsubprocess.run(line, shell=True)", "says shell=True"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "says allow_pickle=True"),
        ("import numpy as np\nnp.load(path)", "calls numpy.load without allow_pickle=False"),
        ("import pandas as pd\npd.read_pickle(path)", "calls pandas.read_pickle"),
        ("import requests\nrequests.get(url, verify=False)", "says verify=False"),
        ("from tempfile import mktemp\nmktemp()", "calls tempfile.mktemp"),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", "says trust_remote_code=True"),
        ("assert size < 10, 'too large'", "guards with assert"),
    ],
)
def test_each_rule_fires(planted: str, says: str) -> None:
    assert says in [what for _, what in found(planted)]


@pytest.mark.parametrize(
    "allowed",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import re\nre.compile('a')",
        "from pickle import UnpicklingError",
        "model.eval()",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import yaml\nyaml.safe_load(text)",
        "assert process.stdin is not None",
        "'eval(text)'",
    ],
)
def test_what_is_no_danger_is_let_be(allowed: str) -> None:
    assert found(allowed) == []
