"""mistral_lib/__main__.py: the command line."""

import os
import subprocess
import sys

import pytest
from small_presets import small_causal_lm

from mistral_lib import MistralCausalLM
from mistral_lib.__main__ import main

PROMPT = "The window"


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "small"
    small_causal_lm().save_to_preset(folder)
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
        seen.update(options, prompt=prompt, dtype=self.backbone.dtype_policy.name)
        return iter(())

    monkeypatch.setattr(MistralCausalLM, "stream", stream)
    options = {"max_new_tokens": 3, "temperature": 0.5, "top_k": 4, "top_p": 0.25, "seed": 6}
    words = ["generate", PROMPT, "--preset", preset, "--dtype", "bfloat16"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    assert main(words) == 0
    assert seen == {**options, "prompt": PROMPT, "dtype": "bfloat16"}
    assert main(["generate", PROMPT, "--preset", preset]) == 0
    defaults = {"max_new_tokens": 100, "temperature": 0.0, "top_k": None, "top_p": None, "seed": 0}
    assert seen == {**defaults, "prompt": PROMPT, "dtype": "float32"}


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


@pytest.mark.parametrize("arguments", [[], ["generate"], ["generate", "a", "--seed", "x"], ["gen"]])
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m mistral_lib" in capsys.readouterr().err


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


def test_process():
    """The documented command, offline, in an empty folder."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    result = run("generate", "Return the", "--max-new-tokens", "8", env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Return the")
    assert len(result.stdout) > len("Return the") + 8
    assert "Traceback" not in result.stderr


def test_process_that_fails():
    result = run("generate", PROMPT, "--preset", "nothing")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("python -m mistral_lib: error: There is no preset 'nothing'")
    assert "Traceback" not in result.stderr


def test_reader_that_leaves(preset):
    """As in `... | head`."""
    command = [sys.executable, "-m", "mistral_lib", "generate", PROMPT, "--preset", preset]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert errors == ""
