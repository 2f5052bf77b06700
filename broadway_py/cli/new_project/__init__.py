"""Makes a new project: a pipeline with its settings and its tests, from templates."""
