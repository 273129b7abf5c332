"""Two versions of a file are compared in the terms of their format."""

import io
import json
import re
import zipfile

import h5py
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray
from PIL import Image, PngImagePlugin

from stages.lib.verification.differences import describe_difference


@pytest.fixture
def compare(tmp_path):
    """Write two contents to files of one name, and describe their difference."""

    def write_and_describe(name, one, other):
        paths = [tmp_path / side / name for side in ("one", "other")]
        for path, content in zip(paths, (one, other), strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return describe_difference(*paths)

    return write_and_describe


def make_json(value):
    return json.dumps(value)


def make_npy(values, dtype=np.float32):
    file = io.BytesIO()
    np.save(file, np.array(values, dtype))
    return file.getvalue()


def make_zip(members, year=1980):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


def make_h5(datasets, **attributes):
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for name, values in datasets.items():
            root.create_dataset(name, data=values, track_times=False)
        root.attrs.update(attributes)
    return file.getvalue()


def make_png(values, mode=None, **texts):
    """values: pixels (H, W) or (H, W, channels)."""
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    picture = Image.fromarray(np.array(values, np.uint8))
    (picture.convert(mode) if mode else picture).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def make_onnx(weights=((1.0, 2.0),), operator="MatMul", doc="", inputs=("x", "w"), **metadata):
    node = onnx.helper.make_node(operator, list(inputs), ["y"], name="matmul_0", doc_string=doc)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    initializer = onnx.numpy_helper.from_array(np.array(weights, np.float32), "w")
    graph = onnx.helper.make_graph([node], "classifier", values[:1], values[1:], [initializer])
    model = onnx.helper.make_model(graph, producer_name="test")
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)


def make_tflite(weights=(1.0, 2.0), scale=0.5, operator=schema.BuiltinOperator.SOFTMAX, metadata=b"{}", stray=b"x"):
    model, graph, tensor, code, call = (
        kind() for kind in (schema.ModelT, schema.SubGraphT, schema.TensorT, schema.OperatorCodeT, schema.OperatorT)
    )
    model.version, model.description = 3, "test"
    contents = [b"", np.array(weights, np.float32).tobytes(), metadata, stray]
    model.buffers = [schema.BufferT() for _ in contents]
    for buffer, content in zip(model.buffers, contents, strict=True):
        buffer.data = list(content)
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "dense/MatMul", [2], schema.TensorType.FLOAT32, 1
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = [scale]
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, min(operator, 127), 1
    call.inputs, call.outputs = [0], [0]
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [tensor], [call], [0], [0]
    entry = schema.MetadataT()
    entry.name, entry.buffer = "classifier", 2
    model.subgraphs, model.operatorCodes, model.metadata = [graph], [code], [entry]
    return bytes(convert_object_to_bytearray(model))


