"""Tasks: two arrays are read and added in other processes; refs connect the calls to a graph."""

import tempfile
from pathlib import Path

import numpy as np

import skate


@skate.remote
def read_array(file):
    return np.load(file)


@skate.remote
def add(a, b):
    return np.add(a, b)


def main():
    with tempfile.TemporaryDirectory() as folder:
        file1, file2 = str(Path(folder, "a.npy")), str(Path(folder, "b.npy"))
        np.save(file1, np.arange(6.0).reshape(2, 3))
        np.save(file2, np.full((2, 3), 10.0))

        id1 = read_array.remote(file1)
        id2 = read_array.remote(file2)
        id = add.remote(id1, id2)  # noqa: A001 - as printed in the talk
        sum = skate.get(id)  # noqa: A001
    print(sum)


if __name__ == "__main__":
    main()
