"""Who makes the shards of an atlas: this process, processes of this machine, or a Dask cluster."""
