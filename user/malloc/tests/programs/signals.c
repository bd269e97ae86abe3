/* A signal after every single instruction of the allocator, whose handler uses the allocator too.
 *
 * The processor's trap flag is set around each call, so SIGTRAP comes at each instruction boundary; the kernel clears
 * the flag while the handler runs. Blocks pass both ways: the handler frees what the program made and the other way
 * round. Each block is checked before it goes. Prints how many signals came and how many blocks were made inside. */
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HELD = 24 };

struct block { unsigned char *at; size_t size; unsigned char mark; };

static struct block held[HELD], gift;
static unsigned long signals, inside;
static uint32_t seed = 12345;

static void die(const char *why)
{
	fprintf(stderr, "%s\n", why);
	_Exit(1);
}

static void check(const struct block *b)
{
	for (size_t i = 0; i < b->size; i += b->size > 4096 ? 509 : 1)
		if (b->at[i] != b->mark)
			die("a block's contents changed");
	if (b->size && b->at[b->size - 1] != b->mark)
		die("a block's last byte changed");
}

static void fill(struct block *b, unsigned char mark)
{
	b->mark = mark;
	memset(b->at, mark, b->size);
}

static uint32_t next(uint32_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 17;
	*s ^= *s << 5;
	return *s;
}

/* What the handler does: a little of everything, differently each time. */
static void handler(int signal)
{
	static uint32_t own = 99;
	(void)signal;
	signals++;
	if (gift.at && next(&own) % 3 == 0) {
		check(&gift);
		free(gift.at);
		gift.at = 0;
	}
	uint32_t r = next(&own);
	struct block *b = &held[r % HELD];
	if (b->at) {
		check(b);
		if (r >> 28 == 3) {
			size_t size = 1 + (r >> 8) % 3000;
			unsigned char *at = realloc(b->at, size);
			if (!at)
				die("no memory for the handler's realloc");
			b->at = at;
			b->size = b->size < size ? b->size : size;
			check(b);
			return;
		}
		free(b->at);
		b->at = 0;
	}
	if (r >> 30 == 0)
		return;
	b->size = (r >> 8) % (r >> 27 == 31 ? 40000 : 700);
	b->at = r >> 29 == 5 ? calloc(1, b->size) : r >> 29 == 4 ? memalign(64, b->size) : malloc(b->size);
	if (!b->at)
		die("no memory for the handler");
	if (r >> 29 == 5)
		for (size_t i = 0; i < b->size; i++)
			if (b->at[i])
				die("calloc's block is not zero");
	inside += ((uintptr_t)b->at & 4095) == 16;
	fill(b, (unsigned char)(r >> 3));
}

#define STEPS(statement) do { \
	__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc"); \
	statement; \
	__asm__ volatile("pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc"); \
} while (0)

int main(int argc, char **argv)
{
	static struct block mine[64];
	int ops = argc > 1 ? atoi(argv[1]) : 60;
	struct sigaction action = { .sa_handler = handler };
	sigaction(SIGTRAP, &action, 0);
	alarm(100); /* A handler that waits for a lock waits for ever. */
	for (int i = 0; i < ops; i++) {
		uint32_t r = next(&seed);
		struct block *b = &mine[(r >> 8) % 64];
		size_t size = r % 16 == 0 ? r >> 12 & 0x3ffff : r % 4 == 0 ? r >> 12 & 0x3fff : r >> 12 & 0x3ff;
		void *at;
		if (b->at) {
			check(b);
			if (r % 7 == 0 && b->size < 1500) {
				size %= 1200;
				STEPS(at = realloc(b->at, size + 1));
				if (!at)
					die("no memory for realloc");
				b->at = at;
				b->size = b->size < size ? b->size : size;
				check(b);
				b->size = size;
				fill(b, b->mark);
				continue;
			}
			if (r % 5 == 0 && !gift.at) {
				struct block given = *b;
				b->at = 0;
				gift = given;
			} else {
				STEPS(free(b->at));
				b->at = 0;
			}
		}
		if (r % 11 == 0)
			size %= 300;
		if (r % 11 == 0)
			STEPS(at = calloc(size, 1));
		else if (r % 13 == 0)
			STEPS(at = memalign(256, size));
		else
			STEPS(at = malloc(size));
		if (!at)
			die("no memory");
		b->at = at;
		b->size = size;
		fill(b, (unsigned char)i);
		if (i % 30 == 29)
			STEPS(malloc_trim(0));
	}
	for (int i = 0; i < HELD; i++) {
		struct block taken = held[i];
		held[i].at = 0; /* or the handler would free it as well */
		if (taken.at) {
			check(&taken);
			STEPS(free(taken.at));
		}
	}
	for (int i = 0; i < 64; i++)
		if (mine[i].at) {
			check(&mine[i]);
			free(mine[i].at);
		}
	printf("%lu signals, %lu blocks made inside a call\n", signals, inside);
	return 0;
}
