/* What programs do with files on a disk beside reading and writing: each line says what was done, or by which error it failed. The first argument is
   a file that does not exist yet. */

#include "linux.h"

#define SYS_unlinkat 35
#define SYS_ftruncate 46
#define SYS_fallocate 47
#define SYS_lseek 62
#define SYS_pread 67
#define SYS_pwrite 68
#define SYS_fsync 82
#define SYS_fdatasync 83
#define SYS_msync 227
#define SYS_syncfs 267

#define AT_FDCWD -100
#define O_RDWR 02
#define O_CREAT 0100
#define O_APPEND 02000
#define O_SYNC 04010000

static void line(const char *what, long result)
{
	char digits[24], *at = digits + sizeof digits;
	long rest = result < 0 ? -result : result;

	say(what);
	say(" ");
	*--at = 0;
	do
		*--at = (char)('0' + rest % 10);
	while (rest /= 10);
	if (result < 0)
		*--at = '-';
	say(at);
	say("\n");
}

_Noreturn void start(long *stack)
{
	const char *name = ((char **)(stack + 1))[1];
	static char text[10000];
	long fd = call(SYS_openat, AT_FDCWD, (long)name, O_RDWR | O_CREAT, 0644, 0, 0);

	for (unsigned long i = 0; i < sizeof text; i++)
		text[i] = (char)('a' + i % 23);
	line("write", call(SYS_write, fd, (long)text, sizeof text, 0, 0, 0));
	line("end", call(SYS_lseek, fd, 0, 2, 0, 0, 0));

	/* A private mapping has what the file has, and what is written to it is nobody else's. */
	char *map = (char *)call(SYS_mmap, 0, 3 * 4096, 3, 2, fd, 0);
	int same = 1;
	for (unsigned long i = 0; i < sizeof text; i++)
		same &= map[i] == text[i];
	line("mapped", same);
	line("zeros behind it", map[sizeof text] == 0 && map[3 * 4096 - 1] == 0);
	map[5000] = 'X';
	char byte = 0;
	call(SYS_pread, fd, (long)&byte, 1, 5000, 0, 0);
	line("private", byte == text[5000]);
	char *second = (char *)call(SYS_mmap, 0, 4096, 1, 2, fd, 4096);
	line("second page", second[0] == text[4096] && second[904] == text[5000]);
	/* A shared one has the bytes that read and write have. */
	char *shared = (char *)call(SYS_mmap, 0, 3 * 4096, 3, 1, fd, 0);
	shared[6000] = 'Z';
	call(SYS_pread, fd, (long)&byte, 1, 6000, 0, 0);
	line("shared", byte == 'Z');
	call(SYS_pwrite, fd, (long)"Y", 1, 6001, 0, 0);
	line("shared", shared[6001] == 'Y');
	line("msync", call(SYS_msync, (long)shared, 3 * 4096, 4, 0, 0, 0));

	line("allocate", call(SYS_fallocate, fd, 0, 0, 20000, 0, 0));
	line("cut", call(SYS_ftruncate, fd, 5, 0, 0, 0, 0));
	line("end", call(SYS_lseek, fd, 0, 2, 0, 0, 0));
	line("far", call(SYS_pwrite, fd, (long)"x", 1, 1L << 32, 0, 0));

	long other = call(SYS_openat, AT_FDCWD, (long)name, O_RDWR | O_APPEND | O_SYNC, 0, 0, 0);
	line("append", call(SYS_write, other, (long)"one", 3, 0, 0, 0));
	line("append", call(SYS_write, other, (long)"two", 3, 0, 0, 0));
	line("at", call(SYS_lseek, other, 0, 1, 0, 0, 0));
	line("read", call(SYS_pread, fd, (long)text, sizeof text, 0, 0, 0));
	text[11] = 0;
	say(text);
	say("\n");
	line("fsync", call(SYS_fsync, fd, 0, 0, 0, 0, 0));
	line("fdatasync", call(SYS_fdatasync, fd, 0, 0, 0, 0, 0));
	line("syncfs", call(SYS_syncfs, fd, 0, 0, 0, 0, 0));

	line("unlink", call(SYS_unlinkat, AT_FDCWD, (long)name, 0, 0, 0, 0));
	line("removed", call(SYS_pread, fd, (long)text, 1, 0, 0, 0));
	line("removed", call(SYS_pwrite, fd, (long)text, 1, 0, 0, 0));
	line("gone", call(SYS_openat, AT_FDCWD, (long)name, O_RDWR, 0, 0, 0));
	/* Another one of that name is another file. */
	long third = call(SYS_openat, AT_FDCWD, (long)name, O_RDWR | O_CREAT, 0644, 0, 0);
	call(SYS_write, third, (long)"new", 3, 0, 0, 0);
	line("replaced", call(SYS_lseek, third, 0, 2, 0, 0, 0));
	leave(0);
}
