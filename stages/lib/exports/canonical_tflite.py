"""`.tflite` files that hold nothing twice, for flash is what microcontrollers have least of, and that the web takes."""

from typing import Any

import flatbuffers
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object

_FILE_ID = b"TFL3"
# `force_align` of a buffer's data in TFLite's schema.fbs: a kernel may read a weight as a word of several bytes.
_BUFFER_ALIGNMENT = 16
# Of the converter's metadata: which TensorFlow it was and how it was called, which no runtime reads.
_CONVERSION = b"CONVERSION_METADATA"


def read_tflite(content: bytes) -> Any:  # noqa: ANN401  (the schema's objects are untyped)
    """The model as an object of the schema (`ModelT`)."""
    return convert_bytearray_to_object(bytearray(content))


def canonicalize_tflite(model: Any) -> bytes:  # noqa: ANN401
    """The bytes of a model: equal arrays are written once, and tensors without constants share the empty buffer.

    Tensors have a batch of 1, to which each runtime gives another size where it is asked to: LiteRT for the web refuses
    a file that says that its batch may have any size.

    model: a `ModelT`, which is changed.
    """
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    for tensor in tensors:
        tensor.shapeSignature = None
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _CONVERSION]
    # The schema's first buffer is the empty one.
    owners = [*tensors, *model.metadata]
    kept = [0, *sorted({owner.buffer for owner in owners if _has_data(model.buffers[owner.buffer])})]
    for owner in owners:
        owner.buffer = kept.index(owner.buffer) if owner.buffer in kept else 0
    model.buffers = [model.buffers[index] for index in kept]
    builder = _SharingBuilder(0)
    builder.Finish(model.Pack(builder), file_identifier=_FILE_ID)
    return bytes(builder.Output())


def _has_data(buffer: Any) -> bool:  # noqa: ANN401
    return buffer.data is not None and len(buffer.data) > 0


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # untyped
    """A builder that writes equal vectors once, and aligns a buffer's data, which the generated code leaves out."""

    def __init__(self, initial_size: int) -> None:
        super().__init__(initial_size)
        self.head: int
        self._written: dict[tuple[int, bytes], int] = {}  # where a vector lies, by its alignment and its bytes
        self._alignment = 0  # of the vector that is being written; 0 if it cannot be shared
        self._begin = self._size = 0

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: ANN401, N802, N803
        self._begin, self._size = self.Offset(), elemSize * numElems
        self._alignment = _BUFFER_ALIGNMENT if elemSize == 1 else alignment
        return super().StartVector(elemSize, numElems, self._alignment)

    def PrependUOffsetTRelative(self, off: int) -> None:  # noqa: N802
        # What refers to another place by the way to it means another thing at another place.
        self._alignment = 0
        super().PrependUOffsetTRelative(off)

    def EndVector(self, numElems: int | None = None) -> Any:  # noqa: ANN401, N802, N803
        alignment, self._alignment = self._alignment, 0
        end = super().EndVector(numElems)
        if not alignment:
            return end
        # A file is written from its end; what comes first now is the vector's length, in 4 bytes.
        vector = bytes(self.Bytes[self.head : self.head + 4 + self._size])
        place = self._written.setdefault((alignment, vector), end)
        if place != end:
            self.head = len(self.Bytes) - self._begin
        return place
