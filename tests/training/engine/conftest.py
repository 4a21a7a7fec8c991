from tiny_runs import tiny_config, tiny_dataset  # noqa: F401
