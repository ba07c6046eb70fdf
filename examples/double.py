"""Ten thousand small tasks: workers are leased once and reused, calls travel in batches."""

import time

import skate


@skate.remote
def double(x):
    return x * 2


def main():
    fut1 = double.remote(2)
    assert skate.get(fut1) == 4

    start = time.perf_counter()
    futures = [double.remote(i) for i in range(10000)]
    results = skate.get(futures)
    seconds = time.perf_counter() - start
    print(results[:4], "...", results[-1])
    print(f"{len(results)} tasks in {seconds:.2f} s")


if __name__ == "__main__":
    main()
