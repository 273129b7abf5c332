// Checks the golden vectors on the board and prints its answers: open the serial monitor at 115200 baud.
#include <classifier.h>
#include <golden.h>

static CLASSIFIER_SCRATCH(scratch);

void setup() {
  Serial.begin(115200);
}

void loop() {
  unsigned different = 0;
  for (unsigned image = 0; image < GOLDEN_IMAGE_COUNT; image++) {
    uint8_t probabilities[CLASSIFIER_CLASS_COUNT];
    const unsigned long start = micros();
    classifier_predict(golden_images[image][0], probabilities, scratch);
    const unsigned long duration = micros() - start;
    for (unsigned id = 0; id < CLASSIFIER_CLASS_COUNT; id++) {
      different += probabilities[id] != golden_answers[image][id];
    }
    Serial.print("image ");
    Serial.print(image);
    Serial.print(": ");
    Serial.print(classifier_class_names[classifier_find_class(probabilities)]);
    Serial.print(" in ");
    Serial.print(duration);
    Serial.println(" microseconds");
  }
  Serial.print(different);
  Serial.print(" of ");
  Serial.print((unsigned)sizeof golden_answers);
  Serial.println(" bytes differ");
  delay(5000);
}
