"""A Dask cluster on loopback."""


def local_cluster(**settings):
    from distributed import LocalCluster

    return LocalCluster(host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50, **settings)
