"""A file that is no Mistral vocabulary is refused by its name, its kind and what to do."""

from pathlib import Path

import pytest
from vocabularies import DATA, MISTRAL, trained_model

from mistral_lib.vocabulary import parse_model, read_vocabulary


def test_real_vocabularies_are_read():
    for path in MISTRAL.values():
        assert parse_model(read_vocabulary(path), str(path)).vocab_size() in (32000, 32768)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.model.*tokenizer\.model"):
        read_vocabulary(tmp_path / "nowhere.model")


def test_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_vocabulary(tmp_path)


def test_two_gigabytes_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.model"
    with open(path, "wb") as file:
        file.truncate(2 * 2**30)  # sparse: takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"2,147,483,648 bytes.*file of weights"):
        read_vocabulary(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"0 bytes\) is damaged or cut short.*empty"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"<html>", "HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 493443\n",
            "git lfs pull",
        ),
        (b'{"version": "1.0", "model": {"type": "BPE"}}', r"JSON file.*tokenizer\.model"),
        (b"PK\x03\x04 a zip archive", "damaged or cut short"),
        (b"\x00" * 64, "damaged or cut short"),
        (b"plain text", "damaged or cut short"),
    ],
)
def test_other_files(content, message):
    with pytest.raises(ValueError, match=rf"^here\.model .*{message}"):
        parse_model(content, "here.model")


def test_tekken_is_named():
    path = DATA / "tekken_240911.json"
    with pytest.raises(ValueError, match=r"a Tekken vocabulary: MistralTekkenTokenizer reads it"):
        parse_model(read_vocabulary(path), str(path))


def test_every_truncation_is_refused():
    # Also between two fields, where protobuf sees nothing wrong.
    proto = trained_model(normalization_rule_name="identity")
    for length in range(len(proto)):
        with pytest.raises(ValueError, match="damaged or cut short"):
            parse_model(proto[:length], "short.model")


def test_truncations_of_a_real_vocabulary_are_refused():
    proto = MISTRAL["v1"].read_bytes()
    normalizer = 20  # bytes at the end
    lengths = [*range(0, len(proto), 9973), len(proto) - normalizer, len(proto) - 1]
    for length in lengths:
        with pytest.raises(ValueError, match=f"{length:,} bytes.*damaged or cut short"):
            parse_model(proto[:length], "short.model")


def test_a_field_of_another_type_is_refused():
    number = b"\x78\x01"  # field 15 is 1: sound protobuf, yet no SentencePiece model has it
    with pytest.raises(ValueError, match=r"damaged.*Field 15 has wire type 0, expected 2"):
        parse_model(trained_model() + number, "longer.model")


def test_damaged_bytes_never_abort():
    # The reader may take a damaged score or text as it is; it must answer or raise, not crash.
    proto = trained_model()
    for position in range(0, len(proto), 499):
        for value in (0x00, 0x0A, 0x7F, 0xFF):
            damaged = proto[:position] + bytes([value]) + proto[position + 1 :]
            try:
                model = parse_model(damaged, "damaged.model")
            except ValueError:
                continue
            model.decode(model.encode("The windöw slides ﬁ ☃"))


def test_pieces_must_be_text():
    proto = trained_model()
    piece = "▁the".encode()
    assert proto.count(piece) == 1
    with pytest.raises(ValueError, match="damaged"):
        parse_model(proto.replace(piece, piece[:-1] + b"\xff"), "damaged.model")


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"bos_id": -1}, "<s>"),
        ({"eos_id": -1}, "</s>"),
        ({"bos_piece": "<bos>"}, "<s>"),
        # A piece that text can spell is no control token.
        ({"bos_id": -1, "user_defined_symbols": "<s>"}, "<s>"),
    ],
)
def test_start_and_end_tokens_are_required(options, missing):
    with pytest.raises(ValueError, match=f"no control token '{missing}'.*tokenizer.model"):
        parse_model(trained_model(**options), "bare.model")


def test_the_padding_id_must_not_be_text():
    ids = {"unk_id": 1, "bos_id": 2, "eos_id": 3}
    with pytest.raises(ValueError, match=r"Id 0 pads rows, but is the piece .* in bare\.model"):
        parse_model(trained_model(**ids), "bare.model")
    assert parse_model(trained_model(pad_id=0, **ids), "padded.model").pad_id() == 0
