"""Actors: an object with state in a process of its own; its calls run in the order made."""

import skate


@skate.remote(num_gpus=1)
class Counter(object):  # noqa: UP004 - as printed in the talk
    def __init__(self):
        self.value = 0

    def inc(self):
        self.value += 1
        return self.value


def main():
    # GPUs are counted, not opened: on a machine without one, say that there is one.
    skate.init(num_gpus=1)
    c = Counter.remote()
    id4 = c.inc.remote()
    id5 = c.inc.remote()
    print(skate.get([id4, id5]))


if __name__ == "__main__":
    main()
