/* Reads images from the standard input, one after the other, and writes a probability for each class of each. */
#include "classifier.h"

#include <stdio.h>

int main(void)
{
    static CLASSIFIER_SCRATCH(scratch);
    static uint8_t pixels[CLASSIFIER_PIXEL_BYTES], probabilities[CLASSIFIER_CLASS_COUNT];

    while (fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels) {
        classifier_predict(pixels, probabilities, scratch);
        if (fwrite(probabilities, 1, sizeof probabilities, stdout) != sizeof probabilities)
            return 1;
    }
    return 0;
}
