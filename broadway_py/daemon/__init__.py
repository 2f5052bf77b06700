"""The long-running process: settings, logs, signals, workers and the HTTP port around any number of pipelines."""
