"""Training is repeatable to the bit, is what plain Keras does step by step, and never ends in nonsense."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from imports import ROOT
from samples import CLASS_NAMES, IMAGE_SIZE, make_split, run_python, write_normalized
from sklearn.utils.class_weight import compute_class_weight

from stages import train
from stages.lib.core.arrays import Split, load_split
from stages.lib.core.errors import ParamsError, TrainingError
from stages.lib.core.files import read_csv, read_json, write_json
from stages.lib.core.params import load_section, validate_section
from stages.lib.model.augmentation import Augmentation, Augmenter
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.learning_rates import compute_learning_rates
from stages.lib.model.network import Architecture, build_network
from stages.lib.model.optimizers import OPTIMIZERS
from stages.lib.model.order_free import VALUE_BITS, compute_slopes, measure_cross_entropy, round_to_grid
from stages.lib.model.order_free_network import compute_logits
from stages.lib.model.order_free_optimizers import apply_gradients, create_optimizer
from stages.lib.model.shuffling import MEMORY_BUDGET, MemoryBudget, draw_groups
from stages.lib.model.training import Schedule, balance_classes, count_steps, fit
from stages.train import EarlyStoppingParams, LearningRateScheduleParams, TrainParams, train_network, write_history

# Those of the project, on small data.
PARAMS = load_section("train", TrainParams, ROOT / "params.yaml").model_copy(
    update={"hidden_units": [8], "epochs": 4, "batch_size": 16, "learning_rate": 0.01}
)
# All that a convolutional network is trained with, at once.
EVERYTHING = {
    "balances_classes": True,
    "augmentation": Augmentation(1, 10.0, 0.1, horizontal_flip=True, brightness=0.1, contrast=0.2),
}
DENSE = Architecture((8, 4))
CONVOLUTIONAL = Architecture((8,), ((4, 3),), dropout=0.25)
# Classes of keras.optimizers that no params.yaml can name, and why.
LEFT_OUT = {
    "optimizer": "the base class",
    "adafactor": "NaN, see below",
    "ftrl": "forgets the first weights, see below",
    "lossscaleoptimizer": "wraps another optimizer, for half precision",
    "multioptimizer": "takes other optimizers and no learning rate",
}
# Blocks of 3 images in groups of 4 blocks: 50 images are 5 groups.
SMALL_BUDGET = MemoryBudget(block_bytes=3 * 4 * 6 * 8, group_bytes=12 * 4 * 6 * 8)
# float32 rounds each of some dozen additions to 2^-24, about 6e-8, of the sum.
SUM_RTOL = 1e-6
# Sums of a batch are rounded before they are added up, sums of a group are not.
FLOAT64_RTOL = 1e-14
# Of how far four steps lead: factors are rounded to 21 bits of the largest, and an optimizer such as adam divides by
# gradients that may be close to 0.
STEPS_RTOL = 0.01
# The same of sgd with convolutions, whose factors keep some 8 bits; adam would follow the sign of what is close to 0.
CONVOLUTION_RTOL = 0.1
# 1 - 0.999 in float32 is off by 1.3e-5 of itself: adam's second moment by as much, its root by half of it.
ADAM_RTOL = 2e-5


def make_features(count, seed):
    """A split as `normalize` makes it."""
    images, labels = make_split(count, seed)
    return Split(images.astype(np.float32) / np.float32(255), labels)


# 50 images in batches of 16: the last batch has 2.
TRAIN, VALIDATION = make_features(50, seed=1), make_features(20, seed=2)
# The same in colour, each channel with a range of its own.
COLOUR = Split(TRAIN.images[..., np.newaxis] * np.array([1, 0.5, 0.25], np.float32), TRAIN.labels)


def train_samples(tmp_path, **changes):
    """A network trained on the shared samples, its epochs, and the one whose weights it has."""
    return train_network(PARAMS.model_copy(update=changes), write_normalized(tmp_path), len(CLASS_NAMES))


def list_weights(network):
    """All weights as bytes."""
    return [weights.tobytes() for weights in network.get_weights()]


def create_network(architecture=DENSE, image_shape=IMAGE_SIZE):
    """A network, with two hidden layers unless told otherwise, that ends in logits, the same at every call."""
    keras.utils.set_random_seed(0)
    return build_network(image_shape, architecture, len(CLASS_NAMES), "linear")


def fit_network(
    optimizer_name="adam",
    *,
    train=TRAIN,
    validation=None,
    budget=MEMORY_BUDGET,
    architecture=DENSE,
    learning_rate=PARAMS.learning_rate,
    weight_decay=None,
    **schedule,
):
    """A new network after `fit`, and its epochs."""
    network, history = create_network(architecture, train.images.shape[1:]), []
    optimizer = create_optimizer(optimizer_name, learning_rate, weight_decay)
    chosen = Schedule(**{"epochs": 3, "batch_size": 16, "seed": 0} | schedule)
    validation = validation or (VALIDATION if train is TRAIN else train)
    fit(network, optimizer, train, validation, chosen, on_epoch_end=history.append, budget=budget)
    return network, history


def list_batches(number, batch_size, seed, budget, train=TRAIN):
    """The rows of each batch of an epoch."""
    count = len(train.labels)
    if budget == MEMORY_BUDGET:
        orders = [np.random.default_rng([seed, number]).permutation(count)]
    else:
        row_bytes = train.images[0].nbytes
        groups = draw_groups(count, row_bytes, seed=seed, epoch=number, budget=budget)
        orders = [np.concatenate([np.arange(count)[block] for block in blocks])[order] for blocks, order in groups]
    return [order[start : start + batch_size] for order in orders for start in range(0, len(order), batch_size)]


def fit_step_by_step(
    optimizer_name,
    *,
    epochs,
    batch_size,
    seed,
    budget=MEMORY_BUDGET,
    train=TRAIN,
    architecture=DENSE,
    learning_rate=PARAMS.learning_rate,
    weight_decay=None,
    balances_classes=False,
    augmentation=None,
):
    """The same steps one by one, without a compiled function: the network and each epoch's mean loss."""
    network, losses = create_network(architecture, train.images.shape[1:]), []
    optimizer = create_optimizer(optimizer_name, learning_rate, weight_decay)
    optimizer.build(network.trainable_variables)
    images = round_to_grid(train.images, train.images.max(), VALUE_BITS)
    class_weights = balance_classes(train.labels, 3) if balances_classes else np.ones(3)
    augmenter = Augmenter(augmentation, train.images, seed) if augmentation else None
    step = 0
    for number in range(1, epochs + 1):
        loss_sum = 0.0
        for rows in list_batches(number, batch_size, seed, budget, train):
            labels, inputs = train.labels[rows], tf.constant(images[rows])
            if augmenter:
                transforms = np.concatenate([augmenter.draw(number, [slice(row, row + 1)]) for row in rows])
                inputs = augmenter.apply(inputs, tf.constant(transforms))
            with tf.GradientTape() as tape:
                logits = compute_logits(network, inputs, batch_size, tf.constant([seed, step], tf.int64))
            slopes = compute_slopes(logits, tf.constant(labels, tf.int32)) * class_weights[labels, np.newaxis]
            gradients = tape.gradient(logits, network.trainable_variables, output_gradients=slopes)
            apply_gradients(optimizer, gradients, network.trainable_variables)
            for row, label in enumerate(labels):
                loss = measure_cross_entropy(logits.numpy()[row : row + 1], labels[row : row + 1])[0]
                loss_sum += class_weights[label] * loss
            step += 1
        losses.append(loss_sum / len(train.labels))
    return network, losses


