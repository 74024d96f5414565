"""mistral_lib/interrupts.py, and Ctrl-C or any other error at any moment: all values stay whole."""

import fcntl
import itertools
import os
import random
import signal
import sys
import threading
import time

import keras
import numpy as np
import pytest
from doors import ALL, PROMPT, SIZES, X, Y, change, fill, make_model
from keras.src.backend.common import global_state

from mistral_lib import MistralBackbone, MistralCausalLM, without_weights
from mistral_lib.checks import keras_knows
from mistral_lib.keras_inside import layers_inside
from mistral_lib.keras_inside.changes import SCOPES
from mistral_lib.presets.atomic import finish, replaced

HOOKS = [
    name
    for name in dir(keras.callbacks.Callback)
    if name.startswith("on_") and name not in ("on_batch_begin", "on_batch_end")
]
LOOPS = {
    "fit": lambda model, **kwargs: model.fit(
        X, Y, batch_size=1, shuffle=False, verbose=0, validation_data=(X, Y), **kwargs
    ),
    "evaluate": lambda model, **kwargs: model.evaluate(X, Y, batch_size=1, verbose=0, **kwargs),
    "predict": lambda model, **kwargs: model.predict(X, batch_size=1, verbose=0, **kwargs),
}


def adam_model():
    model = make_model()
    model.compile(keras.optimizers.Adam(1e-3), loss=model.loss)
    LOOPS["fit"](model)
    return model


def state(model):
    """All values: of weights and, since the model has been trained, of the optimizer."""
    return [np.array(v.value) for v in (*model.variables, *model.optimizer.variables)]


def assert_whole(model):
    """Every loop and every call agrees."""
    logits = np.asarray(model(X))
    np.testing.assert_allclose(model.predict(X, verbose=0), logits, rtol=1e-3, atol=1e-4)
    ids = model.generate(PROMPT, max_new_tokens=1)
    last = {"token_ids": [PROMPT], "padding_mask": [[1] * len(PROMPT)]}
    assert ids[-1] == np.asarray(model(last))[0, -1].argmax()


def assert_goes_on(model, before=None):
    """All values are there, the same if they are given, and every loop works."""
    now = state(model)
    assert all(np.isfinite(value).all() for value in now)
    if before is not None:
        for a, b in zip(before, now, strict=True):
            np.testing.assert_array_equal(a, b)
    assert_whole(model)


class Raises(keras.callbacks.Callback):
    """Raises at one hook, the second time that it is called if it is called twice."""

    def __init__(self, hook, error):
        super().__init__()

        def act(*arguments, **logs):
            raise error

        setattr(self, hook, act)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_a_callback(loop, error):
    model = adam_model()
    raised = 0
    for hook in HOOKS:
        before = state(model)
        try:
            LOOPS[loop](model, callbacks=[Raises(hook, error)])
        except error:
            raised += 1
        assert_goes_on(model, None if loop == "fit" else before)
    assert raised >= 4
    assert "fit" in loop or raised < len(HOOKS)


def data(bad_at, error, labels):
    """A batch again and again; before the one of that number, an error."""
    for index in itertools.count():
        if index == bad_at:
            raise error
        yield (X, Y) if labels else (X,)


