"""mistral_lib/keras_inside: what others do not document is still as it was.

A failure here means that a new version has changed something that the library relies on. The
messages name the function of `keras_inside` to mend.
"""

import ast
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from small_presets import CONFIG, INPUTS, small_backbone, small_causal_lm

import mistral_lib
from mistral_lib import MistralBackbone, keras_inside, without_weights
from mistral_lib.layers.embedding import TokenEmbedding
from mistral_lib.layers.projection import Projection
from mistral_lib.master_weights import MasterWeights

LIBRARY = Path(mistral_lib.__file__).parent
# Attributes with an underscore that are documented all the same.
DOCUMENTED = {"_replace", "_asdict", "_fields"}
DOORS = {
    "keras_inside": ("keras.src", "jax._src", "jax.core"),
    "presets/hub_caches.py": ("kagglehub.config", "huggingface_hub._"),
}


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


def files_of(door: str) -> list[Path]:
    return [file for file in library() if file.as_posix().startswith(door)]


def undocumented(trees: dict[Path, ast.Module]) -> list[tuple[Path, int, str]]:
    own, others = own_names(trees.values()), tuple(itertools.chain(*DOORS.values()))
    return [
        (file, line, name)
        for file, tree in trees.items()
        for line, name in uses(tree)
        if name.startswith(others) or (private(name) and name not in own)
    ]


def test_no_other_module_uses_what_is_not_documented():
    trees = library()
    for door in DOORS:
        # The door itself is found out by the same rule: the test can fail.
        assert undocumented({file: trees.pop(file) for file in files_of(door)}), door
    found = [f"{file}:{line}: {name}" for file, line, name in undocumented(trees)]
    assert not found, f"put these behind a function of {' or '.join(DOORS)}:\n" + "\n".join(found)


@pytest.mark.parametrize("door", DOORS)
def test_a_door_opens_on_its_own_libraries_only(door):
    others = tuple(itertools.chain(*(names for name, names in DOORS.items() if name != door)))
    names = [name for file in files_of(door) for _, name in uses(library()[file])]
    assert [name for name in names if name.startswith(others)] == []


