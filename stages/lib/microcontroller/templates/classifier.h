/* An image classifier in C99 that needs nothing else: no library, no heap, no floating point, any byte order.
 * Generated from model_int8.tflite: change the model, not this text.
 *
 *     static CLASSIFIER_SCRATCH(scratch);
 *     uint8_t probabilities[CLASSIFIER_CLASS_COUNT];
 *     classifier_predict(pixels, probabilities, scratch);
 *     puts(classifier_class_names[classifier_find_class(probabilities)]);
 */
#ifndef CLASSIFIER_H
#define CLASSIFIER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An image: the rows one after the other, of each pixel $pixels, as a camera gives them$background. */
#define CLASSIFIER_HEIGHT $height
#define CLASSIFIER_WIDTH $width
#define CLASSIFIER_CHANNELS $channels
#define CLASSIFIER_PIXEL_BYTES $pixel_bytes

#define CLASSIFIER_CLASS_COUNT $class_count

/* UTF-8, by class. */
extern const char *const classifier_class_names[CLASSIFIER_CLASS_COUNT];

/* Memory that one call works in; it may hold anything before, and is free for other uses after. */
#define CLASSIFIER_SCRATCH_BYTES $scratch_bytes
#define CLASSIFIER_SCRATCH(name) uint8_t name[CLASSIFIER_SCRATCH_BYTES]

/* The probability of each class in 256ths, at most 255. Calls with their own memory may run at the same time. */
void classifier_predict(const uint8_t pixels[CLASSIFIER_PIXEL_BYTES], uint8_t probabilities[CLASSIFIER_CLASS_COUNT],
                        uint8_t scratch[CLASSIFIER_SCRATCH_BYTES]);

/* The class with the largest probability; of equal ones the first. */
unsigned classifier_find_class(const uint8_t probabilities[CLASSIFIER_CLASS_COUNT]);

#ifdef __cplusplus
}
#endif

#endif
