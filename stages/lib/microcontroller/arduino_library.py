"""The classifier as a library for Arduino, in the .zip file that its development environment installs.

Source of the format: https://docs.arduino.cc/arduino-cli/library-specification
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from string import Template

from stages.lib.microcontroller.device_sources import read_template

ARDUINO_NAME = "classifier.zip"
_FOLDER = "classifier"
_SOURCES = ("classifier.h", "classifier.c", "camera.h", "camera.c", "replay.h", "replay.c", "golden.h")
_SKETCHES = ("GoldenVectors", "Replay")
# The oldest time that an entry can have.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def build_arduino_library(sources: Mapping[str, str], content: bytes) -> bytes:
    """The library's .zip file: the same bytes for the same sources.

    sources: by the file's name, `classifier.c` among them. content: of the .tflite file that they are made from.
    """
    digest = hashlib.sha256(content).hexdigest()[:12]
    texts = {"library.properties": Template(read_template("library.properties")).substitute(digest=digest)}
    texts |= {f"src/{name}": sources[name] for name in _SOURCES}
    texts |= {f"examples/{name}/{name}.ino": read_template(f"{name}.ino") for name in _SKETCHES}
    target = io.BytesIO()
    # Not compressed: what a compressor makes of a text depends on its version.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as library:
        for name in sorted(texts):
            library.writestr(zipfile.ZipInfo(f"{_FOLDER}/{name}", _ZIP_TIME), texts[name])
    return target.getvalue()
