"""The training of `benchmarks.training` as the pipeline has it: deterministic, in one thread.

python -m benchmarks.training_pipeline FOLDER EPOCHS SEED

Reads   FOLDER/{train,test}_{images,labels}.npy, weights.npy
Prints  JSON: seconds, the processor's seconds and mean loss of each epoch, and the test accuracy at the end
"""

import json
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from stages.lib.core.arrays import Split, load_array
from stages.lib.model.network import Architecture, build_network
from stages.lib.model.order_free_optimizers import create_optimizer
from stages.lib.model.training import Epoch, Schedule, fit
from stages.train import choose_threads

folder, epochs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
train, test = (
    Split(load_array(folder / f"{split}_images.npy"), load_array(folder / f"{split}_labels.npy"))
    for split in ("train", "test")
)
choose_threads(32, has_convolutions=False)
network = build_network(train.images.shape[1:], Architecture((20,)), 10, "linear")
ends = np.cumsum([weights.size for weights in network.get_weights()])[:-1]
drawn = np.split(np.load(folder / "weights.npy", allow_pickle=False), ends)
network.set_weights([new.reshape(old.shape) for new, old in zip(drawn, network.get_weights(), strict=True)])
times = [(perf_counter(), process_time())]
losses: list[float] = []


def note(epoch: Epoch) -> None:
    """Keep the epoch's end and its loss."""
    times.append((perf_counter(), process_time()))
    losses.append(epoch.loss)


nothing = Split(test.images[:0], test.labels[:0])
fit(network, create_optimizer("adam", 1e-3), train, nothing, Schedule(epochs, 32, seed), on_epoch_end=note)
predictions = np.asarray(network(np.asarray(test.images))).argmax(axis=1)
accuracy = float((predictions == test.labels).mean())

seconds, processor_seconds = np.diff(times, axis=0).T.tolist()
result = {"seconds": seconds, "processor_seconds": processor_seconds}
print(json.dumps(result | {"losses": losses, "accuracy": accuracy}))