# Every format: a name, one content and the other, and what is said of them.
CASES = {
    "json key": ("a.json", make_json({"a": {"b": 1, "c": 2}}), make_json({"a": {"b": 1, "c": 3}}), "a.c: 2 against 3"),
    "json item": ("a.json", make_json({"a": [0, {"b": 1}]}), make_json({"a": [0, {"b": 2}]}), "a[1].b: 1 against 2"),
    "json items": ("a.json", make_json({"a": [0]}), make_json({"a": [0, 1]}), "a[1]: only in the second"),
    "json list": ("a.json", "[1]", "[2]", "[0]: 1 against 2"),
    "json whole": ("a.json", "1", "2", "1 against 2"),
    "json kind": ("a.json", make_json({"a": 1}), make_json({"a": [1]}), "a: only in the first; 1 more differ"),
    "json type": ("a.json", make_json({"a": 1}), make_json({"a": 1.0}), "a: 1 against 1.0"),
    "json true": ("a.json", make_json({"a": 1}), make_json({"a": True}), "a: 1 against True"),
    "json gone": ("a.json", make_json({"a": 1, "b": 2}), make_json({"a": 1}), "b: only in the first"),
    "json new": (
        "a.json",
        make_json({"a": 0}),
        make_json({"a": 0, "x": 1, "y": 2, "z": 3}),
        "x: only in the second; 2 more differ",
    ),
    "json order": (
        "a.json",
        make_json({"a": 1, "b": 2}),
        make_json({"b": 2, "a": 1}),
        """the same content, stored otherwise: line 1: '{"a": 1, "b": 2}' against '{"b": 2, "a": 1}'""",
    ),
    "json colon": ("a.json", make_json({"a": "b: c"}), make_json({"a": "b: d"}), "a: 'b: c' against 'b: d'"),
    "json long": (
        "a.json",
        make_json({"a": "0" * 99 + "1" + "0" * 99}),
        make_json({"a": "0" * 99 + "2" + "0" * 99}),
        f"a: …{'0' * 20}1{'0' * 37}… against …{'0' * 20}2{'0' * 37}…",
    ),
    "json spaces": (
        "a.json",
        '{"a": 1}\n',
        '{"a":  1}\n',
        "the same content, stored otherwise: line 1: '{\"a\": 1}' against '{\"a\":  1}'",
    ),
    "lock": (
        "dvc.lock",
        "stages:\n  train:\n    deps:\n    - path: a.py\n      md5: '1'\n    - path: b.py\n      md5: '2'\n",
        "stages:\n  train:\n    deps:\n    - path: a.py\n      md5: '1'\n    - path: b.py\n      md5: '3'\n",
        "stages.train.deps.b.py.md5: '2' against '3'",
    ),
    "npy value": (
        "a.npy",
        make_npy([[1, 2], [3, 4]]),
        make_npy([[1, 2], [3.5, 5]]),
        "array[1, 0]: 3.0 against 3.5; 2 of 4 values differ, by at most 1",
    ),
    "npy unsigned": (
        "a.npy",
        make_npy([0, 255], np.uint8),
        make_npy([1, 0], np.uint8),
        "array[0]: 0 against 1; 2 of 2 values differ, by at most 255",
    ),
    "npy zero": (
        "a.npy",
        make_npy([1, 0.0]),
        make_npy([1, -0.0]),
        "array[1]: 0.0 against -0.0; 1 of 2 values differ, by at most 0",
    ),
    "npy nan": (
        "a.npy",
        make_npy([np.nan, 1]),
        make_npy([np.nan, 2]),
        "array[1]: 1.0 against 2.0; 1 of 2 values differ, by at most 1",
    ),
    "npy bits": (
        "a.npy",
        make_npy([0x7FC00000], np.uint32).replace(b"<u4", b"<f4"),
        make_npy([0x7FC00001], np.uint32).replace(b"<u4", b"<f4"),
        "array[0]: nan against nan; 1 of 1 values differ, by at most nan",
    ),
    "npy scalar": ("a.npy", make_npy(1), make_npy(2), "array: 1.0 against 2.0; 1 of 1 values differ, by at most 1"),
    "npy text": (
        "a.npy",
        make_npy(["a", "b"], "U1"),
        make_npy(["a", "c"], "U1"),
        "array[1]: b against c; 1 of 2 values differ",
    ),
    "npy shape": ("a.npy", make_npy([[1, 2]]), make_npy([1, 2]), "array: float32 (1, 2) against float32 (2,)"),
    "npy dtype": ("a.npy", make_npy([1]), make_npy([1], np.float64), "array: float32 (1,) against float64 (1,)"),
    "npz": (
        "a.npz",
        make_zip({"x.npy": make_npy([1])}),
        make_zip({"x.npy": make_npy([2])}),
        "x.npy: array[0]: 1.0 against 2.0; 1 of 1 values differ, by at most 1",
    ),
    "csv cell": (
        "a.csv",
        "epoch,loss\n1,0.5\n2,0.4\n",
        "epoch,loss\n1,0.5\n2,0.3\n",
        "line 3: loss: '0.4' against '0.3'",
    ),
    "csv header": ("a.csv", "epoch,loss\n", "epoch,cost\n", "line 1: loss: only in the first; 1 more differ"),
    "csv longer": ("a.csv", "a\n1\n", "a\n1\n2\n3\n", "line 3: a: only in the second; 1 more differ"),
    "csv short row": ("a.csv", "a,b\n1,2\n", "a,b\n1\n", "line 2: b: '2' against ''"),
    "csv long row": ("a.csv", "a\n1\n", "a\n1,2\n", "line 2: : only in the second"),
    "csv duplicate columns": ("a.csv", "a,a\n1,2\n", "a,a\n1,3\n", "line 2: a: '2' against '3'"),
    "csv empty": ("a.csv", "", "a\n", "line 1: a: only in the second"),
    "csv line ends": (
        "a.csv",
        "a\n1\n",
        "a\r\n1\r\n",
        "the same content, stored otherwise: line 1: 'a' against 'a\\r'; 1 more differ",
    ),
    "png grey": (
        "a.png",
        make_png([[0, 1], [2, 3]]),
        make_png([[0, 1], [9, 3]]),
        "pixel[1, 0, 0]: 2 against 9; 3 of 16 values differ, by at most 7",
    ),
    "png colour": (
        "a.png",
        make_png([[[1, 2, 3], [4, 5, 6]]]),
        make_png([[[1, 2, 3], [4, 5, 7]]]),
        "pixel[0, 1, 2]: 6 against 7; 1 of 8 values differ, by at most 1",
    ),
    "png size": ("a.png", make_png([[0, 1]]), make_png([[0], [1]]), "pixel: uint8 (1, 2, 4) against uint8 (2, 1, 4)"),
    "png mode": ("a.png", make_png([[0]]), make_png([[0]], "RGB"), "mode: 'L' against 'RGB'"),
    "png text": (
        "a.png",
        make_png([[0]], Software="x 1"),
        make_png([[0]], Software="x 2"),
        "Software: 'x 1' against 'x 2'",
    ),
    "zip json": (
        "a.keras",
        make_zip({"config.json": make_json({"layers": [{"units": 20}]})}),
        make_zip({"config.json": make_json({"layers": [{"units": 16}]})}),
        "config.json: layers[0].units: 20 against 16",
    ),
    "zip h5": (
        "a.keras",
        make_zip({"model.weights.h5": make_h5({"layers/dense/vars/0": [[1.0, 2.0]]})}),
        make_zip({"model.weights.h5": make_h5({"layers/dense/vars/0": [[1.0, 2.5]]})}),
        "model.weights.h5: layers/dense/vars/0[0, 1]: 2.0 against 2.5; 1 of 2 values differ, by at most 0.5",
    ),
    "zip broken member": (
        "a.keras",
        make_zip({"config.json": "{}"}),
        make_zip({"config.json": "{"}),
        (
            "config.json: format: '.json' against 'no valid .json file: Expecting property name enclosed in d…; "
            "2 more differ"
        ),
    ),
    "zip unknown member": (
        "a.zip",
        make_zip({"x": b"\0a"}),
        make_zip({"x": b"\0b"}),
        "x: line 1: '\\x00a' against '\\x00b'",
    ),
    "zip gone": (
        "a.zip",
        make_zip({"x": "", "y": ""}),
        make_zip({"x": ""}),
        "y: time: only in the first; 1 more differ",
    ),
    "zip order": (
        "a.zip",
        make_zip({"x": "", "y": ""}),
        make_zip({"y": "", "x": ""}),
        "the same content, stored otherwise: bytes[30]: 120 against 121; 4 of 178 values differ, by at most 1",
    ),
    "zip time": (
        "a.zip",
        make_zip({"x": "same"}),
        make_zip({"x": "same"}, year=2026),
        "x: time: (1980, 1, 1, 0, 0, 0) against (2026, 1, 1, 0, 0, 0)",
    ),
    "h5 value": (
        "a.h5",
        make_h5({"x": [1, 2]}),
        make_h5({"x": [1, 3]}),
        "x[1]: 2 against 3; 1 of 2 values differ, by at most 1",
    ),
    "h5 scalar": (
        "a.h5",
        make_h5({"x": 1.5}),
        make_h5({"x": 2.5}),
        "x: 1.5 against 2.5; 1 of 1 values differ, by at most 1",
    ),
    "h5 text": ("a.h5", make_h5({"x": "a"}), make_h5({"x": "b"}), "x: \"b'a'\" against \"b'b'\""),
    "h5 name": ("a.h5", make_h5({"x": [1]}), make_h5({"y": [1]}), "x: only in the first; 1 more differ"),
    "h5 attribute": ("a.h5", make_h5({}, version="1"), make_h5({}, version="2"), "@version: \"'1'\" against \"'2'\""),
    "onnx weights": (
        "a.onnx",
        make_onnx(((1.0, 2.0),)),
        make_onnx(((1.0, 2.5),)),
        "initializer w[0, 1]: 2.0 against 2.5; 1 of 2 values differ, by at most 0.5",
    ),
    "onnx node": (
        "a.onnx",
        make_onnx(),
        make_onnx(operator="Gemm"),
        "graph.node.matmul_0.op_type: 'MatMul' against 'Gemm'",
    ),
    "onnx input": (
        "a.onnx",
        make_onnx(),
        make_onnx(inputs=("w", "x")),
        "graph.node.matmul_0.input[0]: 'x' against 'w'; 1 more differ",
    ),
    "onnx doc": ("a.onnx", make_onnx(doc="a"), make_onnx(doc="b"), "graph.node.matmul_0.doc_string: 'a' against 'b'"),
    "onnx metadata": (
        "a.onnx",
        make_onnx(params=make_json({"train": {"epochs": 1}})),
        make_onnx(params=make_json({"train": {"epochs": 2}})),
        'metadata_props.params.value: \'{"train": {"epochs": 1}}\' against \'{"train": {"epochs": 2}}\'',
    ),
    "tflite weights": (
        "a.tflite",
        make_tflite((1.0, 2.0)),
        make_tflite((1.0, 2.5)),
        "subgraphs[0].tensors.dense/MatMul.buffer[1]: 2.0 against 2.5; 1 of 2 values differ, by at most 0.5",
    ),
    "tflite scale": (
        "a.tflite",
        make_tflite(scale=0.5),
        make_tflite(scale=0.25),
        (
            "subgraphs[0].tensors.dense/MatMul.quantization.scale[0]: 0.5 against 0.25; "
            "1 of 1 values differ, by at most 0.25"
        ),
    ),
    "tflite operator": (
        "a.tflite",
        make_tflite(),
        make_tflite(operator=schema.BuiltinOperator.GELU),
        "operatorCodes[0].deprecatedBuiltinCode: 25 against 127; 1 more differ",
    ),
    "tflite metadata": (
        "a.tflite",
        make_tflite(metadata=b'{"a": 1}'),
        make_tflite(metadata=b'{"a": 2}'),
        "buffers[2]: b'{\"a\": 1}' against b'{\"a\": 2}'",
    ),
    "tflite buffer": (
        "a.tflite",
        make_tflite(stray=b"a"),
        make_tflite(stray=b"b"),
        "buffers[3]: b'a' against b'b'",
    ),
    "text": ("a.md", "one\ntwo\n", "one\ntoo\n", "line 2: 'two' against 'too'"),
    "text longer": ("SHA256SUMS", "one\n", "one\ntwo\n", "line 2: '' against 'two'; 1 more differ"),
    "bytes": ("a.bin", b"\0\1\xfe", b"\0\1\xff", "bytes[2]: 254 against 255; 1 of 3 values differ, by at most 1"),
    "bytes longer": ("a.bin", b"\xff", b"\xff\1", "bytes: uint8 (1,) against uint8 (2,)"),
    "bytes of none": ("a.bin", b"", b"\xff", "line 1: only in the first; 1 more differ"),
    "order to a terminal": ("a.json", '{"\\u001b[2J": 1}', '{"\\u001b[2J": 2}', "\\x1b[2J: 1 against 2"),
}


