// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * nd_labels DEVICE COMMAND: have an NVDIMM write into its label area. COMMAND is a file that holds
 * a whole struct nd_cmd_set_config_hdr. Without any library, like kexec_load.c.
 */

#include <linux/ioctl.h>
#include <linux/ndctl.h>

enum { SYS_READ = 0, SYS_OPEN = 2, SYS_IOCTL = 16, SYS_EXIT = 60 };
enum { READ_ONLY = 0, READ_WRITE = 2 };

static char command[4096];

static long call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	if (result < 0 && number != SYS_EXIT)
		call(SYS_EXIT, -result, 0, 0);
	return result;
}

__attribute__((used)) static void run(long *stack)
{
	char **argv = (char **)(stack + 1);
	long device = call(SYS_OPEN, (long)argv[1], READ_WRITE, 0);
	long file = call(SYS_OPEN, (long)argv[2], READ_ONLY, 0);

	call(SYS_READ, file, (long)command, sizeof(command));
	call(SYS_IOCTL, device, ND_IOCTL_SET_CONFIG_DATA, (long)command);
	call(SYS_EXIT, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
