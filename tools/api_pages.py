"""The pages of the API reference: one for each module that `book/api.md` lists.

`book/api.md` is written by hand but for what it says about each module, which is the first sentence
of the module's docstring (`make notebooks`). The pages themselves are made when the book is built.
"""

import ast
import re

import chapter_map
import targets
from house import BOOK, REPOSITORY, ROOT, TAG

PAGE, FOLDER = BOOK / "api.md", BOOK / "api"
ENTRY = re.compile(r"^- .*api:(mistral_lib[\w.]*).*$", re.MULTILINE)
MODULE = """\
# {name}

[API reference](../api.md) · `{module}` · [source]({files}/{source}) · [tests]({files}/{tests})

```{{eval-rst}}
.. automodule:: {module}
   :members:
```
"""


def page() -> str:
    """The overview, with the first sentence of each module's docstring."""
    return ENTRY.sub(
        lambda entry: f"- [](api:{entry[1]}): {first_sentence(entry[1])}", PAGE.read_text()
    )


def first_sentence(module: str) -> str:
    """What a module is, in its own words.

    >>> first_sentence("mistral_lib.masks")
    'Which key a query may see (chapter 7, "Sliding windows and masks").'
    """
    text = ast.get_docstring(ast.parse(targets.source(module).read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split())


def page_of(module: str) -> str:
    """The page of one module."""
    path = targets.source(module).relative_to(ROOT)
    tests = chapter_map.tests_of(path.parent if path.stem == "__init__" else path)
    return MODULE.format(
        name=module.removeprefix("mistral_lib."),
        module=module,
        files=f"{REPOSITORY}/blob/{TAG}",
        source=path.as_posix(),
        tests=tests.as_posix(),
    )


def write() -> None:
    """Makes the pages; those that are right already stay as they are, so Sphinx skips them."""
    FOLDER.mkdir(exist_ok=True)
    pages = {FOLDER / targets.api_page(module): page_of(module) for module in targets.modules()}
    for old in {*FOLDER.iterdir()} - pages.keys():
        old.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
