"""Sizes of files and functions, and names and calls that the style page rules out."""

import ast
import re

from sources import files, label, trees

LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 70


def test_files_and_functions_are_short():
    wrong = [
        f"{label(path)} has {source.count(chr(10))} lines"
        for path, source in files().items()
        if source.count("\n") > LINES_OF_A_FILE
    ]
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > LINES_OF_A_FUNCTION:
                    wrong.append(f"{label(path)}:{node.lineno} {node.name} has {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_no_shapeless_modules_and_no_open_ends():
    wrong = [label(path) for path in files() if path.stem in ("utils", "misc", "helpers", "common")]
    for path, source in files().items():
        for number, line in enumerate(source.splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX)\b", line):
                wrong.append(f"{label(path)}:{number} {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_rooms_only_reexport():
    wrong = []
    for path, tree in trees().items():
        if path.name == "__init__.py" and path.parent.name != "pgm_jax":
            body = [
                node
                for node in tree.body
                if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            ]
            wrong += [
                f"{label(path)}:{n.lineno}" for n in body if not isinstance(n, (ast.Import, ast.ImportFrom))
            ]
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_prints():
    wrong = [
        f"{label(path)}:{node.lineno}"
        for path, tree in trees().items()
        if "cli" not in path.parts
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong, "\n".join(wrong)
