/* One thread makes blocks, another checks and frees them, while four more churn, the process forks, and a signal's
 * handler strikes every half millisecond. With an argument the handler uses the allocator too, which not every malloc
 * allows. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 150000, RING = 1024, HELD = 16 };

static unsigned char *ring[RING];
static unsigned head, tail;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int handler_allocates;
static unsigned *held[HELD];
static unsigned ticks;

static size_t size_of(unsigned i)
{
	return 1 + i * 2654435761u % (i % 64 ? 900 : 200000);
}

/* Runs on whichever thread the signal comes to, on several at once. */
static void tick(int signal)
{
	unsigned n = __atomic_fetch_add(&ticks, 1, __ATOMIC_RELAXED), *block, words = 1 + n % 300;
	(void)signal;
	if (!handler_allocates)
		return;
	block = malloc(words * sizeof *block);
	if (!block)
		abort();
	for (unsigned i = 0; i < words; i++)
		block[i] = words;
	block = __atomic_exchange_n(&held[n % HELD], block, __ATOMIC_ACQ_REL);
	if (!block)
		return;
	for (unsigned i = 0; i < block[0]; i++)
		if (block[i] != block[0])
			abort();
	free(block);
}

static void *consumer(void *sum)
{
	for (unsigned i = 0; i < N; i++) {
		pthread_mutex_lock(&mutex);
		while (head == tail)
			pthread_cond_wait(&changed, &mutex);
		unsigned char *p = ring[tail++ % RING];
		pthread_cond_signal(&changed);
		pthread_mutex_unlock(&mutex);
		if (p[0] != (i & 255) || p[size_of(i) - 1] != (i & 255))
			abort();
		*(unsigned long *)sum += p[0];
		free(p);
	}
	return 0;
}

static void *churn(void *x)
{
	for (int i = 0; i < 2000; i++)
		free(calloc(1, 1 + i * 37 % 5000));
	return x;
}

static void others_and_a_child(void)
{
	pthread_t others[4];
	int status;
	for (int k = 0; k < 4; k++)
		pthread_create(&others[k], 0, churn, 0);
	pid_t pid = fork();
	if (!pid) {
		char *q = malloc(100000);
		memset(q, 1, 100000);
		free(q);
		_exit(7);
	}
	while (waitpid(pid, &status, 0) < 0)
		;
	if (WEXITSTATUS(status) != 7)
		abort();
	for (int k = 0; k < 4; k++)
		pthread_join(others[k], 0);
}

int main(int argc, char **argv)
{
	pthread_t other;
	unsigned long sum = 0;
	struct sigaction action = { .sa_handler = tick, .sa_flags = SA_RESTART };
	(void)argv;
	handler_allocates = argc > 1;
	sigaction(SIGALRM, &action, 0);
	ualarm(500, 500);
	pthread_create(&other, 0, consumer, &sum);
	for (unsigned i = 0; i < N; i++) {
		size_t size = size_of(i);
		unsigned char *p = malloc(size);
		p[0] = p[size - 1] = i;
		pthread_mutex_lock(&mutex);
		while (head - tail == RING)
			pthread_cond_wait(&changed, &mutex);
		ring[head++ % RING] = p;
		pthread_cond_signal(&changed);
		pthread_mutex_unlock(&mutex);
		if (i % 15000 == 0)
			others_and_a_child();
	}
	pthread_join(other, 0);
	printf("%lu\n", sum);
	return 0;
}
