/* Files that become part of the program. */
#pragma once

/* Declares `extern const char symbol[]`: the bytes of the file at `path`, a string literal, and a NUL. The
 * compiler does not tell the build that the object depends on the file: see stamp_command in src/meson.build.
 */
#define EMBED_FILE(symbol, path)                                                                             \
    extern const char symbol[] __attribute__((visibility("hidden")));                                        \
    __asm__(".pushsection .rodata\n"                                                                         \
            ".globl " #symbol "\n"                                                                           \
            ".hidden " #symbol "\n" #symbol ":\n"                                                            \
            ".incbin \"" path "\"\n"                                                                         \
            ".byte 0\n"                                                                                      \
            ".popsection\n")
