/* Maps 64 MiB at a fixed place, writes to the pages of the first 48, and waits. */

#include "linux.h"

#define SYS_ppoll 73
#define SIZE (64L << 20)
#define WRITTEN (48L << 20)
#define PLACE 0x20000000L

_Noreturn void start(long *stack)
{
	(void)stack;
	volatile char *at = (volatile char *)call(SYS_mmap, PLACE, SIZE, 3, 0x32, -1, 0);

	for (long page = 0; page < WRITTEN; page += 4096)
		at[page] = 1;
	say("grown\n");
	for (;;)
		call(SYS_ppoll, 0, 0, 0, 0, 0, 0);
}
