/* What C programs may count on from each function, errno and corner cases as glibc has them. With an argument: one kind
 * of misuse, which the allocator must end the process for. */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void free_sized(void *at, size_t size);
void free_aligned_sized(void *at, size_t align, size_t size);

static int failed;

static void is_not(const char *what, int line)
{
	printf("not so: %s (line %d)\n", what, line);
	failed = 1;
}

#define IS(what) ((what) ? (void)0 : is_not(#what, __LINE__))

static volatile size_t huge = SIZE_MAX / 2;

static int misuse(const char *how)
{
	char *p = malloc(100), *q = aligned_alloc(256, 512);
	if (!strcmp(how, "free_sized"))
		free_sized(p, 200);
	else if (!strcmp(how, "free_aligned_sized"))
		free_aligned_sized(q, (size_t)1 << 46, 512);
	else if (!strcmp(how, "double"))
		free(p), free(p);
	else if (!strcmp(how, "inside"))
		free(p + 16);
	else if (!strcmp(how, "overrun"))
		p[130] = 1; /* Only a guard page notices. */
	else if (!strcmp(how, "late"))
		free(p), p[0] = 1;
	return 0;
}

int main(int argc, char **argv)
{
	void *p, *q, *none = (void *)1;
	size_t page = sysconf(_SC_PAGESIZE);
	if (argc > 1)
		return misuse(argv[1]);

	errno = 0;
	p = malloc(0), q = malloc(0);
	IS(p && q && p != q);
	free_sized(p, 0), free_sized(q, 0);
	free_sized(0, 10), free_aligned_sized(0, 16, 10), free(0);
	IS(errno == 0);

	for (size_t size = 1; size < 300000; size = size * 3 + 1) {
		free_sized(memset(malloc(size), 1, size), size);
		free_sized(memset(calloc(1, size), 1, size), size);
		free_sized(memset(realloc(malloc(7), size), 1, size), size);
		for (size_t align = 8; align <= 65536 && size * align <= 32 << 20; align *= 2) {
			p = aligned_alloc(align, size * align);
			IS(p && (uintptr_t)p % align == 0 && malloc_usable_size(p) >= size * align);
			free_aligned_sized(p, align, size * align);
			IS(posix_memalign(&p, align, size) == 0 && (uintptr_t)p % align == 0);
			free(p);
		}
	}
	IS(errno == 0);

	IS(!malloc(huge) && errno == ENOMEM), errno = 0;
	IS(!calloc(huge, 3) && errno == ENOMEM), errno = 0;
	IS(!reallocarray(0, huge, 3) && errno == ENOMEM), errno = 0;
	p = malloc(10);
	strcpy(p, "kept");
	IS(!realloc(p, huge) && errno == ENOMEM && !strcmp(p, "kept")), errno = 0;
	IS(!reallocarray(p, huge, 3) && errno == ENOMEM && !strcmp(p, "kept")), errno = 0;
	p = reallocarray(p, 100, 50);
	IS(p && !strcmp(p, "kept") && malloc_usable_size(p) >= 5000);
	IS(!realloc(p, 0) && errno == 0);
	IS(!aligned_alloc(24, 24) && errno == EINVAL), errno = 0;
	IS(posix_memalign(&none, 24, 24) == EINVAL && none == (void *)1 && errno == 0);
	IS(posix_memalign(&none, 4, 24) == EINVAL && none == (void *)1);
	IS(posix_memalign(&none, 64, huge) == ENOMEM && none == (void *)1 && errno == 0);
	p = memalign(24, 24);
	IS((uintptr_t)p % 32 == 0), free(p);
	p = valloc(10);
	IS((uintptr_t)p % page == 0), free(p);
	p = pvalloc(10);
	IS((uintptr_t)p % page == 0 && malloc_usable_size(p) >= page), free(p);
	IS(malloc_usable_size(0) == 0);

	IS(mallopt(M_MMAP_THRESHOLD, 100000) == 1 && mallopt(12345, 1) == 0);
	struct mallinfo2 before = mallinfo2();
	p = malloc(50 << 20);
	IS(mallinfo2().hblks == before.hblks + 1 || getenv("QUIRE_MALLOC_GUARD"));
	free(p);
	IS(mallinfo2().hblks == before.hblks);
	q = sbrk(0);
	IS(q != (void *)-1);
	IS(malloc_info(1, stdout) == -1 && errno == EINVAL);
	IS(malloc_trim(0) >= 0);
	if (!failed)
		printf("as it should be\n");
	return failed;
}
