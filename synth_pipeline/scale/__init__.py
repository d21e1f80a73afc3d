"""From a plan to tasks: processes of this machine, or a Dask cluster. The only room that may import dask."""
