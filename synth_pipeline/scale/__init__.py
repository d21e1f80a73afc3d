"""From a plan to tasks: local processes (and Dask, later). The only room that may import dask."""
