/* Makes one system call, by any of the three ABIs, with whole 64-bit registers, and prints what came of it: the result,
 * or minus errno. Usage: syscall 64|i386|x32 NUMBER [ARGUMENT]... */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long call_64(long number, const unsigned long *arguments) {
    long result;
    register unsigned long fourth __asm__("r10") = arguments[3];
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(arguments[0]), "S"(arguments[1]), "d"(arguments[2]), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

/* A 64-bit program may do so too. */
static long call_i386(long number, const unsigned long *arguments) {
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(arguments[0]), "c"(arguments[1]), "d"(arguments[2]), "S"(arguments[3])
                     : "r8", "r9", "r10", "r11", "memory");
    return (int)result;
}

int main(int argc, char **argv) {
    unsigned long arguments[4] = {0};
    if (argc < 3)
        return 2;
    long number = strtol(argv[2], NULL, 0);
    for (int i = 3; i < argc && i < 7; i++)
        arguments[i - 3] = strtoul(argv[i], NULL, 0);
    long result = strcmp(argv[1], "i386") == 0  ? call_i386(number, arguments)
                  : strcmp(argv[1], "x32") == 0 ? call_64(number | 0x40000000, arguments)
                                                : call_64(number, arguments);
    printf("%ld\n", result);
    return 0;
}
