/* Generated from model_int8.tflite: see classifier.h. */
#include "classifier.h"

#include <stddef.h>

#define LANES $lanes /* units whose sums are computed together */

/* A convolution with relu or not, and the pooling after it. A dense layer is one with a kernel of one pixel. */
struct layer {
    const int8_t *weights;       /* by group of units, row and column of the kernel, depth, and unit of the group */
    const int32_t *biases;       /* by unit */
    const uint32_t *multipliers; /* by unit: a sum times multiplier / 2^shift is an output */
    const uint8_t *shifts;
    size_t input_row_bytes;
    size_t depth; /* values of a pixel of the input */
    size_t kernel; /* rows and columns */
    size_t pool; /* rows and columns of the pooling */
    size_t rows, columns, units; /* of the output */
    size_t offset; /* of the output in the scratch memory */
    uint8_t zero; /* the output that stands for 0 */
    uint8_t lowest; /* the smallest output */
};

$tables
/* e^-d of logits that are d steps below the largest, in fixed point; 0 of those that are further below. */
static const uint32_t exponentials[] = {
$exponentials
};

const char *const classifier_class_names[CLASSIFIER_CLASS_COUNT] = {
$class_names
};

/* Add the products of the inputs under a kernel and its weights for each unit of a group. */
static void add_products(const struct layer *layer, const uint8_t *inputs, const int8_t *weights, int32_t sums[LANES])
{
    const size_t length = layer->kernel * layer->depth;
    int32_t sum_0 = 0, sum_1 = 0, sum_2 = 0, sum_3 = 0;
    size_t row;

    for (row = 0; row < layer->kernel; row++) {
        const uint8_t *input = inputs + row * layer->input_row_bytes;
        const uint8_t *const end = input + length;

        for (; input != end; input++, weights += LANES) {
            const int32_t value = *input;

            if (value == 0) /* as most of a dark background is, and of what a relu gives */
                continue;
            sum_0 += value * weights[0];
            sum_1 += value * weights[1];
            sum_2 += value * weights[2];
            sum_3 += value * weights[3];
        }
    }
    sums[0] = sum_0;
    sums[1] = sum_1;
    sums[2] = sum_2;
    sums[3] = sum_3;
}

/* The nearest number that float32 holds: of 24 binary digits before its zeros; halves to even. */
static uint32_t round_to_float32(uint32_t number)
{
    unsigned bits = 0;

    while (number >> bits >> 24)
        bits++;
    if (bits > 0) {
        const uint32_t half = (uint32_t)1 << (bits - 1);
        const uint32_t rest = number & (2 * half - 1);

        number -= rest;
        if (rest > half || (rest == half && (number >> bits) % 2))
            number += 2 * half;
    }
    return number;
}

/* product / 2^shift, rounded to float32 first and then to a whole number, halves to even both times. */
static uint64_t round_product(uint64_t product, unsigned shift)
{
    const uint64_t half = (uint64_t)1 << (shift - 1);
    const uint64_t whole = product >> shift;
    const uint64_t rest = product - (whole << shift);
    const uint64_t distance = rest > half ? rest - half : half - rest;

    /* The first rounding changes the second one only where it makes a half of what is not one. */
    if (distance <= product >> 24) {
        uint64_t top = product; /* its highest binary digit */

        while (top & (top - 1))
            top &= top - 1;
        if (distance <= top >> 24)
            return whole + whole % 2;
    }
    return rest > half ? whole + 1 : whole;
}

/* The output 0..255 that a unit's sum stands for. */
static uint8_t rescale(const struct layer *layer, size_t unit, int32_t sum)
{
    const uint32_t zero = layer->zero, most_below = zero - layer->lowest, most_above = 255 - zero;
    const uint32_t magnitude = sum < 0 ? 0 - (uint32_t)sum : (uint32_t)sum;
    uint64_t steps;

    if (sum < 0 && most_below == 0)
        return layer->zero;
    steps = round_product((uint64_t)round_to_float32(magnitude) * layer->multipliers[unit], layer->shifts[unit]);
    if (sum < 0)
        return (uint8_t)(zero - (steps < most_below ? (uint32_t)steps : most_below));
    return (uint8_t)(zero + (steps < most_above ? (uint32_t)steps : most_above));
}

/* The largest sums of a group of units in the window of a pooling. Outputs grow with sums: theirs are the largest, too. */
static void find_largest_sums(const struct layer *layer, const uint8_t *inputs, const int8_t *weights,
                              int32_t largest[LANES])
{
    size_t row, column, lane;

    add_products(layer, inputs, weights, largest);
    for (row = 0; row < layer->pool; row++) {
        for (column = row == 0 ? 1 : 0; column < layer->pool; column++) {
            int32_t sums[LANES];

            add_products(layer, inputs + row * layer->input_row_bytes + column * layer->depth, weights, sums);
            for (lane = 0; lane < LANES; lane++)
                if (sums[lane] > largest[lane])
                    largest[lane] = sums[lane];
        }
    }
}

static void apply_layer(const struct layer *layer, const uint8_t *inputs, uint8_t *outputs)
{
    const size_t group_bytes = layer->kernel * layer->kernel * layer->depth * LANES;
    size_t row, column, unit, lane;

    for (row = 0; row < layer->rows; row++) {
        for (column = 0; column < layer->columns; column++) {
            const uint8_t *window = inputs + layer->pool * (row * layer->input_row_bytes + column * layer->depth);
            const int8_t *weights = layer->weights;

            for (unit = 0; unit < layer->units; unit += LANES, weights += group_bytes) {
                int32_t sums[LANES];

                find_largest_sums(layer, window, weights, sums);
                for (lane = 0; lane < LANES && unit + lane < layer->units; lane++)
                    *outputs++ = rescale(layer, unit + lane, sums[lane] + layer->biases[unit + lane]);
            }
        }
    }
}

static uint32_t exponentiate(uint8_t logit, uint8_t largest)
{
    const size_t distance = (size_t)(largest - logit);

    return distance < sizeof exponentials / sizeof exponentials[0] ? exponentials[distance] : 0;
}

static void apply_softmax(const uint8_t *logits, uint8_t *probabilities)
{
    const uint8_t largest = logits[classifier_find_class(logits)];
    uint32_t sum = 0;
    size_t id;

    for (id = 0; id < CLASSIFIER_CLASS_COUNT; id++)
        sum += exponentiate(logits[id], largest);
    for (id = 0; id < CLASSIFIER_CLASS_COUNT; id++) {
        const uint32_t share = (256 * exponentiate(logits[id], largest) + sum / 2) / sum;

        probabilities[id] = (uint8_t)(share < 255 ? share : 255);
    }
}

void classifier_predict(const uint8_t pixels[CLASSIFIER_PIXEL_BYTES], uint8_t probabilities[CLASSIFIER_CLASS_COUNT],
                        uint8_t scratch[CLASSIFIER_SCRATCH_BYTES])
{
    const uint8_t *values = pixels;
    size_t index;

    for (index = 0; index < sizeof layers / sizeof layers[0]; index++) {
        uint8_t *const outputs = scratch + layers[index].offset;

        apply_layer(&layers[index], values, outputs);
        values = outputs;
    }
    apply_softmax(values, probabilities);
}

unsigned classifier_find_class(const uint8_t probabilities[CLASSIFIER_CLASS_COUNT])
{
    unsigned id, found = 0;

    for (id = 1; id < CLASSIFIER_CLASS_COUNT; id++)
        if (probabilities[id] > probabilities[found])
            found = id;
    return found;
}
