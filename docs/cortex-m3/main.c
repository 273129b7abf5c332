/* Checks the golden vectors and tells the debugger or QEMU how many bytes differ; ends with 1 if any does.
 *
 * Source of the calls to the debugger: https://github.com/ARM-software/abi-aa/blob/main/semihosting/semihosting.rst
 */
#include "classifier.h"
#include "golden.h"

#define WRITE_TEXT 0x04
#define EXIT 0x20
#define APPLICATION_EXIT 0x20026u

extern uint32_t stack_top, data_load, data_start, data_end, bss_start, bss_end; /* of memory.ld */
void reset(void);

/* The first two words of the flash: the end of the stack, and where the processor begins. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*reset)(void);
} vectors = {&stack_top, reset};

static void call_debugger(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;

    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void write_number(unsigned number)
{
    char digits[11];
    char *first = digits + sizeof digits - 1;

    *first = '\0';
    do
        *--first = (char)('0' + number % 10);
    while (number /= 10);
    call_debugger(WRITE_TEXT, first);
}

static unsigned count_different_bytes(void)
{
    static CLASSIFIER_SCRATCH(scratch);
    uint8_t probabilities[CLASSIFIER_CLASS_COUNT];
    unsigned image, id, different = 0;

    for (image = 0; image < GOLDEN_IMAGE_COUNT; image++) {
        classifier_predict(golden_images[image][0], probabilities, scratch);
        for (id = 0; id < CLASSIFIER_CLASS_COUNT; id++)
            different += probabilities[id] != golden_answers[image][id];
    }
    return different;
}

void reset(void)
{
    const uint32_t *from = &data_load;
    uint32_t *to, result[2] = {APPLICATION_EXIT, 0};
    unsigned different;

    for (to = &data_start; to < &data_end; to++)
        *to = *from++;
    for (to = &bss_start; to < &bss_end; to++)
        *to = 0;
    different = count_different_bytes();
    write_number(different);
    call_debugger(WRITE_TEXT, " of ");
    write_number(sizeof golden_answers);
    call_debugger(WRITE_TEXT, " bytes differ\n");
    result[1] = different > 0;
    call_debugger(EXIT, result);
    for (;;)
        ;
}
