/* Checks the golden vectors: prints how many bytes differ, and ends with 1 if any does. Generated from the model. */
#include "classifier.h"
#include "golden.h"

#include <stdio.h>

int main(void)
{
    static CLASSIFIER_SCRATCH(scratch);
    uint8_t probabilities[CLASSIFIER_CLASS_COUNT];
    unsigned image, id, different = 0;

    for (image = 0; image < GOLDEN_IMAGE_COUNT; image++) {
        classifier_predict(golden_images[image][0], probabilities, scratch);
        for (id = 0; id < CLASSIFIER_CLASS_COUNT; id++)
            different += probabilities[id] != golden_answers[image][id];
        printf("image %u: %s\n", image, classifier_class_names[classifier_find_class(probabilities)]);
    }
    printf("%u of %u bytes differ\n", different, (unsigned)sizeof golden_answers);
    return different > 0;
}
