"""`python -m benchmarks.scale` grows real images and watches the stages' own memory."""

import sys
from pathlib import Path

import numpy as np
import pytest
from samples import make_dataset

from benchmarks.measurements import STAGES, describe_machine
from benchmarks.scale import grow_images, tabulate, watch, write_grown
from stages.lib.core.errors import PipelineError
from stages.lib.data.own_images import load_folder


def test_grown_images_are_the_old_ones_moved_and_noisy():
    """An image's ink stays within two pixels of where it was, its grey levels within 20 of what they were."""
    images = np.zeros((50, 20, 20), np.uint8)
    images[:, 8:12, 8:12] = 200
    grown = grow_images(images, np.random.default_rng(0))

    assert grown.shape == images.shape
    assert {int(image[6:14, 6:14][image[6:14, 6:14] > 100].size) for image in grown} == {16}
    assert grown[:, :6].max() <= 20
    assert len(np.unique(grown, axis=0)) == 50


def test_grown_data_is_read_as_a_persons_own(tmp_path):
    """Three times the images: the real ones first, then two changed copies of each with its label."""
    dataset = make_dataset()
    for seed, (name, split) in enumerate({"train": dataset.train, "t10k": dataset.test}.items()):
        write_grown(split, 3, seed, tmp_path, name)
    grown = load_folder(str(tmp_path), (28, 28), 0.2, 0)

    assert grown.expected == {"train": 180, "test": 90}
    np.testing.assert_array_equal(grown.train.images[:60], dataset.train.images)
    np.testing.assert_array_equal(grown.train.labels, np.tile(dataset.train.labels, 3))
    assert len(np.unique(np.concatenate([grown.train.images, grown.test.images]), axis=0)) == 270


STAGE = '''"""Takes 100 MB of its own for a while, and maps as much of a file."""
import time
import numpy as np
mapped = np.memmap("mapped", np.uint8, "w+", shape=100_000_000)
mapped[:] = 1
own = np.ones(100_000_000, np.uint8)
time.sleep(0.5)
'''


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_own_memory_of_a_stage_is_seen(tmp_path):
    """What a stage allocates counts, what it maps from a file does not."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/train.py").write_text(STAGE, encoding="utf-8")
    watched = watch([sys.executable, "-m", "stages.train"], tmp_path, {})

    assert 100e6 < watched.memory < 190e6
    assert watched.processor_seconds > 0


def test_command_that_fails_is_told_with_its_last_words(tmp_path):
    """The error has the command's exit code and the end of what it printed."""
    with pytest.raises(PipelineError) as refusal:
        watch([sys.executable, "-c", "raise SystemExit('no disk')"], tmp_path, {})

    assert refusal.value.problem.startswith("it ended with exit code 1: no disk")


def test_table_compares_an_image_of_each_size_with_one_of_the_first():
    """Ten times the images in five times the time are half the time an image."""
    small = {"seconds": 2.0, "processor_seconds": 1.0, "disk_seconds": 0.5, "memory": 2**20}
    large = {"seconds": 10.0, "processor_seconds": 12.0, "disk_seconds": 4.0, "memory": 2**21}
    sizes = [
        {"images": 100, "stages": dict.fromkeys(STAGES, small)},
        {"images": 1000, "stages": dict.fromkeys(STAGES, large)},
    ]
    first, _, _, _, *lines = tabulate({**describe_machine(), "disk_bytes_per_second": 576e6, "sizes": sizes})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    assert first.endswith("The disk takes 576 MB a second.")
    assert rows[0] == ["`ingest`", "2.0", "10.0", "0.50", "1.20", "0.5", "4.0", "1", "2"]
    assert len(rows) == len(STAGES)
