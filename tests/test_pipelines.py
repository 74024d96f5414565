"""mistral_lib/pipelines.py: text inside `tf.data` and `grain`."""

import pickle
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from text_models import make_model
from vocabularies import SENTENCES

from mistral_lib import MistralCausalLM
from mistral_lib.pipelines import in_graph, preprocessed

TEXTS = SENTENCES[:4]


def needs(module):
    """A test that needs a package which is no dependency: it runs in the peers' environment."""
    missing = find_spec(module) is None
    skip = pytest.mark.skipif(missing, reason=f"{module} is not installed")
    return lambda function: pytest.mark.peer(pytest.mark.slow(skip(function)))


@pytest.fixture(scope="module")
def model():
    model = make_model()
    model.preprocessor.sequence_length = 64
    return model


class Dataset:
    """As `grain.MapDataset`, whose classes are all in a package of that name."""

    __module__ = "grain.of_the_test"

    def __init__(self, rows):
        self.rows = rows

    def __getitem__(self, index):
        return self.rows[index]


class MapDataset(Dataset):
    __module__ = "grain.of_the_test"

    def map(self, function):
        return MapDataset([function(row) for row in self.rows])


def test_nothing_is_in_a_graph_where_there_is_no_tensorflow():
    assert not any(map(in_graph, ("text", ["text"], np.array(["text"]), b"text", None)))


def test_a_dataset_of_texts_is_mapped_and_no_other_is(model):
    batches = preprocessed(MapDataset([np.array(TEXTS[:2])]), model.preprocessor)
    expected = model.preprocessor(TEXTS[:2])
    keras.tree.map_structure(np.testing.assert_array_equal, batches[0], expected)
    assert preprocessed(batches, model.preprocessor) is batches
    for other in ([1, 2], np.ones(3), None, iter([TEXTS])):
        assert preprocessed(other, None) is other
    with pytest.raises(ValueError, match="no preprocessor"):
        preprocessed(MapDataset(TEXTS), None)
    with pytest.raises(
        TypeError, match=r"must have a map, .* but a Dataset has none. Use a grain.Map"
    ):
        preprocessed(Dataset(TEXTS), model.preprocessor)


def test_workers_get_a_copy(model):
    """`grain` sends the preprocessor to its processes."""
    copied = pickle.loads(pickle.dumps(model.preprocessor))
    keras.tree.map_structure(
        np.testing.assert_array_equal, copied(TEXTS), model.preprocessor(TEXTS)
    )


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda x: np.array(x, object)])
def test_predict_takes_strings(model, kind):
    inputs = model.preprocessor(TEXTS)[0]
    logits = model.predict(kind(TEXTS), verbose=0)
    np.testing.assert_array_equal(logits, model.predict(inputs, verbose=0))
    np.testing.assert_array_equal(
        model.predict_on_batch(kind(TEXTS)), model.predict_on_batch(inputs)
    )


def losses(model, *data):
    return np.array(model.evaluate(*data, verbose=0))


@needs("tensorflow")
def test_tokenizer_in_tf_data(model):
    import tensorflow as tf

    tokenizer, dataset = model.preprocessor.tokenizer, tf.data.Dataset.from_tensor_slices(TEXTS)
    rows = tokenizer.encode(TEXTS)
    alone, together = dataset.map(tokenizer), dataset.batch(3).map(tokenizer)
    assert [row.numpy().tolist() for row in alone] == rows
    assert [row for batch in together for row in batch.to_list()] == rows
    assert alone.element_spec.shape.as_list() == [None]
    for encoded in (alone, together):
        decoded = encoded.map(tokenizer.detokenize)
        texts = np.concatenate([np.ravel(text) for text in decoded.as_numpy_iterator()])
        assert [text.decode() for text in texts] == TEXTS
    assert tokenizer(tf.constant(TEXTS)) == rows
    assert tokenizer.detokenize(tf.ragged.constant(rows)) == TEXTS
    with_ends = dataset.map(lambda text: tokenizer.tokenize(text, add_bos=True))
    assert next(iter(with_ends)).numpy().tolist() == [tokenizer.start_token_id, *rows[0]]


@needs("tensorflow")
def test_preprocessor_in_tf_data(model):
    import tensorflow as tf

    preprocessor, dataset = model.preprocessor, tf.data.Dataset.from_tensor_slices(TEXTS)
    for function, expected in (
        (preprocessor, preprocessor(TEXTS)),
        (preprocessor.generate_preprocess, preprocessor.generate_preprocess(TEXTS)),
    ):
        for mapped in (dataset.map(function).batch(4), dataset.batch(4).map(function)):
            (batch,) = mapped.as_numpy_iterator()
            keras.tree.map_structure(np.testing.assert_array_equal, batch, expected)
    specification = dataset.batch(2, drop_remainder=True).map(preprocessor).element_spec
    assert specification[1].shape.as_list() == [2, 64]


@needs("tensorflow")
def test_a_model_reads_tf_data(model):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2)
    expected = losses(model, TEXTS)
    np.testing.assert_allclose(losses(model, dataset), expected, rtol=1e-5)
    np.testing.assert_allclose(losses(model, dataset.map(model.preprocessor)), expected, rtol=1e-5)
    logits = model.predict(TEXTS, verbose=0)
    for data in (dataset, tf.constant(TEXTS)):
        np.testing.assert_allclose(model.predict(data, verbose=0), logits, atol=1e-5)
    before = [np.array(v.value) for v in model.trainable_variables]
    history = model.fit(dataset, validation_data=dataset, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    for variable, value in zip(model.trainable_variables, before, strict=True):
        variable.assign(value)
    with pytest.raises(ValueError, match="no preprocessor"):
        MistralCausalLM(model.backbone).evaluate(dataset)


@needs("grain")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_model_reads_grain(model):
    import grain

    dataset = grain.MapDataset.source(TEXTS)
    tokenizer = model.preprocessor.tokenizer
    assert [*dataset.map(tokenizer)] == tokenizer.encode(TEXTS)
    assert [*dataset.map(tokenizer).map(tokenizer.detokenize)] == TEXTS
    expected = losses(model, TEXTS)
    batches = dataset.batch(2)
    for data in (
        batches,
        batches.to_iter_dataset(),
        dataset.map(model.preprocessor).batch(2),
        batches.map(model.preprocessor),
    ):
        np.testing.assert_allclose(losses(model, data), expected, rtol=1e-5)
    loader = grain.DataLoader(
        data_source=TEXTS,
        sampler=grain.samplers.SequentialSampler(4, grain.sharding.NoSharding()),
        operations=[grain.transforms.Batch(2)],
    )
    with pytest.raises(TypeError, match="but a DataLoader has none"):
        model.evaluate(loader)
