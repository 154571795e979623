// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * busy FILE SIZE MARK: map SIZE bytes of FILE, or with "-" of no file, write to each of its pages,
 * create the file MARK, and keep the mapping. x86-64 without any library, so that a bare compiler
 * will do.
 */

enum { SYS_OPEN = 2, SYS_MMAP = 9, SYS_PAUSE = 34, SYS_EXIT = 60 };
enum { READ_WRITE = 2, CREATE = 0100, PROTECTION = 3, SHARED = 1, ANONYMOUS = 0x22, PAGE = 4096 };

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static long number(const char *text)
{
	long value = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + *text - '0';
	return value;
}

static void require(long result)
{
	if (result < 0)
		call(SYS_EXIT, 1, 0, 0, 0, 0, 0);
}

__attribute__((used)) static void run(long *stack)
{
	char **argv = (char **)(stack + 1);
	long size = number(argv[2]), file = -1, memory, flags = ANONYMOUS;

	if (argv[1][0] != '-') {
		flags = SHARED;
		file = call(SYS_OPEN, (long)argv[1], READ_WRITE, 0, 0, 0, 0);
		require(file);
	}
	memory = call(SYS_MMAP, 0, size, PROTECTION, flags, file, 0);
	require(memory);
	for (long i = 0; i < size; i += PAGE)
		*(volatile char *)(memory + i) = 1;
	require(call(SYS_OPEN, (long)argv[3], READ_WRITE | CREATE, 0600, 0, 0, 0));
	for (;;)
		call(SYS_PAUSE, 0, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
