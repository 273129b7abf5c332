"""TensorFlow is set up the same whatever the environment says, and is refused where it is too late for that."""

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
OURS = "from stages.lib.model.deterministic_tensorflow import keras, tf\n"
PLAIN = "import tensorflow as tf\n"
THREADS = "print(tf.config.threading.get_intra_op_parallelism_threads())"
# What a user may have set for other programs.
ONE_DNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}
NO_ONE_DNN = {"TF_ENABLE_ONEDNN_OPTS": "0"}


def run(script, **environment):
    """What a script prints in a process of its own."""
    done = run_python("-c", script, cwd=ROOT, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_environment_does_not_choose_the_kernels():
    """Kernels are ours to choose, whatever the environment asks for."""
    assert run(OURS + PRODUCT, **ONE_DNN) == run(OURS + PRODUCT, **NO_ONE_DNN)


@pytest.mark.slow
def test_tensorflow_itself_would_take_other_kernels():
    """Without the settings, other kernels add up in another order: the rule is needed."""
    assert run(PLAIN + PRODUCT, **ONE_DNN) != run(PLAIN + PRODUCT, **NO_ONE_DNN)


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one core there is one order of summation")
def test_threads_change_a_float32_product():
    """What `order_free` is for: TensorFlow's own sums depend on the number of threads."""
    one, two = (run(PLAIN + PRODUCT, TF_NUM_INTRAOP_THREADS=count, **NO_ONE_DNN) for count in "12")

    assert one != two


def test_all_cores_are_used_whatever_the_environment_says():
    """0 stands for as many threads as there are cores."""
    assert run(OURS + THREADS, TF_NUM_INTRAOP_THREADS="1") == run(OURS + THREADS) == "0\n"


def test_settings_after_tensorflow_are_refused():
    """Where TensorFlow is loaded already, the settings would come too late, and that is said."""
    done = run_python("-c", PLAIN + OURS, cwd=ROOT, TF_NUM_INTRAOP_THREADS="2")

    assert done.returncode != 0
    assert "must be imported before tensorflow: the settings it makes came too late" in done.stderr


def test_backend_of_the_users_keras_does_not_matter():
    """The pipeline's network is TensorFlow's, whatever this user's Keras is configured to."""
    done = run_python("-c", OURS + "print(keras.backend.backend())", cwd=ROOT, KERAS_BACKEND="numpy")

    assert done.stdout == "tensorflow\n"
