"""Finds numbers about a model that a notebook records with `record`, as if they were counts.

`record` is for counts and arithmetic. What a model computed on one text is recorded with `example`,
and what it computed on many with `claim`. The code shows which is which: a value is *of the model*
if the expression that it comes from mentions the model, or a name whose value is, or a function
that mentions them. So is what a function hears that is given to `transplanted`, and what is read
from the records of trained models. Settings, counts of parameters, lengths, shapes and what a
compiled program costs are not.
"""

import ast
from collections.abc import Iterator

MODELS = {"MistralCausalLM", "MistralBackbone"}
ALWAYS = {"model", "backbone"}  # as arguments of functions, too
LISTENED = {"transplanted", "read", "sweep", "activations"}  # they call functions with activations
RECORDS = "records"  # the folder of records of trained models
GUARDED = {"record"}
# Attributes and calls that tell how large a model is or how it is set, not what it computes.
SETTINGS = set(
    "preprocessor tokenizer count_params get_config compute_dtype dtype presets weights variables "
    "vocabulary_size num_layers num_query_heads hidden_dim intermediate_dim num_key_value_heads "
    "rope_max_wavelength rope_scaling_factor layer_norm_epsilon sliding_window dropout head_dim "
    "tie_word_embeddings rope_scaling config shape size ndim nbytes itemsize trainable_variables "
    "cost_analysis memory_analysis as_text get_layout_map".split()
)
COUNTS = {"len", "isinstance", "range", "enumerate"}


class Reader(ast.NodeVisitor):
    """Follows the values of a notebook from the model to `record`.

    Attributes:
        known: names whose value is of the model so far.
        filled: those of them that got it by a method, such as lists by `append`.
        imported: names of modules and the like, which hold no values: `np.asarray(logits)`.
        found: the names under which such values were recorded.
    """

    def __init__(self, tree: ast.AST):
        self.known = set(ALWAYS)
        self.filled: set[str] = set()
        self.found: list[str] = []
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        given = [c for c in calls if getattr(c.func, "id", "") in LISTENED]
        imports = (n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
        self.imported = {a.asname or a.name for n in imports for a in n.names}
        self.listening = {
            part.id for call in given for part in ast.walk(call) if isinstance(part, ast.Name)
        }
        self.visit(tree)

    def of_model(self, node: ast.AST | None) -> bool:
        """Whether an expression or a piece of code computes with the model."""
        if isinstance(node, ast.Name):
            return node.id in self.known or node.id in MODELS
        if isinstance(node, ast.Constant):
            return node.value == RECORDS
        if isinstance(node, ast.Attribute) and node.attr in SETTINGS:
            return False
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in COUNTS:
            return False
        if isinstance(node, ast.arguments) or node is None:
            return False
        return any(map(self.of_model, ast.iter_child_nodes(node)))

    def learn(self, target: ast.AST) -> None:
        """Remembers the names that a value was assigned to: of `a[b]` and `a.b`, a."""
        if isinstance(target, ast.Tuple | ast.List):
            for element in target.elts:
                self.learn(element)
        elif isinstance(target, ast.Name) and target.id not in self.imported:
            self.known.add(target.id)
        elif isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
            self.learn(target.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """x = value; also x[i] = value and x, y = value."""
        self.generic_visit(node)
        if self.of_model(node.value):
            for target in node.targets:
                self.learn(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """x += value."""
        self.generic_visit(node)
        if self.of_model(node.value):
            self.learn(node.target)

    visit_NamedExpr = visit_AugAssign

    def visit_For(self, node: ast.For) -> None:
        """for x in values."""
        if self.of_model(node.iter):
            self.learn(node.target)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """A function that computes with the model gives values of the model."""
        outside = set(self.known)
        if node.name in self.listening:
            self.known |= {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        self.generic_visit(node)
        inside = any(map(self.of_model, node.body))
        self.known = outside | self.filled | ({node.name} if inside else set())

    def visit_withitem(self, node: ast.withitem) -> None:
        """with value as x."""
        self.generic_visit(node)
        if node.optional_vars and self.of_model(node.context_expr):
            self.learn(node.optional_vars)

    def visit_Call(self, node: ast.Call) -> None:
        """record(name=value), and values.append(value)."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and any(map(self.of_model, node.args)):
            if isinstance(node.func.value, ast.Name):
                self.filled |= {node.func.value.id} - self.imported
            self.learn(node.func.value)
        if getattr(node.func, "id", "") in GUARDED:
            self.found += [
                keyword.arg or "**" for keyword in node.keywords if self.of_model(keyword.value)
            ]


def recorded_as_counts(source: str) -> Iterator[str]:
    """The names under which `record` was given a number about the model.

    >>> source = '''
    ... model = MistralCausalLM.from_preset("mistral_tiny_en")
    ... logits = model(inputs)
    ... record(params=model.count_params(), rows=len(logits), chance=f"{logits.max():.2f}")
    ... '''
    >>> list(recorded_as_counts(source))
    ['chance']
    """
    yield from dict.fromkeys(Reader(ast.parse(source)).found)
