"""The int8 network as one HTML file without dependencies, whose answers are the integer reference's to the bit."""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.microcontroller.c_source import require_class_names
from stages.lib.microcontroller.integer_network import IntegerNetwork, Layer

PAGE_PATH = Path("web/index.html")  # in the folder of exports
_TEMPLATES_DIR = Path(__file__).parent / "templates"
_SCRIPTS = ("network.js", "image.js", "page.js")


def render_page(
    network: IntegerNetwork,
    class_names: Sequence[str],
    background: str | None,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    answers: NDArray[np.uint8],
) -> str:
    """The text of `index.html`, to be written as UTF-8.

    class_names: by class id, any text. background: `dark` or `light`, of the training images; none for colour. images,
    labels, answers: golden images uint8 (G, H, W) or (G, H, W, 3), their class ids (G,), and the bytes (G, classes)
    that the page must answer.

    Raises:
        ExportError: there are not as many names as classes.
    """
    require_class_names(class_names, network.class_count)
    model = {
        "background": background,
        # A byte that Python could not decode in a file's name (PEP 383) is shown as the sign for such.
        "classNames": [name.encode(errors="surrogateescape").decode(errors="replace") for name in class_names],
        "exponentials": network.exponentials.tolist(),
        "golden": [
            {"answer": answer.tolist(), "label": int(label), "pixels": _encode(image)}
            for image, label, answer in zip(images, labels, answers, strict=True)
        ],
        "imageShape": network.image_shape,
        "layers": [_describe_layer(layer) for layer in network.layers],
    }
    style = _read("page.css")
    script = '"use strict";\n' + "\n".join(map(_read, _SCRIPTS))
    values = {
        "policy": _allow_only(style, script),
        "style": style,
        # A name may hold the end of the element.
        "model": json.dumps(model, sort_keys=True, separators=(",", ":")).replace("<", "\\u003c"),
        "script": script,
    }
    return Template(_read("page.html")).substitute(values)


def _describe_layer(layer: Layer) -> dict[str, Any]:
    """A layer for network.js. A float32 is a double, too, and JSON's shortest decimals of a double give it back."""
    return {
        "biases": layer.folded_biases.tolist(),
        "factors": layer.factors.astype(np.float64).tolist(),
        "inputShape": layer.input_shape,
        "kernel": layer.kernel.shape[1],
        "lowest": layer.lowest,
        "outputShape": layer.output_shape,
        "outputZero": layer.output_zero,
        "pool": layer.pool,
        "weights": _encode(layer.kernel),
    }


def _allow_only(style: str, script: str) -> str:
    """A policy that lets a browser run these texts alone, and connect to no other place than the page's own.

    Source: https://www.w3.org/TR/CSP3/#framework-directive-source-list.
    """
    rules = {"style-src": _digest(style), "script-src": _digest(script), "connect-src": "'self'", "img-src": "data:"}
    others = ("default-src", "base-uri", "form-action")
    return "; ".join(
        f"{rule} {allowed}" for rule, allowed in [*((other, "'none'") for other in others), *rules.items()]
    )


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _encode(values: NDArray[Any]) -> str:
    return b64encode(values.tobytes()).decode()


def _read(name: str) -> str:
    return (_TEMPLATES_DIR / name).read_text(encoding="utf-8")
