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

from stages.lib.core.errors import ExportError
from stages.lib.core.native_stderr import capture_native_stderr
from stages.lib.data.normalization import Normalization
from stages.lib.model.network import has_convolutions
from stages.lib.model.order_free_network import Range, measure_ranges

INPUT_NAME = "images"
OUTPUT_NAME = "probabilities"
_BRIGHTEST = 255  # of a pixel
_SMALLEST_HIGH = 1e-6  # of a calibrated range
_WEIGHTED = (keras.layers.Conv2D, keras.layers.Dense)


def fold_normalization(network: keras.Model, normalization: Normalization) -> keras.Model:
    """The same network for pixels 0..255 in place of features: its first layer with weights does the normalizing.

    Raises:
        ExportError: a convolution pads its images: the zeros at their border would no longer be what they were.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.padding != "valid":
            raise ExportError(
                f"the layer {layer.name}",
                expected="a convolution with 'valid' padding",
                got=f"'{layer.padding}'",
                hint="run `dvc repro`, which trains a network of such convolutions",
            )
    folded = keras.models.clone_model(network)
    folded.set_weights(network.get_weights())
    first = _find_first(folded)
    first.set_weights(normalization.fold(*first.get_weights()))
    return folded


def calibrate(pixel_network: keras.Model, images: NDArray[np.uint8]) -> list[Range]:
    """The range of what each layer with weights gives for raw images before its activation, 0 included."""
    ranges = measure_ranges(pixel_network, images.astype(np.float32))
    # A layer that gives only zeros has a range all the same: a scale of 0 would divide by it.
    return [Range(min(low, 0.0), max(high, _SMALLEST_HIGH)) for low, high in ranges]


def convert_to_onnx(pixel_network: keras.Model, opset: int) -> onnx.ModelProto:
    """uint8 images (batch, H, W[, 3]) in, float32 probabilities (batch, classes) out."""
    function = _trace(_flatten_channels_first(pixel_network), tf.uint8)
    with capture_native_stderr():
        model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=opset)
    return model


def convert_to_tflite(pixel_network: keras.Model) -> bytes:
    """uint8 images (batch, H, W[, 3]) in, float32 probabilities (batch, classes) out, float32 weights."""
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
    """Integers alone: uint8 images (batch, H, W[, 3]) in, uint8 probabilities (batch, classes) out.

    ranges: of what each layer with weights gives before its activation. The converter takes them from fake
    quantization, as of a network that was trained with it, and computes no activation itself: those of its own kernels
    differ in the last bits between processors. The quantized input's scale is 1 and its zero point 0, so that a
    camera's byte is the quantized input as it is.
    """
    converter = _create_converter(pixel_network, tf.float32, ranges)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return _run_converter(converter)


def _find_first(network: keras.Model) -> keras.Layer:
    """The network's first layer with weights."""
    return next(layer for layer in network.layers if isinstance(layer, _WEIGHTED))


def _flatten_channels_first(pixel_network: keras.Model) -> keras.Model:
    """The same network with what its convolutions give flattened in ONNX's order: channels, height, width.

    In Keras's, height, width, channels, ONNX would transpose it.
    """
    copy = keras.models.clone_model(pixel_network)
    copy.set_weights(pixel_network.get_weights())
    if not has_convolutions(copy):
        return copy
    place = next(place for place, layer in enumerate(copy.layers) if isinstance(layer, keras.layers.Flatten))
    height, width, channels = copy.layers[place].input.shape[1:]
    dense = next(layer for layer in copy.layers if isinstance(layer, keras.layers.Dense))
    kernel, bias = dense.get_weights()
    by_pixel = kernel.reshape(height, width, channels, -1).transpose(2, 0, 1, 3)
    dense.set_weights([by_pixel.reshape(kernel.shape), bias])
    permute = keras.layers.Permute((3, 1, 2), name="channels_first")
    images = keras.Input(copy.input_shape[1:])
    return keras.Sequential([images, *copy.layers[:place], permute, *copy.layers[place:]])


def _trace(pixel_network: keras.Model, pixel_type: tf.DType, ranges: Sequence[Range] = ()) -> Any:  # noqa: ANN401  (a tf.function)
    """The network as a TensorFlow function with named input and output.

    ranges: of what each layer with weights gives before its activation, where activations are to be quantized.
    """
    shape, first = [None, *pixel_network.input_shape[1:]], _find_first(pixel_network)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, pixel_type, name=INPUT_NAME)])
    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        activations, remaining = tf.cast(images, tf.float32), iter(ranges)
        for layer in pixel_network.layers:
            if isinstance(layer, (keras.layers.Flatten, keras.layers.Reshape)):
                # To a constant shape: Keras's Flatten would add three operators that compute the batch's size.
                activations = tf.reshape(activations, [-1, *layer.output.shape[1:]])
            elif ranges and isinstance(layer, _WEIGHTED):
                if layer is first:
                    activations = _fake_quantize(activations, 0, _BRIGHTEST)
                activations = _apply_quantized(layer, activations, next(remaining))
            elif not isinstance(layer, keras.layers.Dropout):
                activations = layer(activations)
        return {OUTPUT_NAME: activations}

    return predict


def _apply_quantized(layer: keras.Layer, inputs: tf.Tensor, bounds: Range) -> tf.Tensor:
    """A layer's answers, its outputs quantized by their range.

    A pooling after it takes them as they are: the largest of quantized values is one of them, with the same scale.
    """
    if isinstance(layer, keras.layers.Conv2D):
        outputs = tf.nn.conv2d(inputs, layer.kernel, layer.strides, "VALID") + layer.bias
    else:
        outputs = tf.matmul(inputs, layer.kernel) + layer.bias
    if layer.activation is keras.activations.relu:
        return _fake_quantize(tf.nn.relu(outputs), 0, bounds.high)
    return layer.activation(_fake_quantize(outputs, bounds.low, bounds.high))


def _fake_quantize(values: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.quantization.fake_quant_with_min_max_args(values, low, high)


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
