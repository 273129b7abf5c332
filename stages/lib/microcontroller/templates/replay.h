/* Answer the images that `pipeline replay` sends over a serial line. Generated: change the model, not this text.
 *
 *     while (1)
 *         replay_answer(read_byte, write_byte);
 *
 * A request is the byte 0xA5, a number, the pixels of an image and a CRC; the answer is 0xA5, the same number, the
 * probabilities and a CRC. The CRC is of all between, the higher byte first: 16 bits, polynomial 0x1021, initially
 * 0xFFFF. A request with another CRC is not answered: the computer sends it again.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include "classifier.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Wait for a request and answer it; 1 if it was answered. Not re-entrant: the memory that it works in is static.
 * read_byte gives the next byte 0..255, or -1 if none has come for about a second, so that a lost byte ends a request. */
int replay_answer(int (*read_byte)(void), void (*write_byte)(uint8_t byte));

#ifdef __cplusplus
}
#endif

#endif
