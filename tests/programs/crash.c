/* Dies in the way that its argument says, each time of an access that a program has no right to. */

#include "linux.h"

#define KERNEL 0xffff000000000000ul

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static int recurse(volatile int depth)
{
	volatile char frame[512];
	frame[0] = (char)depth;
	if (depth < 0)
		return 0;
	return recurse(depth + 1) + frame[0];
}

_Noreturn void start(long *stack)
{
	const char *way = stack[0] > 1 ? ((char **)(stack + 1))[1] : "";

	/* The compiler must not know that it is null: it would put a trap there instead of the access. */
	volatile unsigned long null = 0;

	if (same(way, "null"))
		*(volatile int *)null = 1;
	if (same(way, "kernel-read"))
		(void)*(volatile int *)KERNEL;
	if (same(way, "kernel-jump"))
		((void (*)(void))KERNEL)();
	if (same(way, "write-text"))
		*(volatile int *)(void *)start = 0;
	if (same(way, "recurse"))
		recurse(0);
	say("still alive\n");
	leave(0);
}
