"""Where the rows of a matrix come from, and how they are divided.

A ``Source`` is divided into ``Piece``s, and a piece reads a ``Batch`` wherever it is unpickled:

- ``central``: tables that the driver holds,
- ``blocks``: tables in the object store, streams and iterables of tables,
- ``files``: CSV and Parquet,
- ``frames``: DataFrames of Dask and Modin.

``sharding`` is the arithmetic of the division, ``tables`` what can be done with tables of all
kinds, ``opening`` finds out which source it is that a user has passed.
"""
