"""The registered model: whole-number pixels in, class names and probabilities out.

MLflow keeps a copy of this file beside the model and runs that copy wherever the model is loaded. So it imports nothing
of this project, and what it needs to know it reads from the ONNX file.
"""

import json
import math
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from numpy.typing import NDArray

_LIMITS = (
    "It gives each picture to one of its classes, also one that shows something else. It knows pictures like those "
    "that it was trained on. Its probabilities say how sure it is among its classes, not whether the picture is one of "
    "them."
)


class _Refusal(MlflowException):
    """An error whose answer by HTTP is its sentence alone: MLflow would write all of the pixels before it."""

    def serialize_as_json(self) -> str:
        return json.dumps({"error_code": self.error_code, "message": str(self)})


class Classifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]  # MLflow's is untyped
    """What `mlflow.pyfunc.load_model` and `mlflow models serve` answer with."""

    def load_context(self, context: Any) -> None:  # noqa: ANN401  # MLflow's, untyped
        """Load the network once."""
        self._session = onnxruntime.InferenceSession(context.artifacts["onnx"], providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._class_names: list[str] = json.loads(metadata["class_names"])
        size, channels = json.loads(metadata["image_size"]), json.loads(metadata.get("channels", "1"))
        self._image_shape: list[int] = size if channels == 1 else [*size, channels]

    def predict(
        self,
        context: Any,  # noqa: ANN401, ARG002
        model_input: np.ndarray,  # one of the types that MLflow neither converts to nor warns about
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Classify images.

        model_input: whole numbers 0..255 of any type, (N, H, W), or (N, H, W, 3) in red, green and blue, or one image a
        row, (N, H * W) or (N, H * W * 3), as in a data frame or a CSV. params: with `about` true the answer tells what
        the model knows, and what it does not.

        Returns for each image `class`, its `probability`, and the `probabilities` of all classes by name.

        Raises:
            MlflowException: the input is something else; a server answers with HTTP 400.
        """
        if params and params.get("about"):
            return [{"classes": self._class_names, "input": self._describe_input(), "limits": _LIMITS}]
        probabilities = self._session.run(None, {self._session.get_inputs()[0].name: self._read(model_input)})[0]
        return [
            {
                "class": self._class_names[row.argmax()],
                "probability": float(row.max()),
                "probabilities": dict(zip(self._class_names, row.tolist(), strict=True)),
            }
            for row in probabilities
        ]

    def _read(self, model_input: Any) -> NDArray[np.uint8]:  # noqa: ANN401  # whatever a person sends
        """Images uint8 (N, H, W) or (N, H, W, 3), never cast from anything but the same whole numbers."""
        values = model_input.to_numpy() if isinstance(model_input, pd.DataFrame) else model_input
        try:
            pixels = np.asarray(values)
        except ValueError:  # rows of different lengths
            raise self._refuse("rows of different lengths") from None
        size = math.prod(self._image_shape)
        if pixels.shape[1:] not in (tuple(self._image_shape), (size,)) or not len(pixels):
            raise self._refuse(f"the shape {pixels.shape}")
        if pixels.dtype.kind not in "uif":
            raise self._refuse(f"values of type {pixels.dtype}")
        wrong = pixels[(pixels != np.floor(pixels)) | (pixels < 0) | (pixels > np.iinfo(np.uint8).max)]
        if wrong.size or not np.isfinite(pixels).all():
            raise self._refuse(f"{wrong[0] if wrong.size else 'a value that is no number'}")
        return pixels.astype(np.uint8).reshape(-1, *self._image_shape)

    def _describe_input(self) -> str:
        shape = ", ".join(map(str, self._image_shape))
        colours = " in red, green, blue" if len(self._image_shape) == 3 else ""
        return (
            f"pixels as they are, whole numbers 0..255, not divided by 255: (N, {shape}){colours}, or rows of "
            f"{math.prod(self._image_shape)}"
        )

    def _refuse(self, got: str) -> MlflowException:
        return _Refusal(f"expected {self._describe_input()}; got {got}", INVALID_PARAMETER_VALUE)


mlflow.models.set_model(Classifier())