@pytest.mark.parametrize("loop", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("bad_at", [0, 1, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_in_the_data(loop, bad_at, error):
    model = adam_model()
    before = state(model)
    source = data(bad_at, error, loop != "predict")
    steps = {"steps_per_epoch": 2, "epochs": 3} if loop == "fit" else {"steps": 6}
    with pytest.raises(error):
        getattr(model, loop)(source, verbose=0, **steps)
    assert_goes_on(model, before if loop != "fit" or bad_at == 0 else None)


class CtrlC:
    """Inside the block, the signal of Ctrl-C comes at the call of that number, of all functions.

    With `scopes`, of those alone with which Keras opens and closes its own.
    """

    def __init__(self, number=None, scopes=False):
        self.number, self.scopes, self.calls = number, scopes, 0

    def look(self, frame, event, argument):
        code = frame.f_code
        if self.scopes and not (
            code.co_name in ("__enter__", "__exit__") and "keras/src" in code.co_filename
        ):
            return
        self.calls += 1
        if self.calls == self.number:
            signal.raise_signal(signal.SIGINT)

    def __enter__(self):
        sys.setprofile(self.look)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)


USES = {
    **LOOPS,
    "generate": lambda model: model.generate([PROMPT] * 2, max_new_tokens=20),
    "stream": lambda model: list(model.stream("the window", max_new_tokens=9)),
}
MOMENTS = 120


def is_ctrl_c(error):
    """Whether an error came of Ctrl-C; all others are raised again.

    JAX makes other errors of what comes while it looks something up, and so does Python while it
    takes the lock of a queue. JAX 0.7 forgets Ctrl-C while it looks at the types of arguments, and
    then does not know one.
    """
    forgotten = "couldn't apply typeof to args", "as a data type"
    known = error
    while known is not None:
        text = f"{known!r} {known}"
        if any(words in text for words in ("KeyboardInterrupt", *forgotten)):
            return True
        known = known.__cause__ or known.__context__
    raise error


class InThisThread(keras.callbacks.Callback):
    """Has Keras call callbacks without a thread.

    Ctrl-C in the moment in which Python starts one would leave Keras waiting for it.
    """

    def on_train_batch_end(self, batch, logs=None):
        pass

    on_test_batch_end = on_predict_batch_end = on_train_batch_end


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_ctrl_c_at_any_moment(use):
    """Training stands at a whole number of steps, whatever else has been interrupted at none."""
    model = adam_model()
    options = {"callbacks": [InThisThread()]} if use in LOOPS else {}

    def run(model):
        USES[use](model, **options)

    run(model)
    before = state(model)
    whole = [before]
    if use == "fit":  # its three steps, one by one
        model.fit(
            X,
            Y,
            batch_size=1,
            shuffle=False,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: whole.append(state(model))
                )
            ],
        )
    put_back(model, before)
    with CtrlC() as counted:
        run(model)
    places, interrupted = set(), 0
    for number in sorted(random.Random(0).sample(range(counted.calls), MOMENTS)):
        put_back(model, before)
        try:
            with CtrlC(number):
                run(model)
        except (KeyboardInterrupt, Exception) as error:
            interrupted += is_ctrl_c(error)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        now = state(model)
        found = [
            step
            for step, values in enumerate(whole)
            if all(np.array_equal(a, b) for a, b in zip(values, now, strict=True))
        ]
        assert found, number
        places.add(found[0])
    assert interrupted > MOMENTS / 2
    assert places == set(range(len(whole)))
    assert_goes_on(model)


def open_scopes():
    found = {name: global_state.get_global_attribute(name) for name in SCOPES}
    return {name: value for name, value in found.items() if value and name != "tracking_on"}


ALL_USES = {
    **USES,
    "__call__": lambda model: model(X),
    "backbone.__call__": lambda model: model.backbone(X),
    "predict_on_batch": lambda model: model.predict_on_batch(X),
    "score": lambda model: model.score(**X),
}


@pytest.mark.slow
@pytest.mark.parametrize("use", ALL_USES)
def test_no_scope_of_keras_stays_open(use):
    """Wherever Ctrl-C comes, while a program is traced too."""
    model = make_model()
    with CtrlC(scopes=True) as counted:
        ALL_USES[use](model)
    interrupted = 0
    for number in sorted(random.Random(0).sample(range(1, counted.calls), 6)):
        model = make_model()
        try:
            with CtrlC(number, scopes=True):
                ALL_USES[use](model)
        except KeyboardInterrupt:
            interrupted += 1
        left = open_scopes()
        for name in left:  # or one would spoil all other tests
            global_state.set_global_attribute(name, None)
        assert left == {}, number
    assert interrupted >= 3
    assert_whole(model)


def put_back(model, values):
    for variable, value in zip((*model.variables, *model.optimizer.variables), values, strict=True):
        variable.assign(value)


