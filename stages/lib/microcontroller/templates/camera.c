/* Generated: see camera.h. The arithmetic is that of Pillow's bicubic filter for 8-bit images. */
#include "camera.h"

#define PRECISION_BITS 22 /* of a weight in fixed point */
#define DOUBLE_BITS 53    /* of the mantissa of a double */
#define HAS_COLOUR (CLASSIFIER_CHANNELS == 3)
#define IS_LIGHT $is_light /* the background of the training images */

/* Parts of the scratch memory. */
struct memory {
    int32_t *weights;
    uint8_t *values; /* of a row or a column of the frame */
};

static uint8_t widen(uint32_t value, unsigned bits)
{
    return (uint8_t)(value << (8 - bits) | value >> (2 * bits - 8));
}

/* The value 0..255 of a pixel's channel; of a grey model, its grey level. */
static uint8_t read_value(const struct camera_frame *frame, size_t x, size_t y, unsigned channel)
{
    const uint8_t *const row = frame->bytes + y * frame->row_bytes;
    uint8_t colour[3], value;
    uint32_t packed;

    switch (frame->format) {
    case CAMERA_RGB888:
    case CAMERA_BGR888:
        colour[0] = row[3 * x + (frame->format == CAMERA_RGB888 ? 0 : 2)];
        colour[1] = row[3 * x + 1];
        colour[2] = row[3 * x + (frame->format == CAMERA_RGB888 ? 2 : 0)];
        break;
    case CAMERA_RGB565_BIG:
    case CAMERA_RGB565_LITTLE:
        packed = frame->format == CAMERA_RGB565_BIG ? (uint32_t)row[2 * x] << 8 | row[2 * x + 1]
                                                    : (uint32_t)row[2 * x + 1] << 8 | row[2 * x];
        colour[0] = widen(packed >> 11, 5);
        colour[1] = widen(packed >> 5 & 63, 6);
        colour[2] = widen(packed & 31, 5);
        break;
    default:
        value = row[frame->format == CAMERA_GREY ? x : 2 * x + (frame->format == CAMERA_UYVY)];
        return frame->is_negative ? (uint8_t)(255 - value) : value;
    }
    if (HAS_COLOUR)
        value = colour[channel];
    else /* 0.299, 0.587 and 0.114 in 65536ths */
        value = (uint8_t)((19595 * (uint32_t)colour[0] + 38470 * (uint32_t)colour[1] + 7471 * (uint32_t)colour[2] +
                           32768) >> 16);
    return frame->is_negative ? (uint8_t)(255 - value) : value;
}

/* How many values of the border are below a limit. The pixels at the corners count twice. */
static uint32_t count_below(const struct camera_frame *frame, unsigned channel, unsigned limit)
{
    const size_t right = frame->width - 1u, bottom = frame->height - 1u;
    uint32_t count = 0;
    size_t index;

    for (index = 0; index <= right; index++)
        count += (uint32_t)(read_value(frame, index, 0, channel) < limit) +
                 (uint32_t)(read_value(frame, index, bottom, channel) < limit);
    for (index = 0; index <= bottom; index++)
        count += (uint32_t)(read_value(frame, 0, index, channel) < limit) +
                 (uint32_t)(read_value(frame, right, index, channel) < limit);
    return count;
}

/* The value of the border that has this many before it, when all are sorted. */
static unsigned find_ranked(const struct camera_frame *frame, unsigned channel, uint32_t rank)
{
    unsigned value = 0, bit;

    for (bit = 128; bit > 0; bit /= 2)
        if (count_below(frame, channel, value + bit) <= rank)
            value += bit;
    return value;
}

/* Twice the median of the border, whose values are even in number. */
static unsigned double_median(const struct camera_frame *frame, unsigned channel)
{
    const uint32_t middle = (uint32_t)frame->width + frame->height;

    return find_ranked(frame, channel, middle - 1) + find_ranked(frame, channel, middle);
}

/* number / 2^bits to the nearest whole number, halves to even. */
static uint64_t round_bits(uint64_t number, unsigned bits)
{
    uint64_t whole, rest, half;

    if (bits == 0)
        return number;
    if (bits > 63)
        return 0;
    whole = number >> bits;
    rest = number - (whole << bits);
    half = (uint64_t)1 << (bits - 1);
    return whole + (rest > half || (rest == half && whole % 2));
}

