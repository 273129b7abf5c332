"""What firmware needs beside the classifier in C: camera frames, replayed images, a check of itself, CMake."""

from pathlib import Path
from string import Template

_TEMPLATES_DIR = Path(__file__).parent / "templates"
_UNCHANGED = ("replay.h", "replay.c", "check_golden.c", "CMakeLists.txt")
_ADVICE = {
    "dark": "1 if you show the camera dark on light",
    "light": "1 if you show the camera light on dark",
    None: "0, as in training",
}


def render_device_sources(background: str | None) -> dict[str, str]:
    """The texts that belong to the `classifier.{h,c}` and the `golden.h` beside them, by the file's name.

    `camera.c` makes of a frame the bytes that `stages.lib.data.image_decoding.fit_image` makes of the same image.
    background: `dark` or `light`, of the training images; none for colour.
    """
    camera = {"advice": _ADVICE[background], "is_light": int(background == "light")}
    return {
        **{name: Template(read_template(name)).substitute(camera) for name in ("camera.h", "camera.c")},
        **{name: read_template(name) for name in _UNCHANGED},
    }


def read_template(name: str) -> str:
    """The text of a template."""
    return (_TEMPLATES_DIR / name).read_text(encoding="ascii")