def interrupted(use, model, delay):
    """Presses Ctrl-C after a time, and once more if NumPy has swallowed it, as it may."""
    for _ in range(5):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        end = time.monotonic() + delay + 1
        try:
            timer.start()
            while time.monotonic() < end:
                use(model)
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_ctrl_c_by_the_clock(use):
    """As people press it: from outside, into whatever is running."""
    model = adam_model()
    USES[use](model)
    before = state(model)
    for delay in np.linspace(0.001, 0.05, 5):
        assert interrupted(USES[use], model, delay)
        assert_goes_on(model, None if use == "fit" else before)


def adapted(model):
    model.backbone.enable_lora(4)
    return model


SAVES = {
    "save_to_preset": lambda model, folder: model.save_to_preset(folder / "a"),
    "export_to_transformers": lambda model, folder: model.backbone.export_to_transformers(
        folder / "a"
    ),
    "save_lora_weights": lambda model, folder: model.backbone.save_lora_weights(
        folder / "a/a.lora.h5"
    ),
}


def contents(folder):
    """All files, without the date of saving and what an interrupted save left over."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and ".saving-" not in str(file) and file.suffix != ".partial":
            lines = file.read_bytes().split(b"\n")
            found[file.name] = [line for line in lines if b"date_saved" not in line]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("save", SAVES)
def test_ctrl_c_while_saving(save, tmp_path):
    """The files are the old ones or the new ones, all of them, and the model is as it was."""
    run, models = SAVES[save], [adapted(make_model(seed)) for seed in (0, 1)]
    if save == "export_to_transformers":
        for model in models:
            model.backbone.merge_lora()
    found = []
    for model in models:
        with CtrlC() as counted:
            run(model, tmp_path)
        found.append(contents(tmp_path))
    before, interrupted, places = everything(models[1]), 0, set()
    for number in sorted(random.Random(0).sample(range(counted.calls), MOMENTS)):
        run(models[0], tmp_path)
        assert contents(tmp_path) == found[0]
        try:
            with CtrlC(number):
                run(models[1], tmp_path)
        except KeyboardInterrupt:
            interrupted += 1
        finish(tmp_path / "a")
        places.add(found.index(contents(tmp_path)))
    assert interrupted > MOMENTS / 2
    assert places == ({0, 1} if save == "save_to_preset" else places | {0})
    assert everything(models[1]) == before


@pytest.mark.slow
def test_ctrl_c_leaves_no_lock(tmp_path, monkeypatch):
    """Nor where the interpreter keeps the last error, and with it all frames, as notebooks do."""

    def lock_at_once(opened, kind):
        try:
            flock(opened, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError("the next save would wait for ever") from None

    def save(text):
        with replaced(tmp_path) as new:
            (new / "a.json").write_text(text)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lock_at_once)
    monkeypatch.setattr(os, "fsync", lambda opened: None)
    with CtrlC() as counted:
        save("{}")
    errors = []
    for number in range(1, counted.calls, 3):
        try:
            with CtrlC(number):
                save("{}")
        except (KeyboardInterrupt, OSError) as error:  # `shutil.rmtree` closes a file twice
            errors.append(error)
        save(f"[{number}]")
        assert (tmp_path / "a.json").read_text() == f"[{number}]"
    assert len(errors) > 100


# The model in the hands of a callback or of the data ---------------------------------------------


def generated(model):
    return model.generate(PROMPT, max_new_tokens=4)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_closure_uses_the_model(loop, tmp_path):
    """Also one that Keras knows nothing of, and in the middle of an epoch."""
    model, seen = adam_model(), []
    before = generated(model)

    def look(*arguments, **logs):
        logits = np.asarray(model(X))
        np.testing.assert_allclose(model.predict_on_batch(X), logits, rtol=1e-3, atol=1e-4)
        seen.append((logits, generated(model)))
        model.backbone.save_to_preset(tmp_path / "preset")

    hook = {"fit": "train", "evaluate": "test", "predict": "predict"}[loop]
    names = (f"on_{hook}_batch_begin", f"on_{hook}_batch_end", f"on_{hook}_begin", f"on_{hook}_end")
    LOOPS[loop](model, callbacks=[Acts(names, look)])
    assert len(seen) == 8
    if loop == "fit":
        assert not np.array_equal(seen[1][0], seen[-1][0])  # the weights of the moment
        np.testing.assert_array_equal(seen[-1][0], model(X))
    else:
        assert {tuple(ids) for _, ids in seen} == {tuple(before)}


class Acts(keras.callbacks.Callback):
    """Calls a function at some hooks."""

    def __init__(self, hooks, function):
        super().__init__()
        for hook in hooks:
            setattr(self, hook, function)


def test_a_closure_changes_the_weights():
    """Training goes on from what it put there (in Keras alone, only `self.model` does that)."""
    model = adam_model()
    model.compile(keras.optimizers.SGD(0.0), loss=model.loss)
    weight = model.variables[0]

    def halve(*arguments, **logs):
        weight.assign(weight.value / 2)

    before = np.array(weight.value)
    LOOPS["fit"](model, callbacks=[Acts(["on_train_batch_end"], halve)])
    np.testing.assert_allclose(weight.value, before / 8)


def test_data_that_the_model_makes():
    model = adam_model()

    def batches():
        for _ in range(3):
            ids = np.array([model.generate(PROMPT, max_new_tokens=3)], "int32")
            yield {"token_ids": ids[:, :-1], "padding_mask": np.ones((1, 7))}, ids[:, 1:]

    model.fit(batches(), steps_per_epoch=3, verbose=0)
    assert_goes_on(model)


# Changes of a model ------------------------------------------------------------------------------

LORA = ("enable_lora", 4, ALL, 8)
INT4 = "int4/60" if keras_knows("int4/60") else "int8"
CHANGED = {  # what was done before, and what is then interrupted
    "enable_lora": ((), ("enable_lora", 4)),
    "enable_lora, frozen": (("freeze",), ("enable_lora", 4)),
    "merge_lora": ((LORA,), ("merge_lora",)),
    "merge_lora, quantized": ((LORA, ("quantize", "int8")), ("merge_lora", True)),
    "load_lora_weights": ((), ("load_lora_weights", "a.lora.h5")),
    "load_lora_weights, other factors": ((LORA,), ("load_lora_weights", "a.lora.h5")),
    "load_lora_weights, PEFT": ((), ("load_lora_weights", "peft")),
    "load_weights": ((), ("load_weights", "base1.weights.h5")),
    "load_weights, with LoRA": ((LORA,), ("load_weights", "lora1.weights.h5")),
    "quantize": ((), ("quantize", "int8")),
    "quantize, int4": ((), ("quantize", INT4)),
    "quantize, with LoRA": ((LORA,), ("quantize", "int8")),
    "dequantize": ((("quantize", "int8"),), ("dequantize",)),
    "dequantize, with LoRA": ((LORA, ("quantize", INT4)), ("dequantize",)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Adapters and weights of another model."""
    folder = tmp_path_factory.mktemp("files")
    for seed in (1, 0):
        other = make_model(seed)
        other.save_weights(folder / f"base{seed}.weights.h5")
        other.backbone.enable_lora(4, ALL, 8)
        fill(other.backbone.trainable_variables, seed=1)
        other.save_weights(folder / f"lora{seed}.weights.h5")
    other.backbone.save_lora_weights(folder / "a.lora.h5")
    other.backbone.export_lora_to_peft(folder / "peft")
    return folder


