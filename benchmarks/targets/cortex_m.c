/* Answers images on an emulated Cortex-M without any library, and measures what an answer costs.
 *
 * It reads the file `images` of the computer that emulates it, one image after the other, and writes their answers to
 * `answers`. `costs` gets numbers of 4 bytes, the lowest first: the ticks of CALIBRATION_LOOPS loops of two
 * instructions, then for each image the ticks of classifier_predict and the bytes of stack that it took.
 *
 * Sources: semihosting, Arm's specification in the repository ARM-software/abi-aa; SysTick, B3.3 of the ARMv7-M
 * Architecture Reference Manual.
 */
#include "classifier.h"

#define CALIBRATION_LOOPS 1000000
#define PAINT 0xa5a5a5a5u

enum { OPEN = 0x01, WRITE = 0x05, READ = 0x06, EXIT = 0x20 };
enum { MODE_READ = 1, MODE_WRITE = 5 };
#define APPLICATION_EXIT 0x20026u

static volatile uint32_t *const systick = (volatile uint32_t *)0xe000e010; /* control, reload, current value */
#define SYSTICK_MASK 0xffffffu

extern uint32_t data_source[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];

static uint32_t call_host(uint32_t operation, const void *arguments)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;

    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void stop(uint32_t exit_code)
{
    const uint32_t arguments[] = {APPLICATION_EXIT, exit_code};

    for (;;)
        call_host(EXIT, arguments);
}

static uint32_t open_file(const char *name, uint32_t length, uint32_t mode)
{
    const uint32_t arguments[] = {(uint32_t)name, mode, length};
    const uint32_t file = call_host(OPEN, arguments);

    if (file == UINT32_MAX)
        stop(2);
    return file;
}

/* How many bytes are left that were neither read nor written. */
static uint32_t transfer(uint32_t operation, uint32_t file, const void *bytes, uint32_t length)
{
    const uint32_t arguments[] = {file, (uint32_t)bytes, length};

    return call_host(operation, arguments);
}

static uint32_t calibrate(void)
{
    uint32_t loops = CALIBRATION_LOOPS;
    const uint32_t start = systick[2];

    __asm__ volatile(".syntax unified\n1: subs %0, #1\n bne 1b" : "+l"(loops) : : "cc");
    return (start - systick[2]) & SYSTICK_MASK;
}

/* The ticks of an answer, and the bytes of stack: those below which what was painted is left. */
static void measure_call(const uint8_t *pixels, uint8_t *probabilities, uint8_t *scratch, uint32_t costs[2])
{
    volatile uint32_t *word, *top;
    uint32_t start;

    __asm__ volatile("mov %0, sp" : "=r"(top));
    for (word = bss_end; word < top; word++)
        *word = PAINT;
    start = systick[2];
    classifier_predict(pixels, probabilities, scratch);
    costs[0] = (start - systick[2]) & SYSTICK_MASK;
    for (word = bss_end; word < top && *word == PAINT; word++)
        ;
    costs[1] = (uint32_t)(top - word) * sizeof *word;
}

void _start(void)
{
    static CLASSIFIER_SCRATCH(scratch);
    static uint8_t pixels[CLASSIFIER_PIXEL_BYTES], probabilities[CLASSIFIER_CLASS_COUNT];
    volatile uint32_t *word;
    uint32_t images, answers, costs_file, costs[2];

    for (word = data_start; word < data_end; word++)
        *word = data_source[word - data_start];
    for (word = bss_start; word < bss_end; word++)
        *word = 0;
    systick[1] = SYSTICK_MASK;
    systick[2] = 0;
    systick[0] = 5; /* counts the processor's clock, without interrupts */
    images = open_file("images", 6, MODE_READ);
    answers = open_file("answers", 7, MODE_WRITE);
    costs_file = open_file("costs", 5, MODE_WRITE);
    costs[0] = calibrate();
    if (transfer(WRITE, costs_file, costs, sizeof costs[0]))
        stop(3);
    while (transfer(READ, images, pixels, sizeof pixels) == 0) {
        measure_call(pixels, probabilities, scratch, costs);
        if (transfer(WRITE, answers, probabilities, sizeof probabilities) ||
            transfer(WRITE, costs_file, costs, sizeof costs))
            stop(3);
    }
    stop(0);
}

static void fail(void)
{
    stop(1);
}

/* The stack, the start, and what follows a fault: NMI, hard fault, and of an ARMv7-M memory, bus and usage fault. */
__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    stack_top, (const void *)_start, (const void *)fail, (const void *)fail,
    (const void *)fail, (const void *)fail, (const void *)fail,
};
