"""A Keras network as ONNX and TFLite models that take raw pixels."""

from collections.abc import Sequence
from typing import Any

# First, for tf2onnx loads TensorFlow, too.
from stages.lib.model.deterministic_tensorflow import keras, tf

# isort: split
import numpy as np
import onnx
import tf2onnx
from numpy.typing import NDArray

from stages.lib.core.native_stderr import capture_native_stderr
from stages.lib.data.normalization import Normalization
from stages.lib.model.order_free_network import Range, measure_ranges

INPUT_NAME = "images"
OUTPUT_NAME = "probabilities"
_BRIGHTEST = 255  # of a pixel
_SMALLEST_HIGH = 1e-6  # of a calibrated range


def fold_normalization(network: keras.Model, normalization: Normalization) -> keras.Model:
    """The same network for pixels 0..255 in place of features: its first dense layer does the normalizing."""
    folded = keras.models.clone_model(network)
    folded.set_weights(network.get_weights())
    first_dense = next(layer for layer in folded.layers if isinstance(layer, keras.layers.Dense))
    first_dense.set_weights(normalization.fold(*first_dense.get_weights()))
    return folded


def calibrate(pixel_network: keras.Model, images: NDArray[np.uint8]) -> list[Range]:
    """The range of what each dense layer gives for images uint8 (N, H, W) before its activation, 0 included."""
    ranges = measure_ranges(pixel_network, images.astype(np.float32))
    # A layer that gives only zeros has a range all the same: a scale of 0 would divide by it.
    return [Range(min(low, 0.0), max(high, _SMALLEST_HIGH)) for low, high in ranges]


def convert_to_onnx(pixel_network: keras.Model, opset: int) -> onnx.ModelProto:
    """uint8 images (batch, H, W) in, float32 probabilities (batch, classes) out."""
    function = _trace(pixel_network, tf.uint8)
    with capture_native_stderr():
        model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=opset)
    return model


def convert_to_tflite(pixel_network: keras.Model) -> bytes:
    """uint8 images (batch, H, W) in, float32 probabilities (batch, classes) out, float32 weights."""
    return _run_converter(_create_converter(pixel_network, tf.uint8))


def convert_to_float16_tflite(pixel_network: keras.Model) -> bytes:
    """The same in half the bytes: weights are kept as float16 and computed with as float32."""
    converter = _create_converter(pixel_network, tf.uint8)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return _run_converter(converter)


def convert_to_dynamic_range_tflite(pixel_network: keras.Model) -> bytes:
    """The same with int8 weights; each image's activations are quantized by their own range as it is computed."""
    converter = _create_converter(pixel_network, tf.uint8)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return _run_converter(converter)


def convert_to_int8_tflite(pixel_network: keras.Model, ranges: Sequence[Range]) -> bytes:
    """Integers alone: uint8 images (batch, H, W) in, uint8 probabilities (batch, classes) out.

    ranges: of what each dense layer gives before its activation. The converter takes them from fake quantization, as
    of a network that was trained with it, and computes no activation itself: those of its own kernels differ in the
    last bits between processors. The quantized input's scale is 1 and its zero point 0, so that a camera's byte is the
    quantized input as it is.
    """
    converter = _create_converter(pixel_network, tf.float32, ranges)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return _run_converter(converter)


def _trace(pixel_network: keras.Model, pixel_type: tf.DType, ranges: Sequence[Range] = ()) -> Any:  # noqa: ANN401  (a tf.function)
    """The network as a TensorFlow function with named input and output.

    ranges: of what each dense layer gives before its activation, where activations are to be quantized.
    """
    _, height, width = pixel_network.input_shape
    dense_layers = [layer for layer in pixel_network.layers if isinstance(layer, keras.layers.Dense)]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, height, width], pixel_type, name=INPUT_NAME)])
    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # A reshape to a constant shape: Keras's Flatten would add three operators that compute the batch's size.
        activations = tf.reshape(tf.cast(images, tf.float32), [-1, height * width])  # (N, H * W)
        if ranges:
            return {OUTPUT_NAME: _apply_quantized(dense_layers, activations, ranges)}
        for layer in dense_layers:
            activations = layer(activations)
        return {OUTPUT_NAME: activations}

    return predict


def _apply_quantized(layers: Sequence[keras.layers.Dense], pixels: tf.Tensor, ranges: Sequence[Range]) -> tf.Tensor:
    """The layers' answers to pixels (N, H * W), each layer's outputs quantized by their range."""
    fake_quantize = tf.quantization.fake_quant_with_min_max_args
    activations = fake_quantize(pixels, 0, _BRIGHTEST)
    for layer, bounds in zip(layers, ranges, strict=True):
        outputs = tf.matmul(activations, layer.kernel) + layer.bias
        if layer.activation is keras.activations.relu:
            activations = fake_quantize(tf.nn.relu(outputs), 0, bounds.high)
        else:
            activations = layer.activation(fake_quantize(outputs, bounds.low, bounds.high))
    return activations


def _create_converter(
    pixel_network: keras.Model, pixel_type: tf.DType, ranges: Sequence[Range] = ()
) -> tf.lite.TFLiteConverter:
    # TensorFlow must be told of the variables: it does not look into a Keras 3 model, and zeros would be converted.
    owner = tf.Module()
    owner.weights = [variable.value for variable in pixel_network.variables]
    function = _trace(pixel_network, pixel_type, ranges).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([function], owner)


def _run_converter(converter: tf.lite.TFLiteConverter) -> bytes:
    with capture_native_stderr():
        return bytes(converter.convert())
