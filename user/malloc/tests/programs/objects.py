"""Many small objects on four threads, a growing buffer, a fork."""
import gc
import json
import os
import threading


def work(n):
    table = {}
    for i in range(n):
        table[str(i)] = [i] * (i % 50) + [{"k": "v" * (i % 700)}]
        if i % 3 == 0:
            table.pop(str(i // 2), None)
    return len(json.dumps(table))


results = [None] * 4


def run(i):
    results[i] = work(20000)


threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
buffer = bytearray()
for i in range(2000):
    buffer += b"x" * 5000
pid = os.fork()
if pid == 0:
    os._exit(0 if work(3000) > 0 else 1)
print(results, len(buffer), os.waitpid(pid, 0)[1], len(gc.get_objects()) > 0)
