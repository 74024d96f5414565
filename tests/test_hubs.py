"""mistral_lib/presets/hubs.py: the hubs' own clients, and servers that speak their protocols."""

import re
import shutil
import socket
import sys
from pathlib import Path

import huggingface_hub
import kagglehub
import kagglesdk.kaggle_env
import numpy as np
import pytest
from file_server import closed_port, read_folder
from hugging_face_server import HuggingFaceServer, commit_of
from huggingface_hub import constants
from kaggle_server import KaggleServer
from small_presets import (
    KERAS_HUB,
    assert_same_weights,
    small_backbone,
    small_causal_lm,
    write_as_mistral,
)
from vocabularies import trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
    lora,
)
from mistral_lib.presets.addresses import open_source

BIG = bytes(range(256)) * 10_000  # 2.56 MB: Kaggle's client writes a megabyte at a time
FILES = {"config.json": b"{}", "assets/vocabulary.spm": b"pieces", "weights.h5": BIG}
FORMATS = Path(__file__).parent / "reference" / "formats"
# What a model's repository holds besides.
NOT_WANTED = {"README.md", "pytorch_model.bin", "tf_model.h5", "consolidated.safetensors"}


@pytest.fixture(autouse=True)
def waits(tmp_path, monkeypatch):
    """No proxy, no credentials, no cache but an empty one; and nobody waits between attempts."""
    credentials = ("HF_TOKEN", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME")
    notebooks = ("KAGGLE_KERNEL_RUN_TYPE", "TBE_RUNTIME_ADDR")  # Kaggle's and Colab's
    for name in (*credentials, *notebooks, "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)  # what is written at a time
    # It reads the source of the whole call stack to say which library is calling.
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")
    huggingface_hub.close_session()  # one that an earlier test set up
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


@pytest.fixture
def connect(monkeypatch):
    """Has both clients look for their hubs at an address. They read it when they are imported."""

    def to(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        endpoints = kagglesdk.kaggle_env._env_to_endpoint
        monkeypatch.setitem(endpoints, kagglesdk.kaggle_env.KaggleEnv.PROD, address)

    return to


@pytest.fixture
def hugging_face(connect):
    """A running server with the model a/b, on two branches."""
    server = HuggingFaceServer()
    server.models["a/b"] = {"main": dict(FILES), "old": {**FILES, "config.json": b'{"old": 1}'}}
    with server.running() as address:
        connect(address)
        yield server


@pytest.fixture
def kaggle(connect):
    """A running server with three versions of the model a/b/keras/c."""
    server = KaggleServer()
    versions = {n: {**FILES, "config.json": b'{"version": %d}' % n} for n in (1, 2, 10)}
    server.models["a/b/keras/c"] = versions
    with server.running() as address:
        connect(address)
        yield server


# --- Hugging Face --------------------------------------------------------------------------------


def test_hugging_face_files(hugging_face):
    source = open_source("hf://a/b")
    for name, data in FILES.items():
        assert source.get(name).read_bytes() == data
    assert source.find("task.json") is None
    with pytest.raises(FileNotFoundError, match=r"^hf://a/b has no file task\.json\.$"):
        source.get("task.json")


def test_a_revision_is_a_branch_or_a_commit(hugging_face):
    old = hugging_face.models["a/b"]["old"]
    hugging_face.models["a/b"]["refs/pr/1"] = {**old, "README.md": b"a proposal"}
    for revision in ("old", commit_of(old), "refs/pr/1"):
        source = open_source(f"hf://a/b@{revision}")
        assert source.get("config.json").read_bytes() == old["config.json"]
        assert source.get("weights.h5").read_bytes() == BIG
    with pytest.raises(FileNotFoundError, match=r"@v9: the model has no branch, .* commit 'v9'"):
        open_source("hf://a/b@v9").find("config.json")


def test_all_files_are_of_one_commit(hugging_face):
    """Though somebody replaces the model while it is loaded."""
    source = open_source("hf://a/b")
    before = hugging_face.models["a/b"]["main"]
    assert source.get("config.json").read_bytes() == b"{}"
    hugging_face.models["a/b"] = {"main": {**FILES, "weights.h5": b"new"}, "before": before}
    assert source.get("weights.h5").read_bytes() == BIG
    assert open_source("hf://a/b").get("weights.h5").read_bytes() == b"new"


def test_gated(hugging_face, monkeypatch):
    hugging_face.gated.add("a/b")
    hugging_face.tokens = {"hf_waiting": False, "hf_admitted": True}
    message = r"hf://a/b is gated: accept its terms at https://huggingface\.co/a/b and log in"
    with pytest.raises(PermissionError, match=message):  # 401
        open_source("hf://a/b").find("config.json")
    monkeypatch.setenv("HF_TOKEN", "hf_waiting")
    with pytest.raises(PermissionError, match=message):  # 403
        open_source("hf://a/b").find("config.json")
    monkeypatch.setenv("HF_TOKEN", "hf_admitted")
    assert open_source("hf://a/b").get("weights.h5").read_bytes() == BIG


def test_a_token_that_is_not_valid(hugging_face, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(PermissionError, match=r"does not give out hf://a/b: .*Check your access t"):
        open_source("hf://a/b").find("config.json")


def test_a_model_that_does_not_exist(hugging_face, monkeypatch):
    message = r"hf://a/z does not exist, or is private: check the name, or log in"
    with pytest.raises(FileNotFoundError, match=message):  # 401
        open_source("hf://a/z").find("config.json")
    hugging_face.tokens = {"hf_mine": True}
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    with pytest.raises(FileNotFoundError, match=message):  # 404
        open_source("hf://a/z").find("config.json")


def test_a_name_that_no_model_can_have(hugging_face):
    with pytest.raises(ValueError, match=r"hf://a/b\.\.c is no address of a model on Hugging"):
        open_source("hf://a/b..c").find("config.json")
    assert hugging_face.requests == []


UNREACHABLE = {"refused": closed_port, "unresolved": lambda: "http://hub.invalid"}


@pytest.fixture(params=UNREACHABLE)
def unreachable(request, connect, monkeypatch):
    """No server listens, or its name is not known."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        if host in ("hub.invalid", b"hub.invalid"):  # at once, whatever resolver this machine has
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lambda: connect(UNREACHABLE[request.param]())


def test_hugging_face_without_network(unreachable):
    unreachable()
    message = r"^Hugging Face cannot be reached, and config\.json of hf://a/b@v9 was not downloaded"
    with pytest.raises(ConnectionError, match=message):
        open_source("hf://a/b@v9").find("config.json")


def test_hugging_face_told_to_stay_offline(hugging_face, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"Check the network and HF_HUB_OFFLINE"):
        open_source("hf://a/b").find("config.json")
    assert hugging_face.requests == []


@pytest.mark.parametrize("address", ["hf://a/b", "hf://a/b@old"])
def test_hugging_face_offline_with_all_in_the_cache(hugging_face, unreachable, waits, address):
    """Also what the model lacks: a sharded preset opens without model.weights.h5."""
    source = open_source(address)
    names = [*FILES, "task.json", "model.weights.h5"]
    online = [source.find(name) for name in names]
    unreachable()
    again = open_source(address)
    assert [again.find(name) for name in reversed(names)] == online[::-1]
    assert waits == []  # the client did not wait and try again
    with pytest.raises(ConnectionError, match=r"other\.h5 of hf://a/b(@old)? was not downloaded"):
        again.find("other.h5")


def test_hugging_face_offline_with_a_cache_that_another_program_filled(hugging_face, unreachable):
    """Its client writes down which commit the branch was."""
    for name in ("config.json", "weights.h5"):
        huggingface_hub.hf_hub_download("a/b", name)
    unreachable()
    source = open_source("hf://a/b")
    assert source.get("weights.h5").read_bytes() == BIG


def put_into_the_cache(folder, model="a/b"):
    """Puts a folder's files into the cache as `hf download` does: all of them, and a branch."""
    commit = "a" * 40
    cached = Path(constants.HF_HUB_CACHE, "--".join(("models", *model.split("/"))))
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(commit)


@pytest.mark.parametrize("kind", ["keras", "keras, sharded", "keras, LoRA", "transformers"])
def test_hugging_face_offline_with_a_model_that_another_program_downloaded(
    tmp_path, unreachable, kind
):
    """Nobody has asked for what it lacks, so nothing says that it lacks it."""
    model = small_causal_lm()
    if kind == "keras, LoRA":
        model.backbone.enable_lora(2)
    if kind == "transformers":
        model.preprocessor = None
        model.export_to_transformers(tmp_path / "saved", max_shard_size=1e-6)
    else:
        model.save_to_preset(tmp_path / "saved", max_shard_size=1e-6 if "shard" in kind else None)
    put_into_the_cache(tmp_path / "saved")
    unreachable()
    opened = MistralCausalLM.from_preset("hf://a/b")
    assert_same_weights(opened, model)
    assert (opened.preprocessor is None) == (kind == "transformers")
    # What is needed, and is not there, may be missing in the cache alone.
    for file in Path(constants.HF_HUB_CACHE).rglob("model*"):
        if (file.suffix != ".json" and file.is_file()) or file.name == "model.weights.json":
            file.unlink()
    with pytest.raises(ConnectionError, match=r"Hugging Face cannot be reached, and .*model"):
        MistralCausalLM.from_preset("hf://a/b")


def test_another_program_finds_what_was_downloaded_here(hugging_face, unreachable):
    file = open_source("hf://a/b").get("config.json")
    unreachable()
    assert huggingface_hub.hf_hub_download("a/b", "config.json") == str(file)


def test_a_branch_is_asked_for_once(hugging_face):
    """And a commit not at all, once its files are here."""
    main = hugging_face.models["a/b"]["main"]
    for _ in range(2):
        hugging_face.requests.clear()
        source = open_source("hf://a/b")
        for name in [*FILES, "task.json"] * 2:
            source.find(name)
    assert hugging_face.requests == ["HEAD /a/b/resolve/main/config.json"]
    source = open_source(f"hf://a/b@{commit_of(main)}")
    for name in [*FILES, "task.json"]:
        source.find(name)
    assert len(hugging_face.requests) == 1


@pytest.mark.parametrize("name", ["weights.h5", "config.json"])
def test_hugging_face_resumes_by_itself(hugging_face, name):
    hugging_face.models["a/b"]["main"][name] = BIG
    hugging_face.breaks[name] = 1_000_000
    assert open_source("hf://a/b").get(name).read_bytes() == BIG
    (resumed,) = (request for request in hugging_face.requests if " from " in request)
    assert 0 < int(resumed.split()[-1]) <= 1_000_000


def test_hugging_face_breaks_off(hugging_face, monkeypatch):
    source = open_source("hf://a/b")
    source.get("config.json")
    hugging_face.breaks["weights.h5"] = 1_000_000
    hugging_face.status_after_break = 503
    with pytest.raises(ConnectionError, match=r"cannot give out weights\.h5 of hf://a/b now.*503"):
        source.get("weights.h5")
    hugging_face.status = None
    assert source.get("weights.h5").read_bytes() == BIG


def test_hugging_face_is_down(hugging_face):
    hugging_face.status = 503
    message = r"Hugging Face cannot give out config\.json of hf://a/b now: .*503.* Try again later"
    with pytest.raises(ConnectionError, match=message):
        open_source("hf://a/b").find("config.json")


def test_access_to_a_model_is_disabled(hugging_face):
    hugging_face.status = 403
    with pytest.raises(PermissionError, match=r"Hugging Face does not give out hf://a/b: .*403"):
        open_source("hf://a/b").find("config.json")


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (OSError(28, "No space left on device"), OSError, r"could not be stored: No space left"),
        (OSError(13, "Permission denied"), PermissionError, r"could not be stored: Permission"),
        (
            RuntimeError("read timed out"),
            ConnectionError,
            r"could not be downloaded: read timed out\.",
        ),
        (RuntimeError(), ConnectionError, r"could not be downloaded: RuntimeError\. Check"),
    ],
)
def test_what_else_can_happen(monkeypatch, raised, expected, message):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(kagglehub, "model_download", fail)
    for address in ("hf://a/b", "kaggle://a/b/keras/c/1"):
        with pytest.raises(expected, match=f"{address}: config.json {message}") as caught:
            open_source(address).find("config.json")
        assert type(caught.value) is expected


# --- Kaggle --------------------------------------------------------------------------------------


def test_kaggle_files(kaggle):
    source = open_source("kaggle://a/b/keras/c/2")
    assert source.get("config.json").read_bytes() == b'{"version": 2}'
    assert source.get("weights.h5").read_bytes() == BIG
    assert source.get("assets/vocabulary.spm").read_bytes() == b"pieces"
    for _ in range(2):
        assert source.find("task.json") is None
    assert kaggle.requests.count("POST task.json of a/b/keras/c/2") == 1
    with pytest.raises(FileNotFoundError, match=r"^kaggle://a/b/keras/c/2 has no file task\.json"):
        source.get("task.json")


def test_without_a_version_the_newest(kaggle):
    """And all files are of one version, though another is published meanwhile."""
    source = open_source("kaggle://a/b/keras/c")
    assert source.get("config.json").read_bytes() == b'{"version": 10}'
    kaggle.models["a/b/keras/c"][11] = {**FILES, "weights.h5": b"new"}
    assert source.get("weights.h5").read_bytes() == BIG
    assert open_source("kaggle://a/b/keras/c").get("weights.h5").read_bytes() == b"new"


def test_a_version_that_does_not_exist(kaggle):
    message = r"c/9 does not exist, or has no config\.json: .*models/a/b\. Its newest version is 10"
    with pytest.raises(FileNotFoundError, match=message):
        open_source("kaggle://a/b/keras/c/9").find("config.json")


@pytest.mark.parametrize("version", ["", "/3"])
def test_a_kaggle_model_that_does_not_exist(kaggle, version):
    message = (
        r"kaggle://a/z/keras/c(/3)? does not exist, .* name at https://www\.kaggle.*models/a/z"
    )
    with pytest.raises(FileNotFoundError, match=message) as caught:
        open_source(f"kaggle://a/z/keras/c{version}").find("task.json")
    assert "newest" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("version", ["", "/2"])
def test_consent_is_missing(kaggle, status, version):
    kaggle.refused["a/b/keras/c"] = status
    message = (
        rf"Kaggle does not give out kaggle://a/b/keras/c{version}: accept the model's terms at"
    )
    with pytest.raises(PermissionError, match=message):
        open_source(f"kaggle://a/b/keras/c{version}").find("config.json")


def test_a_refusal_is_not_taken_for_a_missing_file(kaggle):
    """Neither now nor, remembered, after logging in."""
    source = open_source("kaggle://a/b/keras/c/2")
    source.get("config.json")
    kaggle.refused["a/b/keras/c"] = 403
    with pytest.raises(PermissionError, match=r"log in with kagglehub\.login"):
        source.find("weights.h5")
    kaggle.refused.clear()
    assert source.get("weights.h5").read_bytes() == BIG


@pytest.mark.parametrize("version", ["", "/3"])
def test_kaggle_without_network(unreachable, version):
    unreachable()
    message = (
        rf"^Kaggle cannot be reached, and config\.json of kaggle://a/b/keras/c{version} was not"
    )
    with pytest.raises(ConnectionError, match=message):
        open_source(f"kaggle://a/b/keras/c{version}").find("weights.h5")


@pytest.mark.parametrize("version", ["", "/10", "/2"])
def test_kaggle_offline_with_all_in_the_cache(kaggle, unreachable, version):
    names = [*FILES, "task.json", "model.weights.h5"]
    open_source("kaggle://a/b/keras/c/1").get("config.json")  # of which the newest is told apart
    source = open_source(f"kaggle://a/b/keras/c{version}")
    online = [source.find(name) for name in names]
    unreachable()
    again = open_source(f"kaggle://a/b/keras/c{version}")
    assert [again.find(name) for name in reversed(names)] == online[::-1]
    with pytest.raises(ConnectionError, match=r"other\.h5 of kaggle://a/b/keras/c.* was not downl"):
        again.find("other.h5")


def test_offline_no_other_version_takes_its_place(kaggle, connect):
    open_source("kaggle://a/b/keras/c/10").get("config.json")
    connect(closed_port())
    with pytest.raises(ConnectionError, match=r"config\.json of kaggle://a/b/keras/c/2 was not"):
        open_source("kaggle://a/b/keras/c/2").find("config.json")


def test_kaggle_resumes_when_called_again(kaggle):
    source = open_source("kaggle://a/b/keras/c/2")
    kaggle.breaks["weights.h5"] = 1_500_000
    with pytest.raises(ConnectionError, match=r"weights\.h5 could not be downloaded: .*try again"):
        source.get("weights.h5")
    assert source.get("weights.h5").read_bytes() == BIG
    (resumed,) = (request for request in kaggle.requests if " from " in request)
    assert resumed.endswith("/weights.h5 from 1048576")


def test_what_arrives_damaged_is_thrown_away(kaggle):
    source = open_source("kaggle://a/b/keras/c/2")
    kaggle.damaged.add("weights.h5")
    with pytest.raises(ConnectionError, match=r"weights\.h5 could not be downloaded: .*MD5"):
        source.get("weights.h5")
    kaggle.damaged.clear()
    assert source.get("weights.h5").read_bytes() == BIG


def test_kaggle_is_down(kaggle):
    kaggle.status = 503
    with pytest.raises(ConnectionError, match=r"Kaggle cannot give out config\.json of .*503"):
        open_source("kaggle://a/b/keras/c/2").find("config.json")


def test_where_kaggle_mounts_its_models(monkeypatch, tmp_path):
    """In its notebooks the client says by a ValueError that a file is missing."""
    folder = tmp_path / "mounted" / "2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    asked = []

    def model_download(handle, name):
        asked.append(handle)
        if not (folder / name).exists():
            raise ValueError(f"'{name}' is not present in the model files. Others are")
        return str(folder / name)

    monkeypatch.setattr(kagglehub, "model_download", model_download)
    source = open_source("kaggle://a/b/keras/c")
    assert source.get("config.json") == folder / "config.json"
    assert source.find("task.json") is None
    assert asked == ["a/b/keras/c", "a/b/keras/c/2"]
    folder.rename(tmp_path / "slug")
    folder = tmp_path / "slug"
    source = open_source("kaggle://a/b/keras/c")
    assert source.find("model.json") is None
    assert asked[2:] == ["a/b/keras/c", "a/b/keras/c"]


def test_an_error_of_the_caller_is_passed_on(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_text("no JSON")
    with pytest.raises(ValueError, match="Invalid Kaggle credentials file at"):
        open_source("kaggle://a/b/keras/c/2").find("config.json")


def test_kaggle_needs_its_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ImportError, match=r"pip install 'mistral-lib\[kaggle\]'.*hf://keras/c\."):
        open_source("kaggle://a/b/keras/c/1").find("config.json")


# --- Whole presets -------------------------------------------------------------------------------


@pytest.fixture(params=["hf://a/b", "kaggle://a/b/keras/c/2", "kaggle://a/b/keras/c"])
def hub(request, connect):
    """A function that puts a folder on a hub and gives its address and the server."""
    server = HuggingFaceServer() if request.param.startswith("hf") else KaggleServer()

    def publish(folder):
        files = {**read_folder(folder), **dict.fromkeys(NOT_WANTED, b"not wanted")}
        server.models["a/b"] = {"main": files}
        server.models["a/b/keras/c"] = {1: {}, 2: files}
        return request.param, server

    with server.running() as address:
        connect(address)
        yield publish


@pytest.mark.parametrize("layout", KERAS_HUB)
def test_a_preset_of_keras_hub(hub, layout, connect):
    address, server = hub(KERAS_HUB[layout])
    expected = MistralBackbone.from_preset(KERAS_HUB[layout])
    assert_same_weights(MistralBackbone.from_preset(address), expected)
    assert server.sent.isdisjoint(NOT_WANTED)
    assert any(name.endswith(".h5") for name in server.sent)
    connect(closed_port())
    assert_same_weights(MistralBackbone.from_preset(address), expected)


def test_a_causal_lm_of_keras_hub(hub):
    address, server = hub(KERAS_HUB["single"])
    model = MistralCausalLM.from_preset(address)
    expected = MistralCausalLM.from_preset(KERAS_HUB["single"])
    assert_same_weights(model, expected)
    assert model.preprocessor.get_config() == expected.preprocessor.get_config()
    assert server.sent == {*read_folder(KERAS_HUB["single"])}


def test_the_example_of_the_documentation(kaggle):
    """It names a preset that was never published, and means version 8 of mistral_7b_en."""
    files = read_folder(KERAS_HUB["single"])
    kaggle.models["keras/mistral/keras/mistral_7b_en"] = {8: files, 9: {}}
    backbone = MistralBackbone.from_preset("mistral7b_base_en")
    assert_same_weights(backbone, MistralBackbone.from_preset(KERAS_HUB["single"]))


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_a_checkpoint_of_transformers(hub, layout, connect):
    """Mistral's own repositories hold the weights twice: consolidated.safetensors stays there."""
    address, server = hub(FORMATS / layout)
    expected = MistralBackbone.from_preset(FORMATS / layout)
    assert_same_weights(MistralBackbone.from_preset(address), expected)
    assert server.sent == set(read_folder(FORMATS / layout)) - {
        "generation_config.json",
        "tokenizer.model",
    }
    connect(closed_port())
    assert_same_weights(MistralBackbone.from_preset(address), expected)


GGUF = Path(__file__).parent / "reference/gguf"


def test_gguf_files(hugging_face, connect):
    """The only one of a model, or the one that is named; and again without a network."""
    data = (GGUF / "text.gguf").read_bytes()
    one = {"README.md": b"", "a-Q8_0.gguf": data, "mmproj-a.gguf": b"an encoder of images"}
    many = {"README.md": b"", "a.gguf": data, "BF16/a.gguf": data, "config.json": b"{}"}
    hugging_face.models |= {"a/one": {"main": one}, "a/many": {"main": many}}
    expected = MistralBackbone.from_preset(GGUF / "text.gguf")
    for address in ("hf://a/one", "hf://a/many/BF16/a.gguf", "hf://a/many/a.gguf@main"):
        assert_same_weights(MistralBackbone.from_preset(address), expected)
    assert "mmproj-a.gguf" not in hugging_face.sent
    backbone = MistralBackbone.from_preset("hf://a/one")
    hugging_face.models["a/lora"] = {"main": {"b.gguf": (GGUF / "adapter.gguf").read_bytes()}}
    backbone.load_lora_weights("hf://a/lora/b.gguf")
    del many["config.json"]
    hugging_face.models["a/several"] = {"main": many}
    with pytest.raises(ValueError, match=r"holds 2 GGUF files: a\.gguf, BF16/a\.gguf\. Name one"):
        MistralBackbone.from_preset("hf://a/several")
    with pytest.raises(FileNotFoundError, match=r"hf://a/one has no file b\.gguf"):
        MistralBackbone.from_preset("hf://a/one/b.gguf")
    connect(closed_port())
    assert_same_weights(MistralBackbone.from_preset("hf://a/many/BF16/a.gguf"), expected)


# --- A model that is replaced while it is loaded -------------------------------------------------

LAYOUTS = ["KerasHub", "KerasHub in shards", "transformers", "transformers in shards", "Mistral"]


@pytest.fixture(scope="module", params=LAYOUTS)
def two_models(request, tmp_path_factory):
    """Folders of two models that differ in all that is loaded, but not in their sizes."""
    folders = []
    for seed in (0, 1):
        proto = trained_model(
            user_defined_symbols=["<a>", "<b>"][seed],
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
        )
        preprocessor = MistralCausalLMPreprocessor(MistralTokenizer(proto), 12 + seed)
        backbone = small_backbone(seed, rope_max_wavelength=500.0 + seed)
        model = MistralCausalLM(backbone, preprocessor, [5 + seed], name=f"model_{seed}")
        folder = tmp_path_factory.mktemp("models") / "model"
        options = {"max_shard_size": 4e-6 if "shards" in request.param else None}
        if "KerasHub" in request.param:
            model.save_to_preset(folder, **options)
        else:
            model.export_to_transformers(folder, **options)
        if request.param == "Mistral":
            write_as_mistral(folder, folder.with_name("mistral"))
            folder = folder.with_name("mistral")
        folders.append(folder)
    return folders


def loaded(preset):
    """All that a preset is loaded for."""
    model = MistralCausalLM.from_preset(preset)
    backbone, preprocessor = model.backbone, model.preprocessor
    return {
        "weights": [np.asarray(variable.value).tobytes() for variable in backbone.variables],
        "wavelength": backbone.rope_max_wavelength,
        "ends": model.end_token_ids,
        "vocabulary": preprocessor.tokenizer.proto,
        "length": preprocessor.sequence_length,
    }


@pytest.fixture
def replaced_between_any_two_requests(tmp_path):
    """A function that loads, while the model is replaced after 0, 1, 2, … requests."""

    def load_again_and_again(server, publish, replace, load):
        found = []
        server.changes = {}
        while not server.changes:  # until a load takes no more requests than that
            for name in ("huggingface", "kagglehub"):
                shutil.rmtree(tmp_path / name, ignore_errors=True)
            server.requests.clear()
            publish()
            server.changes = {len(found): replace}
            try:
                found.append(load())
            except (OSError, ValueError) as error:
                found.append(error)
        return found

    return load_again_and_again


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["history kept", "history rewritten"])
def test_a_commit_between_any_two_requests(
    hugging_face, replaced_between_any_two_requests, two_models, kept
):
    """Everything comes from one commit, or one sentence says why not."""
    old, new = map(read_folder, two_models)
    expected = [loaded(folder) for folder in two_models]
    later = {"main": new, "before": old} if kept else {"main": new}
    found = replaced_between_any_two_requests(
        hugging_face,
        lambda: hugging_face.models.update({"a/b": {"main": old}}),
        lambda: hugging_face.models.update({"a/b": later}),
        lambda: loaded("hf://a/b"),
    )
    assert len(found) > 10
    for outcome in found:
        if isinstance(outcome, OSError):
            assert not kept
            assert re.match(r"hf://a/b: .*commit \w+ .* is gone.* try again", str(outcome))
        else:
            same = [[name for name in outcome if outcome[name] == m[name]] for m in expected]
            assert outcome in expected, f"of the first: {same[0]}; of the second: {same[1]}"
    assert (found[0], found[-1]) == (expected[1], expected[0])


@pytest.mark.slow
def test_a_version_between_any_two_requests(kaggle, replaced_between_any_two_requests, two_models):
    if not (two_models[0] / "config.json").exists():
        return  # by that file the newest version is found
    old, new = map(read_folder, two_models)
    expected = [loaded(folder) for folder in two_models]
    found = replaced_between_any_two_requests(
        kaggle,
        lambda: kaggle.models.update({"a/b/keras/c": {1: old}}),
        lambda: kaggle.models["a/b/keras/c"].update({2: new}),
        lambda: loaded("kaggle://a/b/keras/c"),
    )
    assert len(found) > 10
    assert all(outcome in expected for outcome in found)
    assert (found[0], found[-1]) == (expected[1], expected[0])


def test_an_adapter_is_of_one_commit(hugging_face, replaced_between_any_two_requests, tmp_path):
    """It has no config.json by which its commit could be found."""
    folders = []
    for seed in (0, 1):
        backbone = small_backbone()
        backbone.enable_lora(2, lora_alpha=1 + seed)
        for factor in backbone.trainable_variables:
            factor.assign(np.full(factor.shape, seed))
        folders.append(tmp_path / f"adapter_{seed}")
        backbone.export_lora_to_peft(folders[-1])

    def adapted(adapter):
        backbone = small_backbone()
        backbone.load_lora_weights(adapter)
        return [np.asarray(v.value).tobytes() for v in backbone.variables], lora.settings(backbone)

    expected = [adapted(folder) for folder in folders]
    old, new = map(read_folder, folders)
    found = replaced_between_any_two_requests(
        hugging_face,
        lambda: hugging_face.models.update({"a/b": {"main": old}}),
        lambda: hugging_face.models.update({"a/b": {"main": new, "before": old}}),
        lambda: adapted("hf://a/b"),
    )
    assert len(found) > 3
    assert all(outcome in expected for outcome in found)
    assert (found[0], found[-1]) == (expected[1], expected[0])
