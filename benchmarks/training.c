/* The pipeline's training in plain C, one thread: what a processor does without any framework.
 *
 *     training FOLDER EPOCHS
 *
 * Reads from FOLDER: train_images.npy, test_images.npy (float32), train_labels.npy, test_labels.npy (uint8),
 * weights.npy (float32: kernel and bias of each layer in turn), orders.npy (int32: the order of images in each epoch).
 * Prints one line of JSON: seconds, the processor's seconds and mean loss of each epoch, and the test accuracy at the end.
 *
 * The compiler is told INPUTS, HIDDEN, CLASSES, TRAIN_ROWS, TEST_ROWS and BATCH.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* All weights, and likewise their gradients and adam's two moments, as one array of floats. */
typedef struct {
    float kernel1[INPUTS][HIDDEN], bias1[HIDDEN], kernel2[HIDDEN][CLASSES], bias2[CLASSES];
} Network;
enum { WEIGHTS = sizeof(Network) / sizeof(float) };

static Network network, gradient, momentum, velocity;
static float batch[BATCH][INPUTS], hidden[BATCH][HIDDEN], output[BATCH][CLASSES];

/* The array in a .npy file of version 1.0, whose header's length is told at byte 8. */
static void *read_array(const char *folder, const char *name, size_t bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    FILE *file = fopen(path, "rb");
    void *array = malloc(bytes);
    unsigned char start[10];
    if (!file || !array || fread(start, 1, 10, file) != 10 || fseek(file, start[8] + 256 * start[9], SEEK_CUR) ||
        fread(array, 1, bytes, file) != bytes) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    fclose(file);
    return array;
}

static double read_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* Fill `hidden` and, with logits, `output` from the first `rows` of `batch`. */
static void run_forward(int rows) {
    for (int row = 0; row < rows; row++) {
        float sums[HIDDEN];
        memcpy(sums, network.bias1, sizeof sums);
        for (int input = 0; input < INPUTS; input++)
            for (int unit = 0; unit < HIDDEN; unit++) sums[unit] += batch[row][input] * network.kernel1[input][unit];
        for (int unit = 0; unit < HIDDEN; unit++) hidden[row][unit] = sums[unit] > 0 ? sums[unit] : 0;
        memcpy(output[row], network.bias2, sizeof output[row]);
        for (int unit = 0; unit < HIDDEN; unit++)
            for (int class = 0; class < CLASSES; class++)
                output[row][class] += hidden[row][unit] * network.kernel2[unit][class];
    }
}

/* The row's cross-entropy; its logits become the gradient of the batch's mean loss. */
static float take_loss(int row, int label, int rows) {
    float *values = output[row], largest = values[0], sum = 0;
    for (int class = 1; class < CLASSES; class++) largest = values[class] > largest ? values[class] : largest;
    float loss = largest - values[label];
    for (int class = 0; class < CLASSES; class++) sum += values[class] = expf(values[class] - largest);
    for (int class = 0; class < CLASSES; class++) values[class] = (values[class] / sum - (class == label)) / rows;
    return loss + logf(sum);
}

/* Fill `gradient`; `hidden` becomes the gradient before its relu. */
static void run_backward(int rows) {
    memset(&gradient, 0, sizeof gradient);
    for (int row = 0; row < rows; row++) {
        for (int class = 0; class < CLASSES; class++) gradient.bias2[class] += output[row][class];
        for (int unit = 0; unit < HIDDEN; unit++) {
            float sum = 0;
            for (int class = 0; class < CLASSES; class++) {
                gradient.kernel2[unit][class] += hidden[row][unit] * output[row][class];
                sum += network.kernel2[unit][class] * output[row][class];
            }
            hidden[row][unit] = hidden[row][unit] > 0 ? sum : 0;
            gradient.bias1[unit] += hidden[row][unit];
        }
    }
    for (int input = 0; input < INPUTS; input++) {
        float sums[HIDDEN] = {0};
        for (int row = 0; row < rows; row++)
            for (int unit = 0; unit < HIDDEN; unit++) sums[unit] += batch[row][input] * hidden[row][unit];
        memcpy(gradient.kernel1[input], sums, sizeof sums);
    }
}

/* Adam as Keras has it: https://arxiv.org/abs/1412.6980, the last line of section 2, with epsilon 1e-7. */
static void update(int step) {
    float *w = (float *)&network, *g = (float *)&gradient, *m = (float *)&momentum, *v = (float *)&velocity;
    float rate = 1e-3 * sqrt(1 - pow(0.999, step)) / (1 - pow(0.9, step));
    for (int i = 0; i < WEIGHTS; i++) {
        m[i] += (g[i] - m[i]) * (1 - 0.9f);
        v[i] += (g[i] * g[i] - v[i]) * (1 - 0.999f);
        w[i] -= m[i] * rate / (sqrtf(v[i]) + 1e-7f);
    }
}

static int find_class(const float *values) {
    int best = 0;
    for (int class = 1; class < CLASSES; class++) best = values[class] > values[best] ? class : best;
    return best;
}

static void print_list(const char *name, const double *values, int count) {
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++) printf("%s%.9g", i ? ", " : "", values[i]);
    printf("], ");
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    const char *folder = arguments[1];
    int epochs = atoi(arguments[2]), step = 0;
    const float *images = read_array(folder, "train_images", sizeof(float) * INPUTS * TRAIN_ROWS);
    const uint8_t *labels = read_array(folder, "train_labels", TRAIN_ROWS);
    const int32_t *order = read_array(folder, "orders", sizeof(int32_t) * TRAIN_ROWS * epochs);
    memcpy(&network, read_array(folder, "weights", sizeof network), sizeof network);
    double seconds[epochs], processor_seconds[epochs], losses[epochs];
    volatile long right_while_learning = 0; /* of no use, but the others count it, too */

    for (int epoch = 0; epoch < epochs; epoch++, order += TRAIN_ROWS) {
        double start_time = read_clock(CLOCK_MONOTONIC), loss = 0;
        double processor_start = read_clock(CLOCK_PROCESS_CPUTIME_ID);
        for (int start = 0; start < TRAIN_ROWS; start += BATCH) {
            int rows = TRAIN_ROWS - start < BATCH ? TRAIN_ROWS - start : BATCH;
            for (int row = 0; row < rows; row++)
                memcpy(batch[row], images + (size_t)INPUTS * order[start + row], sizeof batch[row]);
            run_forward(rows);
            for (int row = 0; row < rows; row++) {
                right_while_learning += find_class(output[row]) == labels[order[start + row]];
                loss += take_loss(row, labels[order[start + row]], rows);
            }
            run_backward(rows);
            update(++step);
        }
        seconds[epoch] = read_clock(CLOCK_MONOTONIC) - start_time;
        processor_seconds[epoch] = read_clock(CLOCK_PROCESS_CPUTIME_ID) - processor_start;
        losses[epoch] = loss / TRAIN_ROWS;
    }

    const float *test_images = read_array(folder, "test_images", sizeof(float) * INPUTS * TEST_ROWS);
    const uint8_t *test_labels = read_array(folder, "test_labels", TEST_ROWS);
    int right = 0;
    for (int row = 0; row < TEST_ROWS; row++) {
        memcpy(batch[0], test_images + (size_t)INPUTS * row, sizeof batch[0]);
        run_forward(1);
        right += find_class(output[0]) == test_labels[row];
    }
    printf("{");
    print_list("seconds", seconds, epochs);
    print_list("processor_seconds", processor_seconds, epochs);
    print_list("losses", losses, epochs);
    printf("\"accuracy\": %.9g}\n", right / (double)TEST_ROWS);
    return 0;
}
