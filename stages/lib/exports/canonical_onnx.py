"""`.onnx` files whose bytes depend on the network alone."""

import onnx


def canonicalize_onnx(model: onnx.ModelProto) -> bytes:
    """The bytes of an ONNX model with nodes and values named by their position and nothing of the conversion's run.

    Inputs and outputs keep their names; their first dimension is called `batch`.
    """
    canonical = onnx.ModelProto()
    canonical.CopyFrom(model)
    graph = canonical.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {name: name for name in kept}
    names.update((weights.name, f"weights_{number}") for number, weights in enumerate(graph.initializer))
    results = (name for node in graph.node for name in node.output if name not in kept)
    names.update((name, f"value_{number}") for number, name in enumerate(results))
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
        node.doc_string = ""
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for weights in graph.initializer:
        weights.name = names[weights.name]
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph.name = "classifier"
    graph.doc_string = canonical.doc_string = ""
    del graph.value_info[:]
    # ONNX Runtime's tools list all the operator sets they know of.
    opsets = [opset for opset in canonical.opset_import if opset.domain in {node.domain for node in graph.node}]
    del canonical.opset_import[:]
    canonical.opset_import.extend(opsets)
    onnx.checker.check_model(canonical, full_check=True)
    return bytes(canonical.SerializeToString(deterministic=True))