def before_and_run(name, folder):
    """A model before a change, and the change."""
    steps, (method, *arguments) = CHANGED[name]
    model = make_model()
    if steps == ("freeze",):
        model.backbone.trainable, steps = False, ()
    change(*steps)(model, folder)
    if method.startswith("load"):
        arguments = [folder / argument for argument in arguments]
    owner = model if method == "load_weights" else model.backbone
    return model, lambda: getattr(owner, method)(*arguments)


def everything(model):
    """All that a change may touch."""
    backbone = model.backbone
    variables = [(v.path, v.trainable, np.array(v.value).tobytes()) for v in backbone.variables]
    layers = (backbone, *layers_inside(backbone))
    names = ("projection_policy", "lora_rank", "lora_alpha", "lora_enabled", "_is_quantized")
    return (
        variables,
        [v.path for v in backbone.trainable_variables],
        backbone.quantization,
        backbone.traced_settings(),
        [(layer.trainable, *(getattr(layer, name, None) for name in names)) for layer in layers],
        {**backbone.get_config(), "name": None},
    )


class Memory:
    """Lets a number of arrays be made by variables, and then one not; rolling back needs some."""

    def __init__(self, monkeypatch, arrays):
        self.left = arrays
        for method in ("assign", "_initialize"):
            original = getattr(keras.Variable, method)
            monkeypatch.setattr(keras.Variable, method, self.limited(original))

    def limited(self, original):
        def act(*arguments):
            self.left -= 1
            if self.left == -1:
                raise MemoryError
            return original(*arguments)

        return act


