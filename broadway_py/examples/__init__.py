"""Example pipelines to read and to run. The quick start runs them."""
