/* Bring a camera's frame to the pixels that the classifier takes, by the rules by which the training images were brought
 * to its size: the same bytes. C99 without a library, a heap and floating point. Generated: change the model, not this.
 *
 *     static CAMERA_SCRATCH(scratch, 320, 240);
 *     static uint8_t pixels[CLASSIFIER_PIXEL_BYTES];
 *     struct camera_frame frame = {bytes, 320 * 2, 320, 240, CAMERA_RGB565_BIG, 0};
 *     camera_crop(&frame);
 *     frame.is_negative = camera_must_invert(&frame);
 *     camera_fit(&frame, pixels, scratch);
 */
#ifndef CAMERA_H
#define CAMERA_H

#include <stddef.h>

#include "classifier.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The order of a pixel's bytes in memory. The 5 or 6 bits of an RGB565 channel become 8 by repeating the highest of
 * them below the lowest, such that 31 and 63 are 255. The grey level of a colour is that of ITU-R BT.601, in the 16-bit
 * fixed point of Pillow. YUV 4:2:2 gives its luma as it is, without the chroma, to colour models as three equal
 * channels: so does a grey frame. */
enum camera_format {
    CAMERA_GREY,
    CAMERA_RGB888,
    CAMERA_BGR888,
    CAMERA_RGB565_BIG,    /* the byte with the red bits first */
    CAMERA_RGB565_LITTLE, /* the byte with the blue bits first */
    CAMERA_YUYV,          /* luma in the first byte of each pixel */
    CAMERA_UYVY           /* luma in the second byte of each pixel */
};

/* A frame, or a window in one, which may begin at any pixel, in YUV frames, too. */
struct camera_frame {
    const uint8_t *bytes; /* of the first pixel of the first row */
    size_t row_bytes;     /* from a row to the next one */
    uint16_t width, height; /* 1..CAMERA_MOST_PIXELS each */
    enum camera_format format;
    int is_negative; /* 1: take 255 less each value */
};

#define CAMERA_MOST_PIXELS 8192

/* Memory that camera_fit works in, for frames of at most this width and height. */
#define CAMERA_LARGER(one, other) ((one) > (other) ? (one) : (other))
#define CAMERA_LARGEST_SIDE CAMERA_LARGER(CLASSIFIER_WIDTH, CLASSIFIER_HEIGHT)
#define CAMERA_WEIGHT_WORDS(width, height) \
    (4 * CAMERA_LARGER(CAMERA_LARGER(width, height), CAMERA_LARGEST_SIDE) + 2 * CAMERA_LARGEST_SIDE)
#define CAMERA_STRIP_BYTES(height) \
    ((height) * CAMERA_LARGER(CLASSIFIER_WIDTH, (CLASSIFIER_HEIGHT + 1) / 2) * CLASSIFIER_CHANNELS)
#define CAMERA_SCRATCH_WORDS(width, height) \
    (CAMERA_WEIGHT_WORDS(width, height) + \
     (CAMERA_LARGER(width, height) * CLASSIFIER_CHANNELS + CAMERA_STRIP_BYTES(height) + 3) / 4)
#define CAMERA_SCRATCH(name, width, height) int32_t name[CAMERA_SCRATCH_WORDS(width, height)]

/* Make a frame the largest window at its centre that has the proportions of the classifier's image. */
void camera_crop(struct camera_frame *frame);

/* Whether the frame, which is not negative yet, has another background than the training images, told by the median grey
 * level of its border: light where they are dark, or the reverse. Always 0 for colour models. Where the light in front
 * of the camera varies, rather set is_negative yourself: $advice. */
int camera_must_invert(const struct camera_frame *frame);

/* Resize a frame to the classifier's image. Its proportions are kept: what is left of the image gets the median value of
 * the frame's border. Returns 1, or 0 if the width or the height is out of range. */
int camera_fit(const struct camera_frame *frame, uint8_t pixels[CLASSIFIER_PIXEL_BYTES], int32_t *scratch);

#ifdef __cplusplus
}
#endif

#endif
