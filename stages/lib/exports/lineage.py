"""What an exported model says of where it comes from: the digests of what it was made of.

A file cannot hold its own digest, and DVC's hash of the folder it lies in covers it, too. So it holds those of its
upstream, by which its pipeline state is found again where neither the folder nor DVC's cache is.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from stages.lib.core.errors import ParamsError
from stages.lib.core.params import PARAMS_PATH
from stages.lib.exports.model_metadata import read_onnx_metadata, read_tflite_metadata

# The sections of params.yaml that determine an exported model.
MODEL_SECTIONS = ("ingest", "normalize", "train", "export")

# Bytes 4 to 8 of a .tflite file, whatever its name (https://flatbuffers.dev/schema/#file-identification-and-extension).
_TFLITE_FILE_ID = b"TFL3"
# Neither protobuf nor flatbuffers can write more: a larger file need not be read.
_MAX_MODEL_BYTES = 2**31
# What the readers of the two formats, and of what is in them, raise on bytes that are something else.
_READ_PROBLEMS = (DecodeError, LookupError, TypeError, ValueError, struct.error)


class Upstream(NamedTuple):
    """The digests of what an exported model was made of."""

    params: str  # SHA-256 of the sections of params.yaml, see `digest_params`
    data: str  # DVC's MD5 of the folder data/raw, with `.dir` behind it
    model: str  # MD5 of models/model.keras


def digest_params(params: Mapping[str, Any]) -> str:
    """The SHA-256, hexadecimal, of the sections that determine an exported model.

    params: by section, be it all of params.yaml or the params of a state in dvc.lock.

    Raises:
        ParamsError: one of these sections is missing.
    """
    for section in MODEL_SECTIONS:
        if section not in params:
            hint = f"copy it from `git show HEAD:./{PARAMS_PATH}`"
            raise ParamsError(f"{PARAMS_PATH}: {section}", "no such section", hint)
    canonical = json.dumps({section: params[section] for section in MODEL_SECTIONS}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_upstream(path: Path) -> Upstream | None:
    """What the .onnx or .tflite file in `path`, whatever its name, holds under `upstream` in its metadata.

    None for another kind of file, a damaged one, and a model that another program wrote.
    """
    if path.stat().st_size > _MAX_MODEL_BYTES:
        return None
    content = path.read_bytes()
    try:
        if content[4:8] == _TFLITE_FILE_ID:
            metadata = read_tflite_metadata(content)
        else:
            metadata = read_onnx_metadata(onnx.load_model_from_string(content))
        upstream = Upstream(*(metadata["upstream"][name] for name in Upstream._fields))
    except _READ_PROBLEMS:
        return None
    return upstream if all(isinstance(digest, str) for digest in upstream) else None
