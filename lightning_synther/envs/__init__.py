"""dm_control environments: tasks, one environment, a pool of them in worker processes."""