@pytest.mark.parametrize(("name", "one", "other", "expected"), CASES.values(), ids=CASES)
def test_difference_is_told_in_terms_of_the_format(compare, name, one, other, expected):
    """What differs first is told by key, index, tensor, pixel, member or line, with both values and how many do."""
    assert compare(name, one, other) == expected


@pytest.mark.parametrize("name", ["a.json", "a.npy", "a.keras", "a.bin"])
def test_equal_files_are_identical(compare, name):
    """Equal bytes are identical, sound or not."""
    assert compare(name, b"\0", b"\0") == "identical"


BROKEN = {
    "a.csv": b'a\n"1\n',
    "a.h5": make_h5({"x": [1]})[:-100],
    "a.json": b'{"a": ',
    "a.keras": make_zip({"config.json": "{}"})[:-10],
    "a.lock": b"<<<<<<< ours\nschema: '2.0'\n",
    "a.npy": make_npy([1, 2])[:-2],
    "a.onnx": make_onnx()[:-1],
    "a.png": make_png([[0, 1]])[:-25],
    "a.tflite": make_tflite()[:60],
}
SOUND = {
    "a.csv": b"a\n1\n",
    "a.h5": make_h5({"x": [1]}),
    "a.json": b"{}",
    "a.keras": make_zip({"config.json": "{}"}),
    "a.lock": b"stages: {}\n",
    "a.npy": make_npy([1, 2]),
    "a.onnx": make_onnx(),
    "a.png": make_png([[0, 1]]),
    "a.tflite": make_tflite(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_named(compare, name):
    """Of a damaged file and a valid one the damaged one is named, in one line, with the reason."""
    suffix = name[1:]

    assert re.match(
        rf"format: '{suffix}' against ['\"]no valid {suffix} file: \w", compare(name, SOUND[name], BROKEN[name])
    )
    assert re.match(
        rf"format: ['\"]no valid {suffix} file: .+ against '{suffix}'", compare(name, BROKEN[name], SOUND[name])
    )
    assert "\n" not in compare(name, SOUND[name], BROKEN[name])


@pytest.mark.parametrize("name", BROKEN)
def test_two_broken_files_differ(compare, name):
    """Where both are damaged, the reasons are compared, and the bytes where these are the same."""
    described = compare(name, BROKEN[name], BROKEN[name] + b"\xff")

    assert re.match("(format|bytes): .+ against .+", described)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, "ü\n" * 50])
