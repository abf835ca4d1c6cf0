"""What `regroup serve` and the runs that it schedules agree on: workspaces, deployments, time zones, what came of a run."""
