"""The Zarr store: plan, whole shards, commit objects, verified reading. Torch-free."""