def fit_in_keras(
    optimizer_name,
    *,
    epochs,
    batch_size,
    learning_rate=PARAMS.learning_rate,
    weight_decay=None,
    architecture=DENSE,
    train=TRAIN,
    class_weights=(1.0, 1.0, 1.0),
):
    """The same with Keras's own layers, loss, gradient and optimizer in float32."""
    network = create_network(architecture, train.images.shape[1:])
    names = {name.lower(): optimizer for name, optimizer in vars(keras.optimizers).items()}
    settings = {} if weight_decay is None else {"weight_decay": weight_decay}
    if weight_decay is not None and optimizer_name == "muon":
        settings["adam_weight_decay"] = weight_decay
    optimizer = names[optimizer_name](learning_rate=learning_rate, **settings)
    if weight_decay is not None:
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    labels, weights = train.labels.astype(np.int32), np.array(class_weights, np.float32)
    for number in range(1, epochs + 1):
        for rows in list_batches(number, batch_size, 0, MEMORY_BUDGET, train):
            with tf.GradientTape() as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[rows], network(train.images[rows]))
                loss = tf.reduce_mean(losses * weights[labels[rows]])
            optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
    return network


def assert_close(network, expected, first, rtol=STEPS_RTOL):
    """Each weight is where the expected network has it, apart from rounding, as seen from the first one."""
    for ours, theirs, before in zip(*(each.get_weights() for each in (network, expected, first)), strict=True):
        assert np.abs(ours - theirs).max() < rtol * np.abs(theirs - before).max()


def test_same_seed_gives_the_same_bytes():
    """Two fits from one seed give the same weights and the same history."""
    (first, first_epochs), (second, second_epochs) = fit_network(), fit_network()

    assert list_weights(first) == list_weights(second)
    assert first_epochs == second_epochs


def test_seed_decides_the_order_of_images():
    """From the same first weights, another seed of the order leads elsewhere."""
    assert list_weights(fit_network(seed=0)[0]) != list_weights(fit_network(seed=1)[0])


def test_seed_of_params_decides_all(tmp_path):
    """`train.seed` alone tells two trainings apart."""
    first, again = train_samples(tmp_path / "a"), train_samples(tmp_path / "b")
    other = train_samples(tmp_path / "c", seed=1)

    assert list_weights(first.network) == list_weights(again.network)
    assert first.epochs == again.epochs
    assert list_weights(first.network) != list_weights(other.network)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_fit_is_the_same_steps_one_by_one(optimizer_name):
    """The compiled epoch gives, bit for bit, the weights and the loss of its steps taken one by one."""
    network, history = fit_network(optimizer_name)
    expected, losses = fit_step_by_step(optimizer_name, epochs=3, batch_size=16, seed=0)

    assert list_weights(network) == list_weights(expected)
    assert [epoch.loss for epoch in history] == pytest.approx(losses, rel=FLOAT64_RTOL)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_fit_is_what_keras_does(optimizer_name):
    """Apart from rounding, each optimizer leads where Keras's layers, gradient and optimizer lead."""
    network, _ = fit_network(optimizer_name, epochs=1)
    expected = fit_in_keras(optimizer_name, epochs=1, batch_size=16)

    assert_close(network, expected, create_network())


