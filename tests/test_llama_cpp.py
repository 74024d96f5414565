"""mistral_lib/llama_cpp.py: llama.cpp itself runs what is written, where it is installed.

Elsewhere see `test_gguf_export.py` and `test_gguf_lora.py`, and the golden files. To run these:

    .venv-peers/bin/pip install -r tests/reference/requirements.txt -e '.[test,plots,gguf]'
    .venv-peers/bin/python -m pytest tests/test_llama_cpp.py
"""

import numpy as np
import pytest
from reference import make_gguf
from reference.make_gguf import CASES, FOLDER, SHOWN, TOKEN_IDS, config_of
from test_gguf_export import text_model
from test_gguf_lora import INPUTS, RESULTS, adapted, base

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.llama_cpp import LlamaCppExport


def test_every_backbone_has_it():
    assert issubclass(MistralBackbone, LlamaCppExport)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("F32", 1e-4), ("F16", 0.05), ("BF16", 0.3), ("Q8_0", 1), ("Q4_0", 1), ("Q4_K", 1.5)],
)
@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_runs_it(tmp_path, name, dtype, tolerance):
    """Logits within rounding; but in F32, llama.cpp rounds what it multiplies too."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    sizes = {"hidden_dim": 256, "num_query_heads": 8, "num_key_value_heads": 4, "head_dim": 32}
    config = {**config_of(name), **sizes, "intermediate_dim": 256}
    model = text_model(**config)
    for variable in model.trainable_variables:
        scale = 2.8 / 16 if variable.path.endswith("kernel") else 2
        variable.assign(variable * (0.25 if "embeddings" in variable.path else scale))
    file = tmp_path / "a.gguf"
    model.export_to_gguf(file, dtype)
    again = MistralCausalLM.from_preset(file, dtype="float32")
    inputs = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
    expected = make_gguf.run_llama(file, TOKEN_IDS)
    assert np.abs(expected).max() > 3
    assert np.abs(np.asarray(again(inputs)) - expected).max() < tolerance
    if dtype == "F32":
        tokenizer = model.preprocessor.tokenizer
        assert make_gguf.tokenize(file, make_gguf.texts()) == tokenizer.encode(make_gguf.texts())


@pytest.mark.peer
@pytest.mark.slow
def test_llama_cpp_runs_the_adapter(tmp_path):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = base()
    adapted(model.backbone).export_lora_to_gguf(tmp_path / "a.gguf")
    expected = make_gguf.run_llama(FOLDER / "text.gguf", TOKEN_IDS, tmp_path / "a.gguf")
    assert np.abs(expected[..., SHOWN] - RESULTS["text"]).max() > 1
    assert np.abs(np.asarray(model(INPUTS)) - expected).max() < 1e-4
