"""mistral_lib/keras_inside.py: what others do not document is still as it was.

A failure here means that a new version has changed something that the library relies on. The
messages name the function of `keras_inside.py` to mend.
"""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from small_presets import CONFIG, INPUTS, small_backbone, small_causal_lm

import mistral_lib
from mistral_lib import MistralBackbone, keras_inside, without_weights
from mistral_lib.layers.projection import Projection

LIBRARY = Path(mistral_lib.__file__).parent
# Attributes with an underscore that are documented all the same.
DOCUMENTED = {"_replace", "_asdict", "_fields"}
OTHERS = ("keras.src", "jax._src", "jax.core", "kagglehub.config", "huggingface_hub._")


def library() -> dict[Path, ast.Module]:
    files = sorted(LIBRARY.rglob("*.py"))
    return {file.relative_to(LIBRARY): ast.parse(file.read_text()) for file in files}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def own_names(trees) -> set[str]:
    """What the library itself defines with an underscore: functions, methods and attributes."""
    found = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


def uses(tree: ast.Module) -> list[tuple[int, str]]:
    """What a module takes from others: attributes, those named in a string too, and imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found += [(node.lineno, node.attr), (node.lineno, ast.unparse(node).lstrip("_"))]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            found += [(node.lineno, ast.literal_eval(a)) for a in node.args[1:2] if is_text(a)]
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_other_module_uses_what_is_not_documented():
    trees = library()
    door = trees.pop(Path("keras_inside.py"))
    own = own_names(trees.values())
    found = [
        f"{file}:{line}: {name}"
        for file, tree in trees.items()
        for line, name in uses(tree)
        if name.startswith(OTHERS) or (private(name) and name not in own)
    ]
    assert not found, "put these behind a function of keras_inside.py:\n" + "\n".join(found)
    # The door itself is found out by the same rule: the test can fail.
    assert {"_tracker", "_compile_config"} <= {name for _, name in uses(door)}


def test_every_function_says_what_it_relies_on_and_where_it_was_seen():
    for node in library()[Path("keras_inside.py")].body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            text = " ".join((ast.get_docstring(node) or "").split())
            assert "Relies on" in text, node.name
            assert "seen in" in text, node.name


def changed(function: str, what: str) -> str:
    return (
        f"keras {keras.__version__} and jax {jax.__version__}: {what}. Mend "
        f"mistral_lib.keras_inside.{function}."
    )


def test_nothing_is_allocated():
    before = sum(array.nbytes for array in jax.live_arrays())
    with without_weights():
        backbone = MistralBackbone(32000, 32, 32, 4096, 14336, 8)
    assert backbone.count_params() == 7_241_732_096
    assert sum(array.nbytes for array in jax.live_arrays()) - before < 10**6


def test_a_model_without_weights_leaves_others_alone():
    """Keras initialises what waits when its next stateless scope ends, that of a `fit`, say."""
    with without_weights():
        empty = MistralBackbone(**CONFIG)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert empty.token_embedding.embeddings._value is None


def test_values_come_by_assign():
    with without_weights():
        empty = MistralBackbone(**CONFIG)
    full = small_backbone()
    for variable, value in zip(empty.variables, full.variables, strict=True):
        variable.assign(value.value)
    np.testing.assert_array_equal(empty(INPUTS), full(INPUTS))


def dense(**settings) -> keras.layers.Dense:
    layer = keras.layers.Dense(3, **settings)
    layer.build((None, 2))
    return layer


def test_unlocked():
    layer = dense()
    with pytest.raises(ValueError, match="cannot add new elements"):
        layer.extra = layer.add_weight((2,))
    with keras_inside.unlocked(layer):
        layer.extra = layer.add_weight((2,))
    assert len(layer.weights) == 3, changed(
        "unlocked", "a built layer cannot gain weights any more"
    )
    with pytest.raises(ValueError, match="cannot add new elements"):
        layer.other = layer.add_weight((2,))


def test_remove_weight():
    layer = dense()
    with keras_inside.unlocked(layer):
        keras_inside.remove_weight(layer, "bias")
    message = changed("remove_weight", "a weight that is taken off stays")
    assert [weight.name for weight in layer.weights] == ["kernel"], message
    assert not hasattr(layer, "bias"), message


def test_without_autocast():
    layer = dense(dtype="mixed_bfloat16")
    for expected in ("bfloat16", "float32"):
        with keras.src.backend.AutocastScope("bfloat16"):
            found = str(jnp.asarray(layer.kernel).dtype)
        assert found == expected, changed("without_autocast", "a kernel is cast in another way")
        keras_inside.without_autocast(layer.kernel)


def test_matrix_attribute():
    layers = {
        "kernel": keras.layers.EinsumDense("bsd,df->bsf", (None, 4)),
        "embeddings": keras.layers.ReversibleEmbedding(4, 2, tie_weights=False),
        "reverse_embeddings": keras.layers.ReversibleEmbedding(4, 2, tie_weights=False),
    }
    for name, layer in layers.items():
        layer.build((None, None, 2) if name == "kernel" else (None, None))
        message = changed("matrix_attribute", f"{name} are kept in another attribute")
        assert getattr(layer, keras_inside.matrix_attribute(name), None) is not None, message
        layer.quantize("int8")
        quantized = getattr(layer, keras_inside.matrix_attribute(name), None)
        assert getattr(quantized, "dtype", None) == "int8", message


def test_mark_as_float():
    layer = Projection(4)
    layer.build((None, None, 2))
    layer.quantize("int8")
    layer.dequantize()
    layer.quantize("int8")
    assert layer.kernel.dtype == "int8", changed("mark_as_float", "no second quantization")


def test_unwrap_quantize():
    model = small_backbone()
    assert model.quantize.__func__ is MistralBackbone.quantize, changed(
        "unwrap_quantize", "objects keep Keras's own `quantize`"
    )


def test_layers_inside():
    found = {layer.name for layer in keras_inside.layers_inside(small_backbone())}
    expected = {"token_embedding", "transformer_layer_1", "self_attention", "query", "down"}
    assert expected <= found, changed("layers_inside", "a model does not tell its layers")


@pytest.mark.parametrize("scaled", [False, True])
def test_optimizer_weights(scaled):
    optimizer = keras.optimizers.Adam()
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    assert keras_inside.optimizer_weights(optimizer) == []
    weights = dense().trainable_variables
    optimizer.build(weights)
    found = keras_inside.optimizer_weights(optimizer)
    assert [id(v) for v in found] == [id(v) for v in weights], changed(
        "optimizer_weights", "an optimizer keeps its weights elsewhere"
    )


def test_what_a_model_was_compiled_with():
    model = small_causal_lm(preprocessor=None)
    metrics = keras_inside.compiled_metrics(model)
    assert [type(metric) for metric in metrics] == [keras.metrics.SparseCategoricalAccuracy], (
        changed("compiled_metrics", "a model keeps its metrics elsewhere")
    )
    message = changed("compiled_arguments", "a model keeps the arguments of `compile` elsewhere")
    assert keras_inside.compiled_arguments(model)["loss_weights"] is None, message
    model.compile(loss="mse", loss_weights=[2.0])
    assert keras_inside.compiled_arguments(model)["loss_weights"] == [2.0], message


def test_layout_of():
    mesh = keras.distribution.DeviceMesh(
        (1, 1), ("batch", "model"), keras.distribution.list_devices()[:1]
    )
    layouts = MistralBackbone.get_layout_map(mesh)
    with keras.distribution.ModelParallel(layout_map=layouts).scope(), without_weights():
        backbone = MistralBackbone(**CONFIG)
    layout = keras_inside.layout_of(backbone.token_embedding.embeddings)
    assert layout.axes == ("model", None), changed("layout_of", "a variable keeps no layout")
    assert keras_inside.layout_of(small_backbone().token_embedding.embeddings) is None


def test_is_traced():
    found = []
    jax.jit(lambda x: found.append(keras_inside.is_traced(x)) or x)(jnp.ones(2))
    assert (found, keras_inside.is_traced(jnp.ones(2))) == ([True], False), changed(
        "is_traced", "placeholders have another class"
    )