def test_every_optimizer_of_keras_can_be_named():
    """Params may name each optimizer of Keras, apart from those that are left out for a reason."""
    optimizers = {
        name.lower()
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.Optimizer)
    }

    assert set(OPTIMIZERS) == optimizers - set(LEFT_OUT)


def test_adafactor_of_keras_ends_in_nan():
    """It is left out for what it does with a pixel that is always black and a unit that is never active."""
    weights = keras.Variable(np.ones((2, 2), np.float32))
    optimizer = keras.optimizers.Adafactor()
    optimizer.apply([tf.constant([[0.0, 0.0], [0.0, 1.0]])], [weights])

    assert np.isnan(weights.numpy()[0, 0])


def test_ftrl_of_keras_forgets_the_first_weights():
    """It is left out for what its first step does, even one without a gradient."""
    weights = keras.Variable(np.ones((2, 2), np.float32))
    keras.optimizers.Ftrl().apply([tf.zeros((2, 2))], [weights])

    assert not weights.numpy().any()


def test_adam_is_the_adam_of_keras():
    """Its one op takes the same steps as Keras's dozen, apart from rounding."""
    start, gradients = make_features(1, seed=3).images, make_features(100, seed=4).images - np.float32(0.3)
    ours, keras_own = keras.Variable(start), keras.Variable(start)
    for optimizer, weights in ((create_optimizer("adam", 0.01), ours), (keras.optimizers.Adam(0.01), keras_own)):
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient[None])], [weights])

    np.testing.assert_allclose(ours.numpy(), keras_own.numpy(), rtol=ADAM_RTOL, atol=ADAM_RTOL)
    assert np.abs(ours.numpy() - start).min() > 100 * ADAM_RTOL


@pytest.mark.parametrize("batch_size", [1, 7, 25, 50, 1000])
def test_every_batch_size_takes_every_image_once(batch_size):
    """One image, a smaller last batch, batches that come out even, and one larger than the split."""
    network, _ = fit_network(batch_size=batch_size, epochs=1)
    expected, _ = fit_step_by_step("adam", batch_size=batch_size, epochs=1, seed=0)

    assert list_weights(network) == list_weights(expected)


@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_groups_of_images_are_the_same_steps_one_after_the_other(batch_size):
    """Where not all images are in memory at a time, the steps are those of each group in turn, bit for bit."""
    network, history = fit_network(batch_size=batch_size, budget=SMALL_BUDGET)
    expected, losses = fit_step_by_step("adam", epochs=3, batch_size=batch_size, seed=0, budget=SMALL_BUDGET)

    assert list_weights(network) == list_weights(expected)
    assert [epoch.loss for epoch in history] == pytest.approx(losses, rel=FLOAT64_RTOL)


