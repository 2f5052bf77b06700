"""The long-running process: settings, logs, signals, workers and the HTTP port for any number of pipelines."""
