"""Fields, layouts, containers, normalizers, windows and splits. Torch-free."""
