// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * busy FILE SIZE MARK [pipe|ring|direct DISK]: map SIZE bytes of FILE, or with "-" of no file, write
 * to each of its pages, create the file MARK, and keep the mapping. Besides,
 *   pipe: have a pipe keep its first pages, by vmsplice();
 *   ring: have an io_uring keep them, as a registered buffer, and nothing else: unmap all of it;
 *   direct: write them to a disk that is so slow that this never ends.
 * x86-64 and arm64, without any library, so that a bare compiler will do.
 */

#ifdef __aarch64__
/* arm64 has openat(), pipe2() and ppoll() only. */
enum { SYS_WRITE = 64, SYS_OPENAT = 56, SYS_MMAP = 222, SYS_MUNMAP = 215, SYS_PIPE2 = 59 };
enum { SYS_EXIT = 93, SYS_VMSPLICE = 75, SYS_PPOLL = 73, DIRECT = 0200000 };
#else
enum { SYS_WRITE = 1, SYS_OPENAT = 257, SYS_MMAP = 9, SYS_MUNMAP = 11, SYS_PIPE2 = 293 };
enum { SYS_EXIT = 60, SYS_VMSPLICE = 278, SYS_PPOLL = 271, DIRECT = 040000 };
#endif
enum { SYS_IO_URING_SETUP = 425, SYS_IO_URING_REGISTER = 427, FROM_HERE = -100 };
enum { READ_WRITE = 2, CREATE = 0100, REGISTER_BUFFERS = 0, PARAMETERS = 120 };
enum { PROTECTION = 3, SHARED = 1, ANONYMOUS = 0x22, PAGE = 4096 };

/* What a pipe has room for. */
enum { KEPT = 16 * PAGE };

struct vector {
	long base, length;
};

#ifdef __aarch64__
static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
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
#endif

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

static void keep_in_pipe(long memory)
{
	struct vector kept = { memory, KEPT };
	int ends[2];

	require(call(SYS_PIPE2, (long)ends, 0, 0, 0, 0, 0));
	if (call(SYS_VMSPLICE, ends[1], (long)&kept, 1, 0, 0, 0) != KEPT)
		require(-1);
}

static void keep_in_ring(long memory, long size)
{
	struct vector kept = { memory, KEPT };
	char parameters[PARAMETERS];
	long ring;

	for (long i = 0; i < PARAMETERS; i++)
		*(volatile char *)(parameters + i) = 0;
	ring = call(SYS_IO_URING_SETUP, 4, (long)parameters, 0, 0, 0, 0);
	require(ring);
	require(call(SYS_IO_URING_REGISTER, ring, REGISTER_BUFFERS, (long)&kept, 1, 0, 0));
	require(call(SYS_MUNMAP, memory, size, 0, 0, 0, 0));
}

static void mark(const char *path)
{
	require(call(SYS_OPENAT, FROM_HERE, (long)path, READ_WRITE | CREATE, 0600, 0, 0));
}

static void write_for_ever(long memory, const char *disk, const char *path)
{
	long file = call(SYS_OPENAT, FROM_HERE, (long)disk, READ_WRITE | DIRECT, 0, 0, 0);

	require(file);
	/* A disk that is limited takes one request at once. */
	require(call(SYS_WRITE, file, memory, KEPT, 0, 0, 0));
	mark(path);
	call(SYS_WRITE, file, memory, KEPT, 0, 0, 0);
}

__attribute__((used)) static void run(long *stack)
{
	char **argv = (char **)(stack + 1);
	long argc = *stack, size = number(argv[2]), file = -1, memory, flags = ANONYMOUS;

	if (argv[1][0] != '-') {
		flags = SHARED;
		file = call(SYS_OPENAT, FROM_HERE, (long)argv[1], READ_WRITE, 0, 0, 0);
		require(file);
	}
	memory = call(SYS_MMAP, 0, size, PROTECTION, flags, file, 0);
	require(memory);
	for (long i = 0; i < size; i += PAGE)
		*(volatile char *)(memory + i) = 1;
	if (argc > 4 && argv[4][0] == 'p')
		keep_in_pipe(memory);
	if (argc > 4 && argv[4][0] == 'r')
		keep_in_ring(memory, size);
	if (argc > 5)
		write_for_ever(memory, argv[5], argv[3]);
	mark(argv[3]);
	for (;;)
		call(SYS_PPOLL, 0, 0, 0, 0, 0, 0);
}

#ifdef __aarch64__
__asm__(".globl _start\n_start: mov x0, sp\n bl run\n");
#else
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
#endif