@pytest.mark.parametrize("train", [TRAIN, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("budget", [MEMORY_BUDGET, SMALL_BUDGET], ids=["one group", "groups"])
def test_convolution_with_everything_is_the_same_steps_one_by_one(train, budget):
    """With dropout, augmentation, class weights, decay and a schedule: each image, step and loss as by itself."""
    settings = {"train": train, "budget": budget, "architecture": CONVOLUTIONAL, "weight_decay": 0.1, **EVERYTHING}
    rates = compute_learning_rates(0.01, "cosine", 3, count_steps(train, Schedule(3, 16, 0), budget))
    network, history = fit_network(learning_rate=rates, **settings)
    expected, losses = fit_step_by_step("adam", epochs=3, batch_size=16, seed=0, learning_rate=rates, **settings)

    assert list_weights(network) == list_weights(expected)
    assert [epoch.loss for epoch in history] == pytest.approx(losses, rel=FLOAT64_RTOL)


@pytest.mark.parametrize("train", [TRAIN, COLOUR], ids=["grey", "colour"])
def test_convolution_is_what_keras_does(train):
    """Apart from rounding, convolutions and poolings lead where Keras's own lead."""
    architecture = CONVOLUTIONAL._replace(dropout=0.0)
    network, _ = fit_network("sgd", epochs=1, architecture=architecture, train=train)
    expected = fit_in_keras("sgd", epochs=1, batch_size=16, architecture=architecture, train=train)

    assert_close(network, expected, create_network(architecture, train.images.shape[1:]), CONVOLUTION_RTOL)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_schedule_and_decay_are_those_of_keras(optimizer_name):
    """Each optimizer takes Keras's cosine decay after a warm-up, and Keras's decay of weights, biases excluded."""
    rates = compute_learning_rates(0.01, "cosine", 2, count_steps(TRAIN, Schedule(2, 16, 0)))
    keras_rates = keras.optimizers.schedules.CosineDecay(0.0, 6, warmup_target=0.01, warmup_steps=2)
    network, _ = fit_network(optimizer_name, epochs=2, learning_rate=rates, weight_decay=2.0)
    expected = fit_in_keras(optimizer_name, epochs=2, batch_size=16, learning_rate=keras_rates, weight_decay=2.0)

    assert_close(network, expected, create_network())


def test_decayed_adam_is_adamw():
    """With the same decay the two take the same steps, apart from rounding; without, they do not."""
    adam, adamw, plain = (
        fit_network(name, weight_decay=decay)[0] for name, decay in (("adam", 2.0), ("adamw", 2.0), ("adam", 0.0))
    )
    first = create_network()

    assert_close(adam, adamw, first)
    assert list_weights(plain) == list_weights(fit_network("adam")[0])
    with pytest.raises(AssertionError):
        assert_close(plain, adamw, first)


@pytest.mark.parametrize(("decay", "alone"), [(0.0, False), (0.3, False), (0.3, True)])
def test_decay_takes_a_share_of_kernels_alone(decay, alone):
    """Without a gradient, a step takes the rate times the decay off each kernel and nothing off a bias."""
    # The rule of these two, as Keras has it, makes more of the decay: they are compared with Keras above.
    for name in set(OPTIMIZERS) - {"lamb", "schedulefreeadamw"}:
        kernel, bias = (
            keras.Variable(np.ones(shape, np.float32), name=name) for shape, name in (((2, 2), "kernel"), (2, "bias"))
        )
        optimizer = create_optimizer(name, np.array([0.5, 0.25], np.float32) if alone else 0.5, decay)
        optimizer.build([kernel, bias])
        for _ in range(2 if alone else 1):
            apply_gradients(optimizer, [tf.zeros((2, 2)), tf.zeros(2)], [kernel, bias])

        expected = (1 - 0.5 * decay) * (1 - 0.25 * decay) if alone else 1 - 0.5 * decay
        np.testing.assert_allclose(kernel.numpy(), expected, rtol=SUM_RTOL, err_msg=name)
        np.testing.assert_allclose(bias.numpy(), 1, err_msg=name)


@pytest.mark.parametrize(("warmup_steps", "step_count"), [(0, 1), (0, 100), (7, 8), (7, 100)])
def test_cosine_is_the_schedule_of_keras(warmup_steps, step_count):
    """From 0 up in equal steps, then along half a cosine, which would be 0 at the step after the last."""
    rates = compute_learning_rates(0.1, "cosine", warmup_steps, step_count)
    warmup = {"warmup_target": 0.1, "warmup_steps": warmup_steps} if warmup_steps else {}
    schedule = keras.optimizers.schedules.CosineDecay(0.0 if warmup else 0.1, step_count - warmup_steps, **warmup)

    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, [schedule(step) for step in range(step_count)], rtol=SUM_RTOL, atol=1e-8)
    assert rates[warmup_steps] == np.float32(0.1)


def test_constant_rate_stays_after_its_warmup():
    """Linear from 0, then constant."""
    rates = compute_learning_rates(0.5, "constant", 4, 6)

    assert rates.tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.5]


@pytest.mark.parametrize("batch_size", [1, 5, 7, 16, 1000])
@pytest.mark.parametrize("budget", [MEMORY_BUDGET, SMALL_BUDGET], ids=["one group", "groups"])
def test_steps_are_counted_as_they_are_taken(batch_size, budget):
    """Smaller last batches of groups included, whose sizes differ from epoch to epoch."""
    schedule = Schedule(epochs=4, batch_size=batch_size, seed=3)
    network, optimizer = create_network(), create_optimizer("sgd", 0.01)
    fit(network, optimizer, TRAIN, VALIDATION, schedule, on_epoch_end=lambda _: None, budget=budget)

    assert count_steps(TRAIN, schedule, budget) == optimizer.iterations.numpy()


def test_class_weights_are_those_of_scikit_learn():
    """N / (classes count): every class weighs the same, an image 1 on average, a class without images nothing."""
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    weights = balance_classes(labels, 3)

    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    assert weights[labels].mean() == pytest.approx(1)
    assert balance_classes(np.array([0, 2, 2]), 3).tolist() == [1.0, 0.0, 0.5]


def test_balanced_classes_are_what_keras_does():
    """An image's gradient, and its part of the training loss, count by its class, as `class_weight` has it in Keras."""
    labels = np.where(np.arange(50) % 7 == 0, 2, np.arange(50) % 3 == 0)
    train = Split(TRAIN.images, labels.astype(np.uint8))
    weights = balance_classes(labels, 3)
    network, (epoch,) = fit_network("sgd", epochs=1, batch_size=50, train=train, balances_classes=True)
    expected = fit_in_keras("sgd", epochs=1, batch_size=50, train=train, class_weights=weights)
    keras_network = create_network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras_network.compile("sgd", loss, metrics=["accuracy"])
    history = keras_network.fit(
        train.images, labels, batch_size=50, class_weight=dict(enumerate(weights)), verbose=0, shuffle=False
    ).history

    assert len({*weights}) == 3
    assert_close(network, expected, create_network())
    assert epoch.loss == pytest.approx(history["loss"][0], rel=1e-5)
    assert epoch.accuracy == pytest.approx(history["accuracy"][0], rel=SUM_RTOL)


