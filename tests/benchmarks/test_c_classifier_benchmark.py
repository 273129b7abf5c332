"""What an answer of the C file costs on microcontrollers: `make bench-c`."""

import numpy as np
import pytest
from int8_models import IMAGES, NETWORKS, make_int8

from benchmarks.c_classifier import OPTIMIZATIONS, Exported, list_networks, measure_on_core, tabulate
from benchmarks.processors import CORTEX_M, find_missing
from stages.lib.core.errors import PipelineError
from stages.lib.microcontroller.c_classifier import render_classifier
from stages.lib.microcontroller.integer_network import read_network
from stages.lib.microcontroller.integer_reference import IntegerReference

MISSING = find_missing("Clang", "qemu-system-arm")
needs_emulator = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def exported():
    """A dense network of 48 x 4 and 4 x 3 weights."""
    content = make_int8(*NETWORKS[2])
    sources = render_classifier(read_network(content), ["a", "b", "c"], "dark")
    return Exported(sources, IntegerReference(content).answer(IMAGES), IMAGES)


@needs_emulator
def test_instructions_follow_from_the_pixels(exported):
    """A dark pixel is skipped: a black image takes a few instructions a pixel, a white one more for each weight."""
    black, white = (
        Exported(exported.sources, exported.answers[[row]], exported.images[[row]])
        for row in (len(IMAGES) - 2, len(IMAGES) - 1)
    )
    assert (black.images.max(), white.images.min()) == (0, 255)
    few, many = (measure_on_core("Cortex-M3", "Clang", "-O2", images)["instructions_mean"] for images in (black, white))

    assert few > 48 * 4
    assert many - few > 48 * 4 * 2


@needs_emulator
def test_costs_are_the_same_again(exported):
    """No clock takes part: instructions are counted, to the rounding of a tick."""
    one, other = (measure_on_core("Cortex-M0+", "Clang", "-Os", exported) for _ in range(2))

    assert one == other
    assert one["instructions_mean"] < one["instructions_most"]


@needs_emulator
def test_answer_that_differs_stops_the_benchmark(exported):
    """Costs of wrong answers are of no use."""
    wrong = exported._replace(answers=exported.answers ^ np.uint8(1))
    with pytest.raises(PipelineError) as refusal:
        measure_on_core("Cortex-M4", "Clang", "-O2", wrong)

    assert refusal.value.problem == f"{wrong.answers.size} bytes of answers differ from the integer reference's"


def test_table_has_a_row_for_each_network_and_core():
    """-O2 beside -Os, and of the stack the larger one."""
    costs = {"classifier_flash_bytes": 18_000, "instructions_mean": 34_000, "stack_bytes": 256}
    small = {"classifier_flash_bytes": 17_000, "instructions_mean": 42_000, "stack_bytes": 300}
    found = {core: {"GCC": dict(zip(OPTIMIZATIONS, (costs, small), strict=True))} for core in CORTEX_M}
    lines = tabulate({"a": found | {"scratch_bytes": 30}, "b": found | {"scratch_bytes": 4_000}}, "GCC")

    assert len(lines) == 2 + 2 * len(CORTEX_M)
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        *("a", "Cortex-M0+", "18,000", "17,000", "30", "300", "34,000", "42,000")
    ]


def test_networks_are_the_default_a_convolution_and_the_recipes():
    """Each recipe is measured, without being named twice."""
    networks = list_networks()

    assert {"default", "[[16], [32]]", "digits", "mnist"} <= networks.keys()
    assert networks["mnist"]["ingest.dataset"] == "mnist"
