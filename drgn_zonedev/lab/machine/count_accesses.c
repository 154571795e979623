// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A plugin for QEMU's TCG: what a guest executes between the two no-ops of guest/zonedev_cost.c.
 *
 *   gcc -shared -fPIC -O2 -o count_accesses.so count_accesses.c
 *   qemu-system-x86_64 -plugin count_accesses.so,records=RECORDS ...
 *
 * RECORDS gets a struct record for each time that both were executed. The accesses to the stack are
 * counted apart: a call's return address and saved registers are no reads of the kernel's structures.
 *
 * The declarations are those of version 1 of the interface, in qemu-plugin.h of QEMU 4.2 to 9.0. That
 * file is in no package of Debian 12.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
typedef void (*tb_callback)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*insn_callback)(unsigned int cpu, void *data);
typedef void (*mem_callback)(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data);
typedef void (*exit_callback)(qemu_plugin_id_t id, void *data);
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_RW = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_callback callback);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, insn_callback callback,
					    enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, mem_callback callback,
				      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw,
				      void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, exit_callback callback, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);

EXPORT int qemu_plugin_version = 1;

/* The same numbers are in drgn_zonedev/lab/targets/executed.py. */
struct record {
	uint32_t instructions;
	uint32_t loads;
	uint32_t stores;
	uint32_t lines;
	uint32_t stack_loads;
	uint32_t stack_stores;
};

#define LINE 64
#define STACK 16384
#define MOST_LINES 256

static const unsigned char begin_mark[] = { 0x0f, 0x1f, 0x80, 0x01, 0x6e, 0x6f, 0x7a };
static const unsigned char end_mark[] = { 0x0f, 0x1f, 0x80, 0x02, 0x6e, 0x6f, 0x7a };

static FILE *records;
static bool counting;
static struct record now;
static uint64_t lines[MOST_LINES];
static uint64_t stack;

static void begin(unsigned int cpu, void *data)
{
	memset(&now, 0, sizeof(now));
	stack = 0;
	counting = true;
}

static void end(unsigned int cpu, void *data)
{
	counting = false;
	fwrite(&now, sizeof(now), 1, records);
}

static void executed(unsigned int cpu, void *data)
{
	now.instructions += counting;
}

static void note_line(uint64_t line)
{
	uint32_t i;

	for (i = 0; i < now.lines && i < MOST_LINES; i++)
		if (lines[i] == line)
			return;
	if (now.lines < MOST_LINES)
		lines[now.lines] = line;
	now.lines++;
}

static void accessed(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	bool store = qemu_plugin_mem_is_store(info);

	if (!counting)
		return;
	/* The call of what is measured comes first: it stores where it returns to. */
	if (!stack)
		stack = address / STACK;
	if (address / STACK == stack) {
		now.stack_loads += !store;
		now.stack_stores += store;
		return;
	}
	now.loads += !store;
	now.stores += store;
	note_line(address / LINE);
}

static bool is(const struct qemu_plugin_insn *insn, const unsigned char *mark)
{
	return qemu_plugin_insn_size(insn) == sizeof(begin_mark) &&
	       !memcmp(qemu_plugin_insn_data(insn), mark, sizeof(begin_mark));
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t i, count = qemu_plugin_tb_n_insns(tb);

	for (i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		insn_callback callback = is(insn, begin_mark) ? begin : is(insn, end_mark) ? end : executed;

		qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, QEMU_PLUGIN_CB_NO_REGS, NULL);
		qemu_plugin_register_vcpu_mem_cb(insn, accessed, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_RW, NULL);
	}
}

static void finish(qemu_plugin_id_t id, void *data)
{
	fclose(records);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "records=", 8) ||
	    !(records = fopen(argv[0] + 8, "wb")))
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}