/* round(numerator / denominator * factor) as Python computes it with doubles, whose own roundings decide some halves. */
static uint32_t scale_length(uint32_t numerator, uint32_t denominator, uint32_t factor)
{
    uint64_t quotient = numerator / denominator, product;
    uint32_t rest = numerator % denominator;
    unsigned bits = 0, excess = 0;

    while (quotient >> DOUBLE_BITS == 0) { /* one bit more than a double has */
        rest *= 2;
        quotient = 2 * quotient + (rest >= denominator);
        if (rest >= denominator)
            rest -= denominator;
        bits++;
    }
    quotient = quotient / 2 + (quotient % 2 && (rest > 0 || quotient / 2 % 2));
    bits--;
    product = quotient * factor;
    while (product >> excess >> DOUBLE_BITS)
        excess++;
    return (uint32_t)round_bits(round_bits(product, excess), bits - excess);
}

/* The bicubic filter with a = -1/2 at distance / unit, times 2 * unit^3. */
static int64_t weigh(int32_t distance, int32_t unit)
{
    const int64_t d = distance < 0 ? -distance : distance, u = unit;

    if (d < u)
        return (3 * d - 5 * u) * d * d + 2 * u * u * u;
    return ((5 * u - d) * d - 8 * u * u) * d + 4 * u * u * u;
}

/* part / sum in fixed point, halves away from 0. */
static int32_t divide(int64_t part, uint64_t sum)
{
    uint64_t rest = part < 0 ? 0 - (uint64_t)part : (uint64_t)part;
    int32_t quotient = rest >= sum; /* no weight is twice the sum of all */
    unsigned bit;

    if (quotient)
        rest -= sum;
    for (bit = 0; bit < PRECISION_BITS; bit++) {
        rest *= 2;
        quotient = 2 * quotient + (rest >= sum);
        if (rest >= sum)
            rest -= sum;
    }
    quotient += 2 * rest >= sum;
    return part < 0 ? -quotient : quotient;
}

/* Compute the weights of the inputs that an output is made of, the first of these, and how many there are. */
static size_t compute_weights(size_t inputs, size_t outputs, size_t output, int32_t *first, int32_t *count,
                              int32_t *weights)
{
    /* In units of 1 / (2 * outputs) inputs. */
    const int32_t step = (int32_t)(2 * outputs), unit = (int32_t)(2 * (inputs > outputs ? inputs : outputs));
    const int32_t centre = (int32_t)((2 * output + 1) * inputs), reach = 2 * unit;
    const int32_t start = centre > reach ? (centre - reach + step / 2) / step : 0;
    const int32_t before = start * step + step / 2 - centre; /* from the centre to that of the first input */
    int32_t distance, index;
    uint64_t sum = 0;

    *first = start;
    *count = 0;
    for (distance = before; distance < reach && (size_t)(start + *count) < inputs; distance += step, ++*count)
        sum += (uint64_t)weigh(distance, unit);
    for (index = 0, distance = before; index < *count; index++, distance += step)
        weights[index] = divide(weigh(distance, unit), sum);
    return (size_t)*count;
}

/* A sum of weighted values as a value. */
static uint8_t clip(int32_t sum)
{
    const int32_t rounded = sum + ((int32_t)1 << (PRECISION_BITS - 1));

    if (rounded < 0)
        return 0;
    return rounded >> PRECISION_BITS > 255 ? 255 : (uint8_t)(rounded >> PRECISION_BITS);
}

/* Resize each row of a frame, or each column if the resizing is vertical, to a number of outputs. */
static void resize(const struct camera_frame *frame, int is_vertical, size_t outputs, struct memory memory,
                   uint8_t *pixels, size_t row_bytes)
{
    const size_t inputs = is_vertical ? frame->height : frame->width;
    const size_t lines = is_vertical ? frame->width : frame->height;
    const size_t line_bytes = is_vertical ? CLASSIFIER_CHANNELS : row_bytes;
    const size_t output_bytes = is_vertical ? row_bytes : CLASSIFIER_CHANNELS;
    size_t output, line, index;
    unsigned channel;
    int32_t *next = memory.weights;

    /* Of each output the first input, how many there are, and their weights. */
    for (output = 0; output < outputs; output++)
        next += 2 + compute_weights(inputs, outputs, output, next, next + 1, next + 2);
    for (line = 0; line < lines; line++) {
        const int32_t *weights = memory.weights;

        for (index = 0; index < inputs; index++)
            for (channel = 0; channel < CLASSIFIER_CHANNELS; channel++)
                memory.values[index * CLASSIFIER_CHANNELS + channel] =
                    is_vertical ? read_value(frame, line, index, channel) : read_value(frame, index, line, channel);
        for (output = 0; output < outputs; output++) {
            const uint8_t *const values = memory.values + (size_t)weights[0] * CLASSIFIER_CHANNELS;
            const size_t count = (size_t)weights[1];

            weights += 2;
            for (channel = 0; channel < CLASSIFIER_CHANNELS; channel++) {
                int32_t sum = 0;

                for (index = 0; index < count; index++)
                    sum += weights[index] * values[index * CLASSIFIER_CHANNELS + channel];
                pixels[line * line_bytes + output * output_bytes + channel] = clip(sum);
            }
            weights += count;
        }
    }
}

