// Answers the images that `pipeline replay` sends over the serial line, at 115200 baud.
#include <replay.h>

static int readByte() {
  uint8_t byte;
  return Serial.readBytes(&byte, 1) == 1 ? byte : -1;
}

static void writeByte(uint8_t byte) {
  Serial.write(byte);
}

void setup() {
  Serial.begin(115200);
  Serial.setTimeout(1000);
}

void loop() {
  replay_answer(readByte, writeByte);
}