@pytest.mark.parametrize("door", DOORS)
def test_every_function_says_what_it_relies_on_and_where_it_was_seen(door):
    for node in itertools.chain(*(library()[file].body for file in files_of(door))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
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


def test_track_again():
    """The order of weights, which `set_weights` goes by; and they can be frozen and thawed."""
    layer = dense()
    layer.kernel.trainable = False
    with keras_inside.unlocked(layer):
        keras_inside.track_again(layer, layer.kernel)
    message = changed("track_again", "a layer keeps its weights in another order")
    assert [weight.name for weight in layer.weights] == ["bias", "kernel"], message
    assert not layer.kernel.trainable
    layer.trainable = True
    assert layer.kernel.trainable, message


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


def test_take_path():
    one, other = (dense().kernel for _ in range(2))
    keras_inside.take_path(one, other)
    assert one.path == other.path, changed("take_path", "a variable keeps its path elsewhere")


@pytest.mark.parametrize("inside", [False, True])
def test_exclude_as(inside):
    """A weight and its master: both are free of weight decay, and no other is."""
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    weights = [keras.Variable(np.ones(2), name=name) for name in ("weight", "master", "other")]
    optimizer.exclude_from_weight_decay(var_list=weights[:1])
    outer = keras.optimizers.LossScaleOptimizer(optimizer) if inside else optimizer
    keras_inside.exclude_as(outer, weights[0], weights[1])
    optimizer.build(weights)
    optimizer.apply([np.zeros(2)] * 3)
    found = [float(weight.value[0]) for weight in weights]
    message = "an optimizer remembers elsewhere what it must not let decay"
    assert found == pytest.approx([1, 1, 0.95]), changed("exclude_as", message)


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


def test_steps():
    model = small_causal_lm(preprocessor=None)
    labels = np.roll(INPUTS["token_ids"], -1, axis=1)
    message = changed("Steps", "a loop hands its state on in another way")
    seen = []

    def look(batch, logs=None):
        seen.append([np.array(v.value) for v in (*model.variables, *model.optimizer.variables)])

    hooks = dict.fromkeys(("on_train_batch_end", "on_test_batch_end", "on_predict_batch_end"), look)
    callback = keras.callbacks.Callback()
    for name, function in hooks.items():
        setattr(callback, name, function)
    model.fit(INPUTS, labels, batch_size=1, epochs=2, verbose=0, callbacks=[callback])
    assert int(seen[-1][len(model.variables)]) == len(seen) == 4, message  # the optimizer's steps
    for loop, arguments in (("evaluate", (INPUTS, labels)), ("predict", (INPUTS,))):
        functions = []
        for _ in range(2):
            getattr(model, loop)(*arguments, verbose=0, callbacks=[callback])
            functions.append((model.test_function, model.predict_function))
        assert functions[0] == functions[1], message  # compiled once
    for values in seen[4:]:
        for value, last in zip(values, seen[3], strict=True):
            np.testing.assert_array_equal(value, last, err_msg=message)
    train_function = model.train_function
    model.backbone.attention_path = "banded"
    model.train_on_batch(INPUTS, labels)
    assert model.train_function is not train_function, message


def test_cloneable():
    for model in (small_causal_lm(preprocessor=None), small_backbone()):
        clone = keras.models.clone_model(model)
        message = changed("Cloneable", "`clone_model` goes another way")
        assert type(clone) is type(model), message
        assert [v.path for v in clone.weights] == [v.path for v in model.weights], message
        with pytest.raises(ValueError, match="without input_tensors"):
            keras.models.clone_model(model, clone_function=lambda layer: layer)


def test_swapped_averages():
    weights = [keras.Variable(np.full(2, 1.001), dtype="bfloat16")]
    optimizer = MasterWeights(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    for _ in range(3):
        optimizer.apply([np.ones(2)], weights)
    (master,), model = optimizer.masters, keras.Sequential([keras.layers.Dense(1)])
    (average,) = keras_inside.optimizer_averages(optimizer.optimizer).values()
    before = float(master.value[0]), float(average.value[0])
    model.compile(optimizer)
    callback = keras.callbacks.SwapEMAWeights()
    callback.set_model(model)
    model.__class__ = type("Model", (type(model),), {"trainable_variables": weights})
    callback.on_test_begin()
    message = changed("SwappedAverages", "averages are swapped in another way")
    assert (float(average.value[0]), float(master.value[0])) == before, message
    np.testing.assert_allclose(np.asarray(weights[0].value, "float32"), before[1], rtol=2**-8)
    callback.on_test_end()
    assert (float(master.value[0]), float(average.value[0])) == before, message


def test_a_step_uses_no_array_up_twice():
    """After `fit` with averages Keras leaves a weight and its average the same array."""
    model = small_causal_lm(preprocessor=None)
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), loss=model.loss)
    labels = np.roll(INPUTS["token_ids"], -1, axis=1)
    for _ in range(2):
        model.fit(INPUTS, labels, verbose=0)
    assert int(model.optimizer.iterations) == 2


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


@pytest.mark.parametrize("kind", ["int8", "int4/128", "int4/6"])
def test_quantized_variables(kind):
    layers = {
        "kernel": Projection(5, dtype=f"{kind}_from_bfloat16"),
        "embeddings": TokenEmbedding(7, 9, dtype=f"{kind}_from_bfloat16", tie_weights=False),
    }
    for name, layer in layers.items():
        layer.build((None, None, 9) if name == "kernel" else (None, None))
        counted = keras_inside.quantized_variables(
            name, (9, 5) if name == "kernel" else (7, 9), kind
        )
        if name == "embeddings":
            counted += keras_inside.quantized_variables("reverse_embeddings", (9, 7), kind)
        found = [
            (tuple(variable.shape), str(variable.dtype))
            for variable in (getattr(layer, attribute) for attribute, *_ in counted)
        ]
        message = changed("quantized_variables", f"{layer.name} has other variables in {kind}")
        assert found == [(shape, dtype or "bfloat16") for _, shape, dtype in counted], message
        assert len(layer.variables) == len(counted), message