/* Resize a frame to columns and rows of pixels in two passes. */
static void resize_both(const struct camera_frame *frame, size_t columns, size_t rows, int32_t *scratch, uint8_t *pixels)
{
    /* Pillow begins with the columns of a frame whose height shrinks by much more than its width (Pillow 13). */
    const int is_tall = frame->height > rows && frame->height - rows + 2 * columns > 2 * (size_t)frame->width;
    struct camera_frame strip = {NULL, 0, 0, 0, HAS_COLOUR ? CAMERA_RGB888 : CAMERA_GREY, 0};
    struct memory memory;
    uint8_t *strip_pixels;

    memory.weights = scratch;
    memory.values = (uint8_t *)(scratch + CAMERA_WEIGHT_WORDS((size_t)frame->width, (size_t)frame->height));
    strip_pixels = memory.values + CAMERA_LARGER((size_t)frame->width, (size_t)frame->height) * CLASSIFIER_CHANNELS;
    strip.bytes = strip_pixels;
    strip.width = is_tall ? frame->width : (uint16_t)columns;
    strip.height = is_tall ? (uint16_t)rows : frame->height;
    strip.row_bytes = (size_t)strip.width * CLASSIFIER_CHANNELS;
    resize(frame, is_tall, is_tall ? rows : columns, memory, strip_pixels, strip.row_bytes);
    resize(&strip, !is_tall, is_tall ? columns : rows, memory, pixels, (size_t)CLASSIFIER_WIDTH * CLASSIFIER_CHANNELS);
}

static size_t centre_within(size_t outer, size_t inner)
{
    return (size_t)round_bits(outer - inner, 1);
}

void camera_crop(struct camera_frame *frame)
{
    static const uint8_t pixel_bytes[] = {1, 3, 3, 2, 2, 2, 2};
    const uint32_t width = (uint32_t)frame->height * CLASSIFIER_WIDTH / CLASSIFIER_HEIGHT;
    const uint32_t height = (uint32_t)frame->width * CLASSIFIER_HEIGHT / CLASSIFIER_WIDTH;
    size_t left = 0, top = 0;

    if (width > 0 && width < frame->width) {
        left = (frame->width - width) / 2;
        frame->width = (uint16_t)width;
    } else if (height > 0 && height < frame->height) {
        top = (frame->height - height) / 2;
        frame->height = (uint16_t)height;
    }
    frame->bytes += top * frame->row_bytes + left * pixel_bytes[frame->format];
}

int camera_must_invert(const struct camera_frame *frame)
{
    return !HAS_COLOUR && (double_median(frame, 0) >= 256) != IS_LIGHT;
}

int camera_fit(const struct camera_frame *frame, uint8_t pixels[CLASSIFIER_PIXEL_BYTES], int32_t *scratch)
{
    const uint32_t width = frame->width, height = frame->height;
    uint32_t columns = CLASSIFIER_WIDTH, rows = CLASSIFIER_HEIGHT;
    size_t place, offset;

    if (width == 0 || height == 0 || width > CAMERA_MOST_PIXELS || height > CAMERA_MOST_PIXELS)
        return 0;
    if (width * CLASSIFIER_HEIGHT > height * CLASSIFIER_WIDTH)
        rows = scale_length(height, width, CLASSIFIER_WIDTH);
    else if (width * CLASSIFIER_HEIGHT < height * CLASSIFIER_WIDTH)
        columns = scale_length(width, height, CLASSIFIER_HEIGHT);
    columns += columns == 0; /* of a line, at least a pixel */
    rows += rows == 0;
    if (columns < CLASSIFIER_WIDTH || rows < CLASSIFIER_HEIGHT) {
        uint8_t border[CLASSIFIER_CHANNELS];
        unsigned channel;

        for (channel = 0; channel < CLASSIFIER_CHANNELS; channel++)
            border[channel] = (uint8_t)(double_median(frame, channel) / 2);
        for (place = 0; place < CLASSIFIER_PIXEL_BYTES; place++)
            pixels[place] = border[place % CLASSIFIER_CHANNELS];
    }
    offset = centre_within(CLASSIFIER_HEIGHT, rows) * CLASSIFIER_WIDTH + centre_within(CLASSIFIER_WIDTH, columns);
    resize_both(frame, columns, rows, scratch, pixels + offset * CLASSIFIER_CHANNELS);
    return 1;
}
