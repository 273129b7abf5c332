"""`.keras` files whose bytes depend on the network alone."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from stages.lib.core.files import atomic_write

# The oldest time a zip entry can have.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
# Keras writes the time of saving into the one and memory addresses into the other; loading needs neither.
_VOLATILE_KEYS = {"date_saved", "shared_object_id"}


def canonicalize_keras(content: bytes) -> bytes:
    """The bytes of a .keras file with fixed entry times, sorted entries and keys, and nothing of this process."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as saved, zipfile.ZipFile(target, "w") as canonical:
        for name in sorted(saved.namelist()):
            member = saved.read(name)
            if name.endswith(".json"):
                member = json.dumps(_drop_volatile(json.loads(member)), sort_keys=True).encode()
            canonical.writestr(zipfile.ZipInfo(name, _ZIP_TIME), member)
    return target.getvalue()


def _drop_volatile(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    if isinstance(value, dict):
        return {key: _drop_volatile(item) for key, item in value.items() if key not in _VOLATILE_KEYS}
    if isinstance(value, list):
        return [_drop_volatile(item) for item in value]
    return value


def save_keras(model: Any, path: Path) -> None:  # noqa: ANN401  (a keras.Model: Keras is not imported here)
    """Save a Keras model whole, as canonical bytes."""
    with atomic_write(path) as partial:
        saved = partial.with_name(f"{partial.name}.keras")  # Keras insists on the ending
        try:
            model.save(saved)
            partial.write_bytes(canonicalize_keras(saved.read_bytes()))
        finally:
            saved.unlink(missing_ok=True)
