#!/bin/bash
# Real programs under the preloaded library: each runs twice, with libc's malloc and with ours, and must say the same.
# Usage: host.sh LIBRARY [ROUNDS]. With ROUNDS, times that many pairs of runs and prints the ratios' median too.
# What is not installed is skipped with a message. Ends with "N passed, N failed".
set -u
library=$(realpath "${1:?usage: host.sh LIBRARY [ROUNDS]}")
rounds=${2:-0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0

now() { date +%s%N; }

# name, then a command whose output must not depend on the allocator
check() {
    local name=$1 status
    shift
    command -v "$1" >/dev/null || { echo "skip $name: $1 is not installed"; return; }
    "$@" >"$work/theirs" 2>&1
    LD_PRELOAD=$library "$@" >"$work/ours" 2>&1
    status=$?
    if [ $status -eq 0 ] && cmp -s "$work/theirs" "$work/ours"; then
        echo "ok $name"
        passed=$((passed + 1))
    else
        echo "not ok $name (status $status)"
        diff "$work/theirs" "$work/ours" | head -n 5
        failed=$((failed + 1))
    fi
    [ "$rounds" -gt 0 ] || return
    for _ in $(seq "$rounds"); do
        local a b c
        a=$(now); "$@" >/dev/null 2>&1
        b=$(now); LD_PRELOAD=$library "$@" >/dev/null 2>&1
        c=$(now)
        echo $(((c - b) * 1000 / (b - a)))
    done | sort -n | awk -v n="$name" '{ r[NR] = $1 } END { printf "ratio %s %.3f\n", n, r[int((NR + 1) / 2)] / 1000 }'
}

cat >objects.py <<'P'
import gc, json, threading
def work(n):
    d = {}
    for i in range(n):
        d[str(i)] = [i] * (i % 50) + [{"k": "v" * (i % 700)}]
        if i % 3 == 0: d.pop(str(i // 2), None)
    return len(json.dumps(d))
out = [None] * 4
def run(i): out[i] = work(20000)
ts = [threading.Thread(target=run, args=(i,)) for i in range(4)]
[t.start() for t in ts]; [t.join() for t in ts]
b = bytearray()
for i in range(2000): b += b"x" * 5000
import os
pid = os.fork()
if pid == 0: os._exit(0 if work(3000) > 0 else 1)
print(out, len(b), os.waitpid(pid, 0)[1], len(gc.get_objects()) > 0)
P
check python3 env PYTHONMALLOC=malloc python3 objects.py

{
    echo 'create table t(a integer primary key, b text, c blob); begin;'
    for i in $(seq 3000); do echo "insert into t(b, c) values('row $i', randomblob($((i % 900))));"; done
    echo 'commit; create index i on t(b); select count(*), sum(length(c)), max(b) from t;'
    echo 'select count(*) from t x join t y on x.b = y.b; delete from t where a % 3 = 0; vacuum; select count(*) from t;'
    echo 'pragma integrity_check;'
} >t.sql
check sqlite3 sqlite3 :memory: ".read t.sql"

if command -v git >/dev/null; then
    git init -q repo
    for i in $(seq 300); do seq "$i" $((i * 7)) >"repo/f$i"; done
    git -C repo add . && git -C repo -c user.name=a -c user.email=a@b commit -qm one
    check git-log git -C repo log --stat
    check git-fsck git -C repo fsck --full
    check git-gc sh -c 'rm -rf c && git clone -q repo c && git -C c repack -adq && git -C c count-objects -v | grep -c .'
else
    echo 'skip git: not installed'
fi

{
    echo '#include <stdio.h>'
    for i in $(seq 1500); do
        echo "static int f$i(int a, int b) { int s = 0; for (int i = a; i < b; i++) s += (i * $i) ^ (s >> 3); return s; }"
    done
    echo 'int main(void) { int s = 0;'
    for i in $(seq 1500); do echo "s += f$i(s & 7, $i);"; done
    echo 'printf("%d\n", s); return 0; }'
} >large.c
check gcc gcc -O1 -c large.c -o large.o

cat >threads.c <<'C'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
#include <signal.h>
enum { N = 300000, RING = 1024 };
static unsigned char *ring[RING];
static unsigned head, tail;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static volatile sig_atomic_t ticks;
static void tick(int s) { (void)s; ticks++; }
static size_t size_of(unsigned i) { return 1 + i * 2654435761u % (i % 64 ? 900 : 200000); }
static void *consumer(void *x)
{
	unsigned long sum = 0;
	for (unsigned i = 0; i < N; i++) {
		pthread_mutex_lock(&mu);
		while (head == tail) pthread_cond_wait(&cv, &mu);
		unsigned char *p = ring[tail++ % RING];
		pthread_cond_signal(&cv);
		pthread_mutex_unlock(&mu);
		if (p[0] != (i & 255) || p[size_of(i) - 1] != (i & 255)) abort();
		sum += p[0];
		free(p);
	}
	*(unsigned long *)x = sum;
	return 0;
}
static void *churn(void *x) { for (int i = 0; i < 2000; i++) free(calloc(1, 1 + i * 37 % 5000)); return x; }
int main(void)
{
	pthread_t t, c[4];
	unsigned long sum;
	struct sigaction sa = { .sa_handler = tick };
	sigaction(SIGALRM, &sa, 0);
	ualarm(500, 500);
	pthread_create(&t, 0, consumer, &sum);
	for (unsigned i = 0; i < N; i++) {
		size_t n = size_of(i);
		unsigned char *p = malloc(n);
		p[0] = p[n - 1] = i;
		pthread_mutex_lock(&mu);
		while (head - tail == RING) pthread_cond_wait(&cv, &mu);
		ring[head++ % RING] = p;
		pthread_cond_signal(&cv);
		pthread_mutex_unlock(&mu);
		if (i % 30000 == 0) {
			for (int k = 0; k < 4; k++) pthread_create(&c[k], 0, churn, 0);
			pid_t pid = fork();
			if (!pid) { char *q = malloc(100000); memset(q, 1, 100000); free(q); _exit(7); }
			int st;
			while (waitpid(pid, &st, 0) < 0);
			if (WEXITSTATUS(st) != 7) abort();
			for (int k = 0; k < 4; k++) pthread_join(c[k], 0);
		}
	}
	pthread_join(t, 0);
	printf("%lu\n", sum);
	return 0;
}
C
if command -v gcc >/dev/null && gcc -O1 -pthread threads.c -o threads; then
    check producer-consumer ./threads
else
    echo 'skip producer-consumer: no gcc'
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
