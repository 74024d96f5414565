"""Numbers of the model are found however they reach `record`, and counts are let through."""

import pytest

from model_numbers import recorded_as_counts

START = 'model = MistralCausalLM.from_preset("mistral_tiny_en")\n'
OF_THE_MODEL = {
    "called": "z = model(inputs)\nrecord(x=z.max())",
    "predicted": "record(x=model.predict(inputs).max())",
    "in a string": 'z = model(inputs)\nrecord(x=f"{z:.2f}")',
    "by a function": "def read(i):\n    return model(i)\nz = read(ids)\nrecord(x=z)",
    "by a default": "def read(i, model=model):\n    return model(i)\nrecord(x=read(ids))",
    "by functions": "def f(i):\n    return model(i)\ndef g(i):\n    return f(i)\nrecord(x=g(1))",
    "unpacked": "a, (b, *c) = 1, model(inputs)\nrecord(x=c[0])",
    "of a part": "blocks = model.backbone.transformer_layers\nrecord(x=blocks[0](h).max())",
    "of weights": "w = model.get_weights()\nrecord(x=abs(w[0]).max())",
    "of another model": "other = MistralCausalLM(backbone)\nrecord(x=other.predict(1))",
    "of a factory": "def make():\n    return MistralBackbone(1)\ntwin = make()\nrecord(x=twin(i))",
    "in a loop": "rows = []\nfor z in model(inputs):\n    rows.append(z)\nrecord(x=rows[0])",
    "added up": "total = 0\nfor i in ids:\n    total += model(i)\nrecord(x=total)",
    "by index": "found = {}\nfound[1] = model(inputs)\nrecord(x=found[1])",
    "in a walrus": "if (z := model(inputs)) > 0:\n    record(x=z)",
    "as it is": "with watch(model) as calls:\n    pass\nrecord(x=calls)",
    "heard": "seen = []\ndef hear(q, k):\n    seen.append(q)\n    return q\n"
    "with transplanted(model, attention=hear):\n    pass\nrecord(x=seen[0].max())",
    "of a record": 'runs = json.loads((files("a") / "records" / "b.json").read_text())\n'
    'record(x=runs["bits"])',
    "in a dictionary": "z = model(inputs)\nrecord(**{name: z for name in names})",
}
COUNTS = {
    "parameters": "record(x=model.count_params())",
    "settings": "record(x=model.backbone.hidden_dim * model.backbone.num_layers)",
    "tokens": "ids = model.preprocessor.tokenizer.encode(text)\nrecord(x=len(ids), y=ids[0])",
    "a length": "z = model(inputs)\nrecord(x=len(z), y=z.shape[-1], z=z.size)",
    "arithmetic": "S, W = 32, 8\nrecord(x=S * W, y=f'{S / W:.1f}')",
    "a name inside": "def f():\n    z = model(inputs)\nz = 3\nrecord(x=z)",
    "an example": "example(example_x=model(inputs).max())",
    "a claim": 'claim("x", mean(chance(read(model, prompts), prompts)), on="prompts")',
    "the cost of a program": "program = jax.jit(f).lower(1)\nrecord(x=program.cost_analysis())",
    "the text of a program": "program = jax.jit(model).lower(1).compile()\n"
    "record(x=program.as_text().count('all-reduce'))",
    "what a module makes": "import numpy as np\nz = np.asarray(model(inputs))\n"
    "record(x=f'{np.mean([1, 2]):.1f}')",
    "other data": "z = np.random.default_rng(0).normal(size=3)\nrecord(x=f'{z.max():.1f}')",
}


@pytest.mark.parametrize("how", OF_THE_MODEL)
def test_a_number_of_the_model_is_found(how):
    found = list(recorded_as_counts(START + OF_THE_MODEL[how]))
    assert found == ["**" if how == "in a dictionary" else "x"]


@pytest.mark.parametrize("what", COUNTS)
def test_counts_and_arithmetic_are_let_through(what):
    assert list(recorded_as_counts(START + COUNTS[what])) == []


def test_a_name_is_reported_once():
    assert list(recorded_as_counts(f"{START}record(x=model(1))\nrecord(x=model(2), y=3)")) == ["x"]