def test_dropout_is_for_training_alone(tmp_path):
    """It changes what is learnt, not how that is measured; the saved layer is Keras's, and passes all through."""
    data_dir = write_normalized(tmp_path)
    params = PARAMS.model_copy(update={"conv_blocks": [[4]], "dropout": 0.5, "epochs": 40})
    train.run(params, data_dir, tmp_path / "model.keras", tmp_path / "history.csv")
    network = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    validation = load_split(data_dir / "validation")
    probabilities = network(np.array(validation.images)).numpy()
    loss = -np.log(probabilities[np.arange(len(validation.labels)), validation.labels]).mean()
    last = read_csv(tmp_path / "history.csv")[-1]

    assert [type(layer) for layer in network.layers[-2:]] == [keras.layers.Dropout, keras.layers.Dense]
    assert float(last["val_accuracy"]) == 1.0
    assert float(last["val_loss"]) == pytest.approx(loss, abs=1e-4)
    assert float(last["loss"]) > 1.2 * float(last["val_loss"])
    without = train_network(params.model_copy(update={"dropout": 0.0}), data_dir, 3)
    assert list_weights(without.network) != list_weights(network)


def test_dropout_leaves_out_its_share_anew_in_each_step():
    """By the seed and the step alone; what is left is scaled up, so that the mean stays."""
    network = keras.Sequential(
        [keras.Input((100, 100)), keras.layers.Flatten(), keras.layers.Dropout(0.25), keras.layers.Dense(1)]
    )
    kernel = np.arange(10_000).reshape(-1, 1) % 2
    network.set_weights([kernel, np.zeros(1)])
    inputs = tf.ones((2, 100, 100), tf.float64)
    first, again, other = (
        compute_logits(network, inputs, 2, tf.constant([0, step], tf.int64)).numpy() for step in (1, 1, 2)
    )

    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first[0] != first[1]
    np.testing.assert_allclose([*first, *other], 5000, rtol=0.05)  # of 5,000 drawn, eight deviations


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_early_stopping_works_with_everything(tmp_path, monitor):
    """Convolution, dropout, augmentation and a schedule: the best epoch is kept, the same again."""
    changes = {
        "conv_blocks": [[4]],
        "dropout": 0.2,
        "epochs": 30,
        "learning_rate": 0.05,
        "learning_rate_schedule": LearningRateScheduleParams(decay="cosine", warmup_steps=5),
        "class_weights": "balanced",
        "augmentation": PARAMS.augmentation.model_copy(update={"shift": 1, "rotation": 5.0}),
        "early_stopping": EarlyStoppingParams(monitor=monitor, patience=2),
    }
    first, again = (train_samples(tmp_path / name, **changes) for name in ("a", "b"))
    values = [getattr(epoch, monitor) for epoch in first.epochs]

    assert len(first.epochs) == first.best.number + 2 < 30
    assert getattr(first.best, monitor) == (min(values) if monitor == "val_loss" else max(values))
    assert list_weights(first.network) == list_weights(again.network)
    assert first.epochs == again.epochs


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(tmp_path, optimizer_name):
    """Each optimizer that params.yaml may name learns: every epoch is better than the first."""
    epochs = train_samples(tmp_path, optimizer=optimizer_name).epochs

    assert max(epoch.loss for epoch in epochs[1:]) < epochs[0].loss
    assert epochs[-1].val_loss < epochs[0].val_loss


def test_epoch_tells_loss_and_accuracy_of_the_validation_split():
    """After an epoch, validation is measured with the weights as they then are."""
    network, history = fit_network(epochs=2)
    logits = network(VALIDATION.images).numpy().astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(20), VALIDATION.labels].mean()

    assert history[-1].val_loss == pytest.approx(loss, rel=SUM_RTOL)
    assert history[-1].val_accuracy == (logits.argmax(axis=1) == VALIDATION.labels).mean()
    assert [epoch.number for epoch in history] == [1, 2]


def test_tiny_classes_are_learnt(tmp_path):
    """Classes that are easy to tell apart are told apart."""
    epochs = train_samples(tmp_path, epochs=40).epochs

    assert (epochs[-1].accuracy, epochs[-1].val_accuracy) == (1.0, 1.0)


def test_validation_does_not_change_the_training():
    """Weights are the same with a validation split, with another one and without."""
    empty = Split(VALIDATION.images[:0], VALIDATION.labels[:0])
    other = make_features(20, seed=9)
    weights = [list_weights(fit_network(validation=split)[0]) for split in (VALIDATION, other, empty)]

    assert weights[0] == weights[1] == weights[2]


def test_empty_validation_split_is_not_a_number():
    """Without a validation split there is no loss and no accuracy of it."""
    _, (epoch,) = fit_network(validation=Split(VALIDATION.images[:0], VALIDATION.labels[:0]), epochs=1)

    assert math.isnan(epoch.val_loss)
    assert math.isnan(epoch.val_accuracy)
    assert math.isfinite(epoch.loss)


