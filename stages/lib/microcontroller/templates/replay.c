/* Generated: see replay.h. */
#include "replay.h"

#include <stddef.h>

#define START 0xA5
#define CRC_BYTES 2

static uint16_t add_to_crc(uint16_t crc, uint8_t byte)
{
    unsigned bit;

    crc = (uint16_t)(crc ^ (uint16_t)byte << 8);
    for (bit = 0; bit < 8; bit++)
        crc = (uint16_t)(crc & 0x8000 ? (unsigned)crc << 1 ^ 0x1021u : (unsigned)crc << 1);
    return crc;
}

int replay_answer(int (*read_byte)(void), void (*write_byte)(uint8_t byte))
{
    static CLASSIFIER_SCRATCH(scratch);
    static uint8_t request[1 + CLASSIFIER_PIXEL_BYTES + CRC_BYTES];
    uint8_t probabilities[CLASSIFIER_CLASS_COUNT];
    uint16_t crc = 0xFFFF;
    size_t index;
    int byte;

    do {
        byte = read_byte();
        if (byte < 0)
            return 0;
    } while (byte != START);
    for (index = 0; index < sizeof request; index++) {
        byte = read_byte();
        if (byte < 0)
            return 0;
        request[index] = (uint8_t)byte;
        crc = add_to_crc(crc, request[index]);
    }
    if (crc != 0) /* as it is behind all bytes and their own CRC */
        return 0;
    classifier_predict(request + 1, probabilities, scratch);
    write_byte(START);
    write_byte(request[0]);
    crc = add_to_crc(0xFFFF, request[0]);
    for (index = 0; index < CLASSIFIER_CLASS_COUNT; index++) {
        write_byte(probabilities[index]);
        crc = add_to_crc(crc, probabilities[index]);
    }
    write_byte((uint8_t)(crc >> 8));
    write_byte((uint8_t)(crc & 255));
    return 1;
}