def is_whole(model):
    np.testing.assert_allclose(model.predict(X, verbose=0), model(X), rtol=1e-3, atol=1e-4)


QUANTIZING = [name for name in CHANGED if "quantize" in name.partition(",")[0]]
OTHERS = [name for name in CHANGED if name not in QUANTIZING and "load_weights" not in name]


@pytest.mark.parametrize("name", OTHERS)
def test_no_memory_for_a_change(name, files, monkeypatch):
    """At each array that it makes: the model is the old one, and can be changed afterwards."""
    model, run = before_and_run(name, files)
    old = everything(model)
    for number in itertools.count():
        Memory(monkeypatch, number)
        try:
            run()
            break
        except MemoryError:
            monkeypatch.undo()
            assert everything(model) == old, number
    monkeypatch.undo()
    assert number >= 2
    assert everything(model) != old
    control, run = before_and_run(name, files)
    run()
    if not name.startswith("enable_lora"):  # whose factors are drawn
        assert everything(model) == everything(control)
    is_whole(model)


@pytest.mark.parametrize("name", QUANTIZING)
def test_no_memory_to_quantize(name, files, monkeypatch):
    """To keep the old model would take memory. Each layer is whole, and the call goes on."""
    control, run = before_and_run(name, files)
    run()
    for number in itertools.count():
        model, run = before_and_run(name, files)
        Memory(monkeypatch, number)
        try:
            run()
            break
        except MemoryError:
            monkeypatch.undo()
            if number % 8 == 0:
                is_whole(model)
            run()
            assert everything(model) == everything(control), number
    monkeypatch.undo()
    assert number > 8


def test_another_kind_does_not_go_on(monkeypatch):
    model = make_model()
    Memory(monkeypatch, 20)
    with pytest.raises(MemoryError):
        model.quantize("int8")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"unfinished call has quantized .* to int8"):
        model.quantize(INT4 if INT4 != "int8" else "int4")
    model.dequantize()
    model.quantize(INT4)


def test_weights_that_are_not_finite_are_not_quantized():
    model = make_model()
    last = model.backbone.transformer_layers[-1].feedforward.down.kernel
    last.assign(np.full(last.shape, np.nan))
    old = everything(model)
    with pytest.raises(ValueError, match="its kernel are not all finite"):
        model.quantize("int8")
    assert everything(model) == old


def test_weights_of_which_some_do_not_fit(tmp_path):
    """Keras alone loads the others, and then raises."""
    with without_weights():
        backbone = MistralBackbone(**{**SIZES, "intermediate_dim": 21})
    fill(backbone.variables, seed=1)
    MistralCausalLM(backbone).save_weights(tmp_path / "all.weights.h5")
    model = make_model()
    old = everything(model)
    with pytest.raises(ValueError, match="could not be loaded"):
        model.load_weights(tmp_path / "all.weights.h5")
    assert everything(model) == old


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGED)
def test_ctrl_c_in_a_change(name, files):
    """At any moment: the model is the old one or the new one, whole."""
    model, run = before_and_run(name, files)
    old, interrupted = everything(model), 0
    run()
    new = everything(model)
    model, run = before_and_run(name, files)
    with CtrlC() as counted:  # the second time: JAX has compiled what it needs
        run()
    model, run = before_and_run(name, files)
    for number in sorted(random.Random(0).sample(range(counted.calls), 12)):
        try:
            with CtrlC(number):
                run()
        except (KeyboardInterrupt, Exception) as error:
            interrupted += is_ctrl_c(error)
        if everything(model) != old:
            if not name.startswith("enable_lora"):
                assert everything(model) == new, number
            model, run = before_and_run(name, files)
    assert interrupted > 6
