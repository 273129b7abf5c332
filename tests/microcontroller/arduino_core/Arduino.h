/* As much of Arduino's core as the sketches use, for the tests: the serial line is standard input and output. */
#ifndef ARDUINO_H
#define ARDUINO_H

#include <stddef.h>
#include <stdint.h>

struct SerialLine {
  void begin(unsigned long baud);
  void setTimeout(unsigned long milliseconds);
  size_t readBytes(uint8_t *bytes, size_t count);
  size_t write(uint8_t byte);
  size_t print(const char *text);
  size_t print(unsigned number);
  size_t print(unsigned long number);
  size_t println(const char *text);
};

extern SerialLine Serial;

unsigned long micros();
void delay(unsigned long milliseconds);
void setup();
void loop();

#endif
