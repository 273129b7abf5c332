"""C source that brings a camera's frames to the classifier's pixels, to the bytes that `fit_image` makes of them."""

from pathlib import Path
from string import Template

_TEMPLATES_DIR = Path(__file__).parent / "templates"
_ADVICE = {
    "dark": "1 if you show the camera dark on light",
    "light": "1 if you show the camera light on dark",
    None: "0, as in training",
}


def render_camera(background: str | None) -> dict[str, str]:
    """The texts of `camera.h` and `camera.c`, which belong to the `classifier.h` beside them.

    background: `dark` or `light`, of the training images; none for colour.
    """
    values = {"advice": _ADVICE[background], "is_light": int(background == "light")}
    return {
        name: Template((_TEMPLATES_DIR / name).read_text(encoding="ascii")).substitute(values)
        for name in ("camera.h", "camera.c")
    }