def test_anything_is_compared_with_a_sound_file(compare, name, content):
    """Whatever a file holds, its comparison with a valid one ends in one line that does not call them identical."""
    described = compare(name, SOUND[name], content)

    assert described
    assert "identical" not in described
    assert "\n" not in described


def test_every_flipped_bit_of_a_model_is_described(compare):
    """A TFLite file with any one bit flipped is another, and nothing in it makes the comparison fail."""
    valid = make_tflite()
    flipped = [valid[:place] + bytes([valid[place] ^ 1]) + valid[place + 1 :] for place in range(len(valid))]
    described = [compare("a.tflite", valid, content) for content in flipped]

    assert all(described)
    assert "identical" not in described
    assert sum(text.startswith("subgraphs[0].tensors.dense/MatMul.buffer") for text in described) >= 8


@pytest.mark.parametrize(
    ("one", "other"), [("a.json", "none"), ("none", "a.json"), ("none", "none"), ("a.json", "folder")]
)
def test_missing_file_is_said(tmp_path, one, other):
    """A file that is not there is a difference, not an error."""
    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    described = describe_difference(tmp_path / one, tmp_path / other)
    sides = [side for side, name in (("first", one), ("second", other)) if name != "a.json"]

    assert described == f"the {' and the '.join(sides)} is no file"


@pytest.mark.parametrize("is_first", [True, False])
def test_object_of_the_cache_has_the_format_of_the_other(tmp_path, is_first):
    """A name without ending, as DVC's cache has them, is read as the other file's."""
    (tmp_path / "93a946048114a32c").write_text('{"a": 1}', encoding="utf-8")
    (tmp_path / "a.json").write_text('{"a": 2}', encoding="utf-8")
    paths = [tmp_path / "93a946048114a32c", tmp_path / "a.json"]

    assert describe_difference(*(paths if is_first else paths[::-1])) == (
        "a: 1 against 2" if is_first else "a: 2 against 1"
    )
