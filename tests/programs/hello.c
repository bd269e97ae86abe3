/* A small Linux program: says what it was given, uses brk and mmap, asks for the machine; exits with 42. */

#include "linux.h"

static int holds(volatile char *memory, unsigned long size)
{
	for (unsigned long i = 0; i < size; i += 4096)
		if (memory[i])
			return 0;
	for (unsigned long i = 0; i < size; i += 4096)
		memory[i] = (char)(i / 4096 + 1);
	for (unsigned long i = 0; i < size; i += 4096)
		if (memory[i] != (char)(i / 4096 + 1))
			return 0;
	return 1;
}

_Noreturn void start(long *stack)
{
	const unsigned long size = 256 * 1024;
	char **argv = (char **)(stack + 1);
	char count[2] = { (char)('0' + stack[0]), 0 };
	char names[6][65];

	say("hello from C: ");
	say(count);
	say(" arguments, the last is ");
	say(argv[stack[0] - 1]);
	say("\n");

	long end = call(SYS_brk, 0, 0, 0, 0, 0, 0);
	int good = call(SYS_brk, end + size, 0, 0, 0, 0, 0) == end + (long)size && holds((char *)end, size);
	/* PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS */
	long map = call(SYS_mmap, 0, size, 3, 0x22, -1, 0);
	good = good && map > 0 && holds((char *)map, size) && call(SYS_munmap, map, size, 0, 0, 0, 0) == 0;
	say(good ? "memory holds\n" : "memory is wrong\n");

	say("machine ");
	say(call(SYS_uname, (long)names, 0, 0, 0, 0, 0) == 0 ? names[4] : "unknown");
	say("\n");
	leave(42);
}
