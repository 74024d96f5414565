"""Checks the axes and dtypes of arrays in every call in the tests, as the signatures declare them.

The library itself checks nothing: what a reader sees of its source has no decorators, and a call
costs what it costs. `conftest.py` installs this import hook, which puts one decorator on every
function of the library that declares the axes of an array.
"""

import ast
import importlib.abc
import importlib.machinery
import sys

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

PACKAGE = "mistral_lib"

# An int is a float, as in PEP 484.
checked = jaxtyped(typechecker=beartype(conf=BeartypeConf(is_pep484_tower=True)))


class Decorate(ast.NodeTransformer):
    """Puts the decorator next to a function, below those that it has."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """One function; those inside it too."""
        self.generic_visit(node)
        arguments = ast.unparse(node.args)
        returns = ast.unparse(node.returns) if node.returns else ""
        if "[Array" in arguments + returns:
            decorator = ast.parse("__import__('shape_checks').checked", mode="eval").body
            for part in ast.walk(decorator):  # a function begins where its first decorator stands
                ast.copy_location(part, node)
            node.decorator_list.append(decorator)
        return node


class Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module with the decorators in it, and keeps no bytecode of that."""

    def get_code(self, fullname: str):
        """The code object of a module."""
        path = self.get_filename(fullname)
        tree = Decorate().visit(ast.parse(self.get_data(path), path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the library's modules as usual, and has them loaded by `Loader`."""

    def find_spec(self, fullname, path=None, target=None):
        """The place of a module of the library; `None` for any other."""
        if not f"{fullname}.".startswith(f"{PACKAGE}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(fullname, spec.loader.path)
        return spec


def install() -> None:
    """Checks whatever of the library is imported from now on."""
    sys.meta_path.insert(0, Finder())
