// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * kexec_load KERNEL INITRAMFS COMMAND_LINE: have the running kernel boot another one when it
 * panics (kexec_file_load()). x86-64 without any library, so that a bare compiler will do.
 */

enum { SYS_OPEN = 2, SYS_EXIT = 60, SYS_KEXEC_FILE_LOAD = 320 };
enum { READ_ONLY = 0, ON_CRASH = 2 };

static long call(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

static long require(long result)
{
	if (result < 0)
		call(SYS_EXIT, -result, 0, 0, 0, 0);
	return result;
}

__attribute__((used)) static void run(long *stack)
{
	char **argv = (char **)(stack + 1);
	long kernel, initramfs, length = 0;

	kernel = require(call(SYS_OPEN, (long)argv[1], READ_ONLY, 0, 0, 0));
	initramfs = require(call(SYS_OPEN, (long)argv[2], READ_ONLY, 0, 0, 0));
	/* The length counts the terminator. */
	while (argv[3][length++])
		;
	require(call(SYS_KEXEC_FILE_LOAD, kernel, initramfs, length, (long)argv[3], ON_CRASH));
	call(SYS_EXIT, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
