/* Changes a file on a disk that is larger than memory by a shared mapping, and by write, and looks at it again. The argument is the file. Prints what was not as
   expected, and the sum of all bytes in the end. */

#include "linux.h"

#define SYS_lseek 62
#define SYS_pread 67
#define SYS_pwrite 68
#define SYS_fsync 82
#define SYS_msync 227

#define AT_FDCWD -100
#define O_RDWR 02
#define PAGE 4096ul

static void number(const char *what, unsigned long n)
{
	char digits[24], *at = digits + sizeof digits;

	say(what);
	say(" ");
	*--at = 0;
	do
		*--at = (char)('0' + n % 10);
	while (n /= 10);
	say(at);
	say("\n");
}

_Noreturn void start(long *stack)
{
	const char *name = ((char **)(stack + 1))[1];
	long fd = call(SYS_openat, AT_FDCWD, (long)name, O_RDWR, 0, 0, 0);
	unsigned long len = (unsigned long)call(SYS_lseek, fd, 0, 2, 0, 0, 0);
	long at = call(SYS_mmap, 0, (long)len, 3, 1, fd, 0);
	unsigned char *map = (unsigned char *)at;

	if (fd < 0 || (at < 0 && at > -4096)) {
		say("not mapped\n");
		leave(1);
	}
	/* Every page by a store, and every third by a write as well. */
	for (unsigned long page = 0; page < len / PAGE; page++) {
		unsigned char byte;

		map[page * PAGE + 5] = (unsigned char)(page * 7);
		if (page % 3)
			continue;
		byte = (unsigned char)(page * 5);
		if (call(SYS_pwrite, fd, (long)&byte, 1, (long)(page * PAGE + 4000), 0, 0) != 1)
			number("not written", page);
	}
	if (call(SYS_msync, at, (long)len, 4, 0, 0, 0))
		say("not kept\n");
	for (unsigned long page = len / PAGE; page-- > 0;) {
		unsigned char byte = 0;

		call(SYS_pread, fd, (long)&byte, 1, (long)(page * PAGE + 5), 0, 0);
		if (byte != (unsigned char)(page * 7) || (page % 3 == 0 && map[page * PAGE + 4000] != (unsigned char)(page * 5)))
			number("other bytes in page", page);
	}
	unsigned long sum = 0;
	for (unsigned long i = 0; i < len; i++)
		sum += map[i];
	number("sum", sum);
	leave(0);
}
