/* Raw AArch64 Linux system calls, for programs without a C library. */

#define SYS_openat 56
#define SYS_read 63
#define SYS_write 64
#define SYS_exit_group 94
#define SYS_uname 160
#define SYS_brk 214
#define SYS_munmap 215
#define SYS_mmap 222

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
	return x0;
}

static __attribute__((unused)) unsigned long length(const char *text)
{
	unsigned long n = 0;
	while (text[n])
		n++;
	return n;
}

static __attribute__((unused)) void say(const char *text)
{
	call(SYS_write, 1, (long)text, length(text), 0, 0, 0);
}

static __attribute__((unused)) _Noreturn void leave(int status)
{
	for (;;)
		call(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

/* The stack at entry holds argc, then argv. */
_Noreturn void start(long *stack);
__asm__(".global _start\n_start: mov x29, #0\nmov x30, #0\nmov x0, sp\nb start\n");
