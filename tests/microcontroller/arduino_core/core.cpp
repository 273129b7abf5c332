#include "Arduino.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

SerialLine Serial;
static int timeout = 1000;

void SerialLine::begin(unsigned long) {}

void SerialLine::setTimeout(unsigned long milliseconds) { timeout = (int)milliseconds; }

size_t SerialLine::readBytes(uint8_t *bytes, size_t count) {
  size_t done = 0;
  struct pollfd input = {0, POLLIN, 0};
  while (done < count && poll(&input, 1, timeout) > 0) {
    if (read(0, bytes + done, 1) != 1) {
      exit(0);  // the other end is gone
    }
    done++;
  }
  return done;
}

size_t SerialLine::write(uint8_t byte) { return ::write(1, &byte, 1) == 1; }

size_t SerialLine::print(const char *text) { return (size_t)printf("%s", text); }
size_t SerialLine::print(unsigned number) { return (size_t)printf("%u", number); }
size_t SerialLine::print(unsigned long number) { return (size_t)printf("%lu", number); }
size_t SerialLine::println(const char *text) { return (size_t)printf("%s\n", text); }

unsigned long micros() { return 0; }

/* A sketch waits where it has done all that a test is for. */
void delay(unsigned long) {
  fflush(stdout);
  exit(0);
}

int main() {
  setup();
  for (;;) {
    loop();
  }
}
