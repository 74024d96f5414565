"""mistral_lib/devices.py: what a device can compute."""

from types import SimpleNamespace

import jax
import pytest

from mistral_lib.devices import compute_capability, has_bfloat16


@pytest.mark.parametrize(
    ("described", "capability", "bfloat16"),
    [
        ({"compute_capability": "7.5"}, 7, False),
        ({"compute_capability": "8.0"}, 8, True),
        ({"compute_capability": "10.0"}, 10, True),
        ({"compute_capability": "gfx90a"}, None, True),
        ({}, None, True),
    ],
)
def test_capabilities(monkeypatch, described, capability, bfloat16):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(**described)])
    assert (compute_capability(), has_bfloat16()) == (capability, bfloat16)
