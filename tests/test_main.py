"""mistral_lib/__main__.py: the command line."""

import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_presets import assert_same_weights, small_causal_lm, weights
from vocabularies import trained_model

from mistral_lib import MistralCausalLM, MistralCausalLMPreprocessor, MistralTokenizer
from mistral_lib.__main__ import main
from mistral_lib.presets import info
from mistral_lib.presets.gguf_files import read_gguf
from mistral_lib.presets.info import describe_preset
from mistral_lib.presets.preset import FORMATS, format_of
from mistral_lib.presets.sources import LocalFolder

PROMPT = "The window"


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "small"
    # transformers' tokenizers cut text as this one does; one that normalises could not be exported.
    proto = trained_model(normalization_rule_name="identity", remove_extra_whitespaces=False)
    tokenizer = MistralTokenizer(proto)
    small_causal_lm(MistralCausalLMPreprocessor(tokenizer, 12)).save_to_preset(folder)
    return str(folder)


def run(*arguments, **options):
    """In a process of its own."""
    command = [sys.executable, "-m", "mistral_lib", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_writes_what_generate_returns(preset, capsys):
    model = MistralCausalLM.from_preset(preset)
    assert main(["generate", PROMPT, "--preset", preset, "--max-new-tokens", "12"]) == 0
    assert capsys.readouterr().out == model.generate(PROMPT, max_new_tokens=12) + "\n"


def test_every_option_arrives(preset, monkeypatch):
    seen = {}

    def stream(self, prompt, **options):
        kind = (self.backbone.dtype_policy.name, self.backbone.quantization)
        seen.update(options, prompt=prompt, kind=kind)
        return iter(())

    monkeypatch.setattr(MistralCausalLM, "stream", stream)
    options = {"max_new_tokens": 3, "temperature": 0.5, "top_k": 4, "top_p": 0.25, "seed": 6}
    words = ["generate", PROMPT, "--preset", preset, "--dtype", "bfloat16"]
    words += ["--quantization", "int8"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    assert main(words) == 0
    assert seen == {**options, "prompt": PROMPT, "kind": ("bfloat16", "int8")}
    assert main(["generate", PROMPT, "--preset", preset]) == 0
    defaults = {"max_new_tokens": 100, "temperature": 0.0, "top_k": None, "top_p": None, "seed": 0}
    assert seen == {**defaults, "prompt": PROMPT, "kind": ("float32", None)}


def test_pieces_are_written_as_they_come(preset, monkeypatch, capsys):
    def stream(self, prompt, **options):
        for piece in ("one", " two"):
            yield piece
            assert capsys.readouterr().out == piece

    monkeypatch.setattr(MistralCausalLM, "stream", stream)
    assert main(["generate", PROMPT, "--preset", preset]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "mistral_tiny"], "There is no preset 'mistral_tiny'. Did you mean"),
        (["--preset", "./missing"], "There is no folder missing."),
        (["--temperature", "-1"], "temperature must be"),
        (["--top-p", "0"], "top_p must be"),
        (["--dtype", "int3"], "dtype must be"),
        (["--quantization", "int3"], "quantization must be"),
    ],
)
def test_errors_are_one_line(preset, capsys, arguments, message):
    if "--preset" not in arguments:
        arguments = ["--preset", preset, *arguments]
    assert main(["generate", PROMPT, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"python -m mistral_lib: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["generate"],
        ["generate", "a", "--seed", "x"],
        ["gen"],
        ["info"],
        ["convert", "mistral_tiny_en"],
        ["convert", "mistral_tiny_en", "target", "--format", "gguf"],
        ["convert", "mistral_tiny_en", "target.gguf", "--format", "keras"],
        ["convert", "mistral_tiny_en", "target.gguf", "--quantization", "int8"],
        ["convert", "mistral_tiny_en", "target", "--format", "pickle"],
        ["convert", "a", "b", "--format", "transformers", "--quantization", "int8"],
    ],
    ids=" ".join,
)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m mistral_lib" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[], ["generate"], ["info"], ["convert"], ["exercises"]], ids=str
)
def test_help(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {' '.join(['python -m mistral_lib', *command])}")
    assert max(map(len, out.split("\n"))) <= 80


def test_out_of_memory_is_one_line(preset, monkeypatch, capsys):
    def stream(self, prompt, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nBuffer assignment:\n")

    monkeypatch.setattr(MistralCausalLM, "stream", stream)
    assert main(["generate", PROMPT, "--preset", preset]) == 1
    assert capsys.readouterr().err == (
        "python -m mistral_lib: error: RESOURCE_EXHAUSTED: Out of memory\n"
    )


def test_interrupted(preset, monkeypatch, capsys):
    def stream(self, prompt, **options):
        yield "one"
        raise KeyboardInterrupt

    monkeypatch.setattr(MistralCausalLM, "stream", stream)
    assert main(["generate", PROMPT, "--preset", preset]) == 130


def test_bugs_keep_their_traceback(preset, monkeypatch):
    def stream(self, prompt, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(MistralCausalLM, "stream", stream)
    with pytest.raises(ZeroDivisionError):
        main(["generate", PROMPT, "--preset", preset])


# info --------------------------------------------------------------------------------------------


def test_info(preset, monkeypatch, capsys):
    monkeypatch.setattr(info, "available_bytes", lambda: 2**34)
    assert main(["info", preset]) == 0
    assert capsys.readouterr().out == describe_preset(preset) + "\n"


def test_info_of_nothing(capsys, tmp_path):
    assert main(["info", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m mistral_lib: error: ")
    assert err.count("\n") == 1


# convert -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["keras", "transformers"])
def test_convert(preset, tmp_path, capsys, form):
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    assert main(["convert", preset, there, "--format", form]) == 0
    assert capsys.readouterr().out == f"{there}: {size_of(there):,} bytes\n"
    assert format_of(LocalFolder(Path(there))) is FORMATS[{"keras": "KerasHub"}.get(form, form)]
    assert main(["convert", there, back]) == 0
    one, other = MistralCausalLM.from_preset(preset), MistralCausalLM.from_preset(back)
    assert_same_weights(one, other)
    assert other.preprocessor.tokenizer.proto == one.preprocessor.tokenizer.proto


@pytest.mark.filterwarnings("ignore:llama.cpp has no sliding window")
@pytest.mark.parametrize(
    ("dtype", "kinds"),
    [("auto", {"F32"}), ("bfloat16", {"BF16", "F32"}), ("q8_0", {"F16", "F32"})],  # rows of 8
)
def test_convert_to_gguf_and_back(preset, tmp_path, capsys, dtype, kinds):
    there, back = tmp_path / "there.gguf", str(tmp_path / "back")
    assert main(["convert", preset, str(there), "--dtype", dtype]) == 0
    assert capsys.readouterr().out == f"{there}: {there.stat().st_size:,} bytes\n"
    assert {*read_gguf(there).kinds.values()} == kinds
    assert main(["convert", str(there), back, "--dtype", "float32"]) == 0
    one, other = MistralCausalLM.from_preset(preset), MistralCausalLM.from_preset(back)
    if dtype == "auto":
        assert_same_weights(one, other)
    texts = ["The window", "é"]
    tokenizers = [model.preprocessor.tokenizer for model in (one, other)]
    assert tokenizers[0].encode(texts) == tokenizers[1].encode(texts)


def size_of(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def test_convert_keeps_the_dtype_unless_told(preset, tmp_path):
    half, again, whole = (str(tmp_path / name) for name in ("half", "again", "whole"))
    assert main(["convert", preset, half, "--dtype", "bfloat16"]) == 0
    assert main(["convert", half, again, "--format", "transformers"]) == 0
    assert main(["convert", again, whole, "--dtype", "float32"]) == 0
    dtypes = {
        folder: {weight.dtype.name for weight in weights(load(folder)).values()}
        for folder in (half, again, whole)
    }
    assert dtypes == {half: {"bfloat16"}, again: {"bfloat16"}, whole: {"float32"}}
    # From bfloat16 to float32 no number changes.
    ours, theirs = weights(load(again)), weights(load(whole))
    assert all((array.astype("float32") == theirs[path]).all() for path, array in ours.items())


def load(folder):
    return MistralCausalLM.from_preset(folder, dtype="auto")


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_convert_quantizes(preset, tmp_path, quantization):
    target = str(tmp_path / "target")
    assert main(["convert", preset, target, "--quantization", quantization]) == 0
    model = MistralCausalLM.from_preset(preset, dtype="float32", quantization=quantization)
    again = MistralCausalLM.from_preset(target)
    assert again.backbone.quantization == model.backbone.quantization
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.value, other.value)


def test_convert_into_a_folder_of_something_else(preset, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    for form in ("keras", "transformers"):
        assert main(["convert", preset, str(tmp_path), "--format", form]) == 1
        assert "holds files, but none of a preset" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


# A process of its own ----------------------------------------------------------------------------


@pytest.mark.slow
def test_process():
    """The documented command, offline, in an empty folder."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    result = run("generate", "Return the", "--max-new-tokens", "8", env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Return the")
    assert len(result.stdout) > len("Return the") + 8
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_process_that_fails():
    result = run("generate", PROMPT, "--preset", "nothing")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("python -m mistral_lib: error: There is no preset 'nothing'")
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_reader_that_leaves(preset):
    """As in `... | head`."""
    command = [sys.executable, "-m", "mistral_lib", "generate", PROMPT, "--preset", preset]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert errors == ""


def test_terminal_without_utf8(preset, monkeypatch, capfd):
    """It shows what it can: no error ends a text in the middle."""
    terminal = io.TextIOWrapper(io.FileIO(os.dup(1), "w"), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(MistralCausalLM, "stream", lambda *a, **k: iter(["caf\xe9", " \u2603"]))
    assert main(["generate", "a", "--preset", str(preset)]) == 0
    terminal.close()
    assert capfd.readouterr().out == "caf? ?\n"


def test_convert_into_the_home_folder(preset, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert main(["convert", str(preset), "~/a/b"]) == 0
    size = sum(file.stat().st_size for file in (tmp_path / "a/b").rglob("*") if file.is_file())
    assert f"{tmp_path / 'a/b'}: {size:,} bytes" in capsys.readouterr().out


def test_exercises_write_and_judge_a_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercises", "init", "my_mistral"]) == 0
    assert capsys.readouterr().out.startswith("my_mistral: a package of stubs.")
    assert main(["exercises", "check", "my_mistral"]) == 0
    stub = tmp_path / "my_mistral" / "norm.py"
    stub.write_text(stub.read_text().replace("return ...", "return x"))
    assert main(["exercises", "check", "my_mistral"]) == 1
    assert "norm.norm            not yet\n      Smallest failing case: " in capsys.readouterr().out
    assert main(["exercises", "progress", "my_mistral"]) == 0
    assert "chapter  9  0 of 1  left: norm.norm" in capsys.readouterr().out
    assert main(["exercises", "init", "my_mistral"]) == 1
    assert "error: my_mistral exists already" in capsys.readouterr().err


def test_exercises_need_a_folder_and_ipython(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["exercises", "check"])
    assert "check needs the folder of a package, such as my_mistral" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mistral_lib.teaching.own_package", None)
    assert main(["exercises", "progress"]) == 1
    assert "The exercises need mistral_lib.teaching.own_package" in capsys.readouterr().err
