"""How the code is kept, in numbers: circles of imports, long functions and files, repeated code, words to avoid.

    python benchmarks/house.py
    python benchmarks/house.py --root ../older --pairs 40

Counts are places to look, not verdicts. ``--root`` is any checkout of this repository, an older one as well.
``--pairs`` asks the command ``duplicates``, where there is one, for the pairs of places that share lines.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES = ("samo", "samo_core", "samo_audio", "samo_text", "cli/samo_cli")
LONG_FUNCTION, LONG_FILE = 60, 400
# Words that say too little, as names in code. A reader of the field would not search for them.
WORDS = ("judge", "judged", "judging", "said", "asked", "told", "account", "borrowed", "barren", "chore", "chores")
WORDS += ("cuts", "holds", "joined")

Imports = Mapping[str, set[str]]


def main() -> None:
    """Print the counts, each with what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--pairs", type=int, default=0, help="how many pairs of repeated places to ask for")
    args = parser.parse_args()
    files = source_files(args.root)
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files.values()}
    report("circles of modules", [" <-> ".join(circle) for circle in circles(imports(files, trees))])
    report(f"functions over {LONG_FUNCTION} lines", list(long_functions(args.root, trees)))
    report(f"files over {LONG_FILE} lines", list(long_files(args.root, trees)))
    found = words(trees)
    report("names to avoid", [f"{word} {found[word]}" for word in WORDS if found[word]], sum(found.values()))
    if args.pairs:
        print(repeated(args.root, args.pairs))


def report(title: str, rows: list[str], count: int | None = None) -> None:
    """One line, then what it counts."""
    print(f"{title}: {len(rows) if count is None else count}")
    for row in rows:
        print(f"    {row}")


def source_files(root: Path) -> dict[str, Path]:
    """The modules of the packages, by name."""
    found = {}
    for package in PACKAGES:
        base = (root / package).parent
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(files: Mapping[str, Path], trees: Mapping[Path, ast.Module]) -> dict[str, set[str]]:
    """Which modules each module imports, inside functions too; what stands under ``TYPE_CHECKING`` does not run."""
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        targets: set[str] = set()
        for node in running(trees[path]):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = absolute(name, path, node)
                inner = {f"{base}.{alias.name}" for alias in node.names}
                # A name that is no module comes from the package's own file.
                targets |= {target if target in files else base for target in inner}
        found[name] = (targets & files.keys()) - {name}
    return found


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``, in any order."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and named(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                waiting += child.orelse
            else:
                waiting.append(child)


def named(test: ast.expr) -> str:
    """A plain or dotted name; nothing for any other condition, which would take long to write out."""
    return ast.unparse(test) if isinstance(test, ast.Name | ast.Attribute) else ""


def absolute(name: str, path: Path, node: ast.ImportFrom) -> str:
    """The module that ``from ... import`` names."""
    if not node.level:
        return node.module or ""
    parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def circles(graph: Imports) -> list[list[str]]:
    """Groups of modules of which each reaches every other through imports."""
    reached = {name: reachable(graph, name) for name in graph}
    seen: set[str] = set()
    found = []
    for name in sorted(graph):
        circle = {other for other in reached[name] if name in reached[other]}
        if name in reached[name] and name not in seen:
            found.append(sorted(circle))
        seen |= circle
    return found


def reachable(graph: Imports, start: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


def long_functions(root: Path, trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    """The longest first; a list of settings and what a docstring tells of each are no long function."""
    rows = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                own = (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0
                rows.append((length, f"{path.relative_to(root)}: {node.name} {length}, {own} below its docstring"))
    return (text for length, text in sorted(rows, reverse=True) if length > LONG_FUNCTION)


def long_files(root: Path, trees: Mapping[Path, ast.Module]) -> Iterator[str]:
    """The longest first."""
    rows = [(len(path.read_text(encoding="utf-8").splitlines()), path) for path in trees]
    return (f"{path.relative_to(root)} {length}" for length, path in sorted(rows, reverse=True) if length > LONG_FILE)


def words(trees: Mapping[Path, ast.Module]) -> Counter[str]:
    """How often a word to avoid stands in a name: alone, or as one of the words between underscores."""
    found: Counter[str] = Counter()
    for tree in trees.values():
        for name in names(tree):
            parts = re.split(r"_+|(?<=[a-z])(?=[A-Z])", name)
            found.update(part.lower() for part in parts if part.lower() in WORDS)
    return found


def names(tree: ast.Module) -> Iterator[str]:
    """Every name that the code gives or uses; no strings, comments or docstrings."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Name():
                yield node.id
            case ast.Attribute():
                yield node.attr
            case ast.arg() | ast.keyword() if node.arg:
                yield node.arg
            case ast.alias():
                yield node.asname or node.name.rpartition(".")[2]


def repeated(root: Path, most: int) -> str:
    """What ``duplicates`` says."""
    if not shutil.which("duplicates"):
        return "repeated places: no command `duplicates` here"
    command = ["duplicates", "--most", str(most), "--repo", str(root), "--seconds", "120"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.rstrip()


if __name__ == "__main__":
    main()