@pytest.mark.parametrize("batch_size", [16, 1000], ids=["many steps", "one step"])
def test_loss_that_is_not_finite_stops_without_output(tmp_path, batch_size):
    """Too high a learning rate ends in one line, with neither a network nor a history; one step is enough for it."""
    params = PARAMS.model_copy(update={"learning_rate": 1e30, "epochs": 1, "batch_size": batch_size})

    with pytest.raises(TrainingError) as refusal:
        train.run(params, write_normalized(tmp_path), tmp_path / "model.keras", tmp_path / "history.csv")

    assert (refusal.value.where, refusal.value.hint) == ("epoch 1", "lower train.learning_rate")
    assert refusal.value.problem.startswith("the loss or a weight is no longer a finite number (loss ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "reports"]


MEASURE_MEMORY = r"""
import re, sys
from pathlib import Path
import numpy as np
from stages.lib.core.arrays import Split
from stages.lib.model.augmentation import Augmentation
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network
from stages.lib.model.shuffling import MemoryBudget
from stages.lib.model.training import Schedule, fit

images = np.load("images.npy", mmap_mode="r")[: int(sys.argv[1])]
split = Split(images, np.zeros(len(images), np.uint8))
network = build_network(images.shape[1:], Architecture((2,), ARCHITECTURE), 2, "linear")
held = []  # MiB

def measure(epoch=None):
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    held.append(int(found[1]) / 1024)

measure()
schedule = Schedule(epochs=3, batch_size=64, seed=0, augmentation=AUGMENTATION)
budget = MemoryBudget(block_bytes=2**20, group_bytes=2**24)
fit(network, keras.optimizers.SGD(), split, split, schedule, on_epoch_end=measure, budget=budget)
print(max(held) - held[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's anonymous memory")
@pytest.mark.parametrize(
    ("shape", "conv_blocks", "augmentation"),
    [
        pytest.param((32, 32), (), Augmentation(), id="dense"),
        pytest.param(
            *((32, 32, 3), ((2,),), Augmentation(1, 5.0, 0.1, brightness=0.1, contrast=0.1)),
            id="convolution",
        ),
    ],
)
def test_memory_does_not_grow_with_the_data(tmp_path, shape, conv_blocks, augmentation):
    """Of a mapped file, however large, no more than one group is held, in training and in validation."""
    rows = 2**20 // (math.prod(shape) * 4)  # of a MiB
    np.save(tmp_path / "images.npy", np.zeros((160 * rows, *shape), np.float32))
    code = MEASURE_MEMORY.replace("ARCHITECTURE", repr(conv_blocks)).replace("AUGMENTATION", repr(augmentation))
    one_group, ten_groups = (float(run_python("-c", code, str(mib * rows), cwd=tmp_path).stdout) for mib in (16, 160))

    assert one_group > 16
    # All images would be 144 MiB more.
    assert ten_groups < one_group + 8


# Learns fast, then overshoots now and then.
JUMPY = {"learning_rate": 0.5, "epochs": 30}


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("patience", [1, 3, 30])
def test_early_stopping_ends_with_the_weights_of_the_best_epoch(tmp_path, monitor, patience):
    """It stops once that many epochs were no new best; the network is the one that training up to the best gives."""
    chosen = EarlyStoppingParams(monitor=monitor, patience=patience)
    stopped = train_samples(tmp_path / "stopped", early_stopping=chosen, **JUMPY)
    values = [getattr(epoch, monitor) for epoch in train_samples(tmp_path / "all", **JUMPY).epochs]
    best = min(values[: len(stopped.epochs)]) if monitor == "val_loss" else max(values[: len(stopped.epochs)])
    until_best = train_samples(tmp_path / "best", **(JUMPY | {"epochs": stopped.best.number}))

    assert [getattr(epoch, monitor) for epoch in stopped.epochs] == values[: len(stopped.epochs)]
    assert stopped.best.number == values.index(best) + 1
    assert len(stopped.epochs) == min(30, stopped.best.number + patience)
    assert list_weights(stopped.network) == list_weights(until_best.network)


def test_without_early_stopping_the_last_epoch_is_kept(tmp_path, capsys):
    """A patience of 0 trains all epochs, as the lecture does, whatever validation says, and tells so."""
    trained = train_samples(tmp_path, **JUMPY)

    assert (len(trained.epochs), trained.best) == (30, trained.epochs[-1])
    assert min(trained.epochs, key=lambda epoch: epoch.val_loss) != trained.best
    assert capsys.readouterr().out.splitlines()[-1] == "train: kept the weights of epoch 30 (the last)"


def test_kept_epoch_is_printed_and_marked_in_the_history(tmp_path, capsys):
    """The last line printed names the epoch whose weights the network has; history.csv marks it, the same again."""
    data_dir, texts = write_normalized(tmp_path), []
    stopping = EarlyStoppingParams(monitor="val_loss", patience=2)
    params = PARAMS.model_copy(update={**JUMPY, "early_stopping": stopping})
    for name in ("one", "two"):
        train.run(params, data_dir, tmp_path / name / "model.keras", tmp_path / name / "history.csv")
        texts.append((tmp_path / name / "history.csv").read_bytes())
    rows = read_csv(tmp_path / "one/history.csv")
    (best,) = [row for row in rows if row["best"] == "1"]

    assert texts[0] == texts[1]
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "best"]
    assert [row["best"] for row in rows].count("0") == len(rows) - 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"train: kept the weights of epoch {best['epoch']} (best val_loss of {len(rows)}, {best['val_loss']})"
    )


def test_early_stopping_without_validation_is_refused_before_the_first_step(tmp_path, capsys):
    """Nothing could tell the best epoch: one line says what to change, and nothing is written."""
    data_dir = write_normalized(tmp_path, validation_fraction=0.0)
    params = PARAMS.model_copy(update={"early_stopping": EarlyStoppingParams(monitor="val_loss", patience=3)})
    capsys.readouterr()

    with pytest.raises(ParamsError) as refusal:
        train.run(params, data_dir, tmp_path / "model.keras", tmp_path / "history.csv")
    assert refusal.value.where == "train.early_stopping.patience"
    assert (refusal.value.expected, refusal.value.got) == ("0 where there is no validation split", "3")
    assert refusal.value.hint == "set it to 0, or raise normalize.validation_fraction"
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "reports"]


@pytest.mark.parametrize("hidden_units", [[], [5], [8, 4]], ids=str)
def test_network_has_the_layers_that_params_name(tmp_path, hidden_units):
    """No hidden layer, one or several: the saved network loads in plain Keras and gives probabilities."""
    data_dir = write_normalized(tmp_path)
    params = PARAMS.model_copy(update={"hidden_units": hidden_units})
    train.run(params, data_dir, tmp_path / "model.keras", tmp_path / "history.csv")
    network = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    probabilities = network(np.array(load_split(data_dir / "test").images)).numpy()

    assert [layer.units for layer in network.layers if isinstance(layer, keras.layers.Dense)] == [*hidden_units, 3]
    assert probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=SUM_RTOL)
    assert (probabilities >= 0).all()


def test_run_writes_the_same_bytes_again(tmp_path):
    """Network and history are the same files at the second run."""
    data_dir, contents = write_normalized(tmp_path), []
    for name in ("one", "two"):
        train.run(PARAMS, data_dir, tmp_path / name / "model.keras", tmp_path / name / "history.csv")
        contents.append([(tmp_path / name / file).read_bytes() for file in ("model.keras", "history.csv")])

    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("validation_fraction", "columns"),
    [(0.2, ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]), (0.0, ["epoch", "loss", "accuracy"])],
)
def test_history_has_validation_columns_where_there_is_validation(tmp_path, validation_fraction, columns):
    """One row per epoch; without a validation split its columns are left out."""
    data_dir = write_normalized(tmp_path, validation_fraction=validation_fraction)
    train.run(PARAMS, data_dir, tmp_path / "model.keras", tmp_path / "history.csv")
    rows = read_csv(tmp_path / "history.csv")

    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert list(rows[0]) == columns


def test_history_has_four_decimals(tmp_path):
    """Decimals that differ between machines are left out."""
    write_history(tmp_path / "history.csv", [train.Epoch(1, 0.123456, 0.5, 2.0, 1.0)])

    assert (tmp_path / "history.csv").read_text(encoding="utf-8") == (
        "epoch,loss,accuracy,val_loss,val_accuracy\n1,0.1235,0.5000,2.0000,1.0000\n"
    )


THREADS = """
import sys
from stages.lib.model.deterministic_tensorflow import tf
from stages.train import choose_threads
choose_threads(int(sys.argv[1]), has_convolutions=sys.argv[2] == "True")
threading = tf.config.threading
print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
"""


@pytest.mark.parametrize(
    ("batch_size", "has_convolutions", "threads"),
    [(32, False, "1 1"), (512, False, "0 1"), (32, True, f"1 {os.cpu_count()}")],
)
def test_large_steps_alone_are_shared_among_cores(tmp_path, batch_size, has_convolutions, threads):
    """One thread where several would wait for each other; a large operation has all, or each shard of images one."""
    done = run_python("-c", THREADS, str(batch_size), str(has_convolutions), cwd=tmp_path)

    assert done.stdout == f"{threads}\n"


def test_threads_that_can_no_longer_be_chosen_stay():
    """In a process where TensorFlow is at work, training goes on with what it has."""
    tf.constant(0)
    train.choose_threads(32, has_convolutions=False)
    train.choose_threads(512, has_convolutions=True)


@pytest.mark.parametrize(
    ("changes", "where", "expected", "hint"),
    [
        (
            {"conv_blocks": [[4], [4], [4]]},
            "train.conv_blocks",
            "blocks that leave at least a pixel of images of 6 x 8",
            "leave block 2 out, or raise ingest.image_size",
        ),
        (
            {"augmentation": PARAMS.augmentation.model_copy(update={"shift": 6})},
            "train.augmentation.shift",
            "less than 6, the shorter side of the images",
            "lower it",
        ),
        (
            {"learning_rate_schedule": LearningRateScheduleParams(decay="constant", warmup_steps=12)},
            "train.learning_rate_schedule.warmup_steps",
            "less than the 12 steps of all epochs",
            "lower it, or raise train.epochs",
        ),
    ],
    ids=["images too small", "shift too large", "warm-up too long"],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(tmp_path, capsys, changes, where, expected, hint):
    """One error says what to change, before anything is trained or written."""
    data_dir = write_normalized(tmp_path)
    capsys.readouterr()

    with pytest.raises(ParamsError) as refusal:
        train.run(PARAMS.model_copy(update=changes), data_dir, tmp_path / "model.keras", tmp_path / "history.csv")
    assert (refusal.value.where, refusal.value.expected, refusal.value.hint) == (where, expected, hint)
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "reports"]


def test_stage_ends_with_one_line_where_images_shrink_to_nothing(tmp_path):
    """On the command line: exit code 1, and what to change, with nothing trained."""
    write_normalized(tmp_path)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    blocks = text.replace("  conv_blocks: []\n", "  conv_blocks:\n  - - 16\n  - - 32\n")
    (tmp_path / "params.yaml").write_text(blocks, encoding="utf-8")
    done = run_python("-m", "stages.train", cwd=tmp_path)

    assert blocks != text
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("train: model_int8")]
    assert line.startswith("train: train.conv_blocks: expected blocks that leave at least a pixel of images of 6 x 8")


def test_images_too_large_for_convolutions_are_refused():
    """Sums over more places than float32 adds up exactly are not tried."""
    with pytest.raises(ParamsError) as caught:
        build_network((200, 200, 3), Architecture((), ((2,),)), 3, "linear")

    assert caught.value.where == "ingest.image_size"
    build_network((200, 200, 3), Architecture((2,)), 3, "linear")


def name_classes(data_dir, class_names, name):
    """Let the normalized data be of these classes, and of a data set of this name."""
    dataset = read_json(data_dir / "dataset.json")
    write_json(data_dir / "dataset.json", dataset | {"class_names": class_names, "name": name})


def test_mirrored_digits_are_refused_before_training(tmp_path):
    """A flip makes no digit of a digit: one line says so; without the flip the same data is trained on."""
    data_dir = write_normalized(tmp_path)
    name_classes(data_dir, list("0123456789"), "digits")
    flipped = PARAMS.augmentation.model_copy(update={"horizontal_flip": True})
    outputs = (data_dir, tmp_path / "model.keras", tmp_path / "history.csv")

    with pytest.raises(ParamsError) as refusal:
        train.run(PARAMS.model_copy(update={"augmentation": flipped}), *outputs)
    assert refusal.value.where == "train.augmentation.horizontal_flip"
    assert refusal.value.expected == "false where the classes are the digits 0 to 9, as in digits"
    assert refusal.value.hint == "set it to false"
    train.run(PARAMS, *outputs)


@pytest.mark.parametrize(
    ("class_names", "line_count"), [(["a", "b", "c"], 1), (["7", "8", "9"], 1), (["a", "b", "cat"], 0)], ids=str
)
def test_flip_of_what_looks_like_letters_is_told_before_training(tmp_path, class_names, line_count):
    """Names of one letter or digit are a reason to ask; a person may still know better."""
    data_dir = write_normalized(tmp_path)
    name_classes(data_dir, class_names, "own")
    flipped = PARAMS.augmentation.model_copy(update={"horizontal_flip": True})
    lines = train.warn(PARAMS.model_copy(update={"augmentation": flipped}), {}, data_dir)

    assert len(lines) == line_count
    assert all("train.augmentation.horizontal_flip" in line and "set it to false" in line for line in lines)
    assert train.warn(PARAMS, {}, data_dir) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("shift", -1), ("rotation", 181.0), ("scale", 0.6), ("brightness", 1.5), ("contrast", 1.5), ("shift", 1.5)],
)
def test_augmentation_out_of_range_is_refused(key, value):
    """Each setting has bounds, beyond which an image is no longer itself."""
    section = PARAMS.model_dump(mode="json")
    section["augmentation"][key] = value
    with pytest.raises(ParamsError) as refusal:
        validate_section(section, TrainParams, "train.")

    assert refusal.value.where == f"train.augmentation.{key}"


EXPORT = {
    "artifacts": ["tflite_int8"],
    "board": None,
    "microcontroller": {"max_arena_bytes": 1000, "max_file_bytes": 9999, "operators": []},
}


def test_network_too_large_for_its_board_is_told_before_it_is_trained(tmp_path):
    """Sizes alone tell it, with what to do; a network that fits is not spoken of."""
    data_dir = write_normalized(tmp_path)
    ample = EXPORT["microcontroller"] | {"max_arena_bytes": 9999}
    (line,) = train.warn_of_size(PARAMS, {"export": EXPORT}, data_dir)

    assert line.startswith("model_int8.tflite on a microcontroller will be withheld: it needs ")
    assert line.endswith("raise the limits in export.microcontroller")
    assert train.warn_of_size(PARAMS, {"export": EXPORT | {"microcontroller": ample}}, data_dir) == []


def test_convolutions_and_colour_are_counted_before_training(tmp_path):
    """Filters and channels take memory, too: what fits without them is told of with them."""
    ample = EXPORT | {"microcontroller": EXPORT["microcontroller"] | {"max_arena_bytes": 4000}}
    data_dir = write_normalized(tmp_path)
    blocks = PARAMS.model_copy(update={"conv_blocks": [[100]]})
    (line,) = train.warn_of_size(blocks, {"export": ample}, data_dir)

    assert train.warn_of_size(PARAMS, {"export": ample}, data_dir) == []
    assert "lower train.conv_blocks to about [[" in line


@pytest.mark.parametrize(
    "export",
    [
        EXPORT | {"artifacts": ["onnx_float32"]},
        EXPORT | {"board": "nonsense", "microcontroller": {"max_arena_bytes": None, "max_file_bytes": None}},
        {},
    ],
)
def test_section_of_another_stage_does_not_stop_training(tmp_path, export):
    """Without an int8 export there is nothing to warn of; what is wrong in the section its own stage tells."""
    assert train.warn_of_size(PARAMS, {"export": export}, write_normalized(tmp_path)) == []


def test_limits_that_are_missing_are_told_before_training(tmp_path):
    """`export` would fail for want of a board: better known before."""
    export = EXPORT | {"microcontroller": {"max_arena_bytes": None, "max_file_bytes": 1}}
    (line,) = train.warn_of_size(PARAMS, {"export": export}, write_normalized(tmp_path))

    assert line.startswith("params.yaml: export.board: expected the name of a board")
