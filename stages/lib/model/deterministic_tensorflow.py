"""TensorFlow and Keras, imported such that equal inputs give equal bytes in any process.

Import them from here alone: the settings must stand before TensorFlow is first loaded. On another processor, float32
sums differ all the same: what is hashed is computed with those of `order_free`.
"""

import os
import platform
import sys

from stages.lib.core.lean_imports import import_lean
from stages.lib.core.native_stderr import capture_native_stderr

_SETTINGS = {
    # All cores for an operation, for exact sums do not depend on threads; operations one after the other.
    # `train` chooses others where they are faster.
    "TF_NUM_INTRAOP_THREADS": "0",
    "TF_NUM_INTEROP_THREADS": "1",
    # oneDNN's convolutions are two to four times as fast as TensorFlow's own. It picks its kernels, and so its order of
    # summation, by what the processor offers, which changes no bit of an exact sum. On ARM its kernels are others'.
    # https://github.com/tensorflow/community/blob/master/rfcs/20210930-enable-onednn-ops.md
    "TF_ENABLE_ONEDNN_OPTS": "1" if platform.machine() in ("x86_64", "AMD64") else "0",
    # Nor may it shorten float32 to bfloat16, which would be faster still.
    # https://uxlfoundation.github.io/oneDNN/dev_guide_attributes_fpmath_mode.html
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "TF_SET_ONEDNN_FPMATH_MODE": "STRICT",
    # The pipeline's network is a TensorFlow one, whatever this user's Keras is configured to.
    "KERAS_BACKEND": "tensorflow",
    # A GPU sums in another order.
    "CUDA_VISIBLE_DEVICES": "-1",
    # Its C++ side reports each missing GPU library as an error; what goes wrong in earnest comes as an exception.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

if "tensorflow" in sys.modules and any(os.environ.get(key) != value for key, value in _SETTINGS.items()):
    raise RuntimeError(f"{__name__} must be imported before tensorflow: the settings it makes came too late")
os.environ.update(_SETTINGS)

# What Keras and TensorFlow offer to do with other packages' tables, estimators and charts is not wanted here, and would
# take as long to load as they do. TensorFlow announces, before its log level counts, that this machine has no CUDA.
with import_lean("jax", "matplotlib", "matplotlib.pyplot", "pandas", "scipy", "sklearn"), capture_native_stderr():
    import keras
    import tensorflow as tf

# Refuses the ops that have no deterministic implementation.
# https://www.tensorflow.org/api_docs/python/tf/config/experimental/enable_op_determinism
tf.config.experimental.enable_op_determinism()
# The first would turn x / sqrt(y), as adagrad and rmsprop have it, into x * rsqrt(y), whose last bit differs between
# processors; the second would begin a convolution's sums with its bias, which no exact sum may hold.
tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "remapping": False})

__all__ = ["keras", "tf"]
