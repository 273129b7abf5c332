"""TensorFlow computes the same bits whatever the environment says, and is refused where it is too late for that."""

import os

import pytest
from imports import ROOT
from samples import run_python

# A product whose sums are long enough to be split between threads.
PRODUCT = """
import hashlib, numpy as np
generator = np.random.default_rng(0)
one, other = (generator.normal(size=shape).astype(np.float32) for shape in ((64, 4096), (4096, 64)))
print(hashlib.md5(np.asarray(tf.constant(one) @ tf.constant(other)).tobytes()).hexdigest())
"""
OURS = "from stages.lib.deterministic_tensorflow import keras, tf\n"
PLAIN = "import tensorflow as tf\n"
# What a user may have set for other programs.
THREADS = {"TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "2", "OMP_NUM_THREADS": "2"}
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}


def multiply(imports, **environment):
    """The digest of the product, computed in a process of its own."""
    done = run_python("-c", imports + PRODUCT, cwd=ROOT, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def product():
    """The digest with the pipeline's settings, in an environment that says nothing of them."""
    return multiply(OURS)


@pytest.mark.parametrize("environment", [THREADS, {"TF_ENABLE_ONEDNN_OPTS": "1"}], ids=["threads", "oneDNN"])
def test_environment_does_not_change_a_bit(product, environment):
    """Threads and kernels that the environment asks for are not those that compute."""
    assert multiply(OURS, **environment) == product


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one core there is one order of summation")
@pytest.mark.parametrize(
    "environment",
    [{**ONE_THREAD, **THREADS}, {**ONE_THREAD, "TF_ENABLE_ONEDNN_OPTS": "1"}],
    ids=["threads", "oneDNN"],
)
def test_tensorflow_itself_would(product, environment):
    """Without the settings, more threads or oneDNN's kernels add up in another order: the rules are needed."""
    assert multiply(PLAIN, **environment) != product


def test_settings_after_tensorflow_are_refused():
    """Where TensorFlow is loaded already, the settings would come too late, and that is said."""
    done = run_python("-c", PLAIN + OURS, cwd=ROOT, TF_NUM_INTRAOP_THREADS="2")

    assert done.returncode != 0
    assert "must be imported before tensorflow: the settings it makes came too late" in done.stderr


def test_backend_of_the_users_keras_does_not_matter():
    """The pipeline's network is TensorFlow's, whatever this user's Keras is configured to."""
    done = run_python("-c", OURS + "print(keras.backend.backend())", cwd=ROOT, KERAS_BACKEND="numpy")

    assert done.stdout == "tensorflow\n"
